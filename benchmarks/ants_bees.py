"""Ants and bees, the photographs of PyTorch's tutorial on transfer learning, against figures that others published.

    python -m benchmarks.ants_bees DATA --work FOLDER [--seeds 3] [--size 224] [--out FILE]

DATA holds ``train`` and ``val`` with ``ants`` and ``bees`` in each: 244 and 153 photographs. What others publish is the
accuracy on ``val`` of the epoch that is best on ``val``. Here ``val`` certifies, and nothing is chosen by it: of the
other 244, some validate, calibrate and serve the search for a recipe. Each run is exported for x86-generic, and both
the trained model and the int8 artifact answer ``val``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.task_data import write_rows
from edgetl import pipeline
from edgetl.base.extras import version
from edgetl.base.storage import read_json, write_json
from edgetl.runtime.machine import machine
from edgetl.transfer.finetune import finetune

RESULT = Path(__file__).parent / "results" / "ants_bees.json"
#: Mari et al. 2020, "Transfer learning in hybrid classical-quantum neural networks", and the notebooks beside it: heads
#: on the features of ResNet18, 224 pixels.
PUBLISHED: Mapping[str, float] = {"ResNet18, classical head": 0.954, "ResNet18, quantum head": 0.967}
#: Shares of the 244.
SHARES = {"train": 0.7, "val": 0.1, "calibration": 0.1, "search": 0.1}
CELLS: Mapping[str, str] = {"probe": "linear-probe", "fine-tune": "fine-tune"}


def drawn(data: Path, table: Path, seed: int) -> Path:
    """The table of a seed."""
    rows = list[tuple[Path, str, str]]()
    rng = np.random.default_rng(seed)
    for kind in ("ants", "bees"):
        files = sorted(file for file in (data / "train" / kind).iterdir() if file.suffix == ".jpg")
        ends = (np.cumsum(list(SHARES.values())) * len(files)).round().astype(int)
        for split, part in zip(SHARES, np.split(rng.permutation(len(files)), ends[:-1]), strict=True):
            rows += [(files[index], kind, split) for index in part]
        rows += [(file, kind, "certify") for file in sorted((data / "val" / kind).iterdir()) if file.suffix == ".jpg"]
    return write_rows(table, ("path", "label", "split"), rows)


def measured(name: str, table: Path, size: int, seed: int) -> dict[str, Any]:
    """A run and its bundle, as their certificate compares them."""
    began = time.process_time()
    run = finetune(table, table.parent / name, strategy=CELLS[name], seed=seed, image_size=size)
    seconds = time.process_time() - began
    (done,) = pipeline.export(run, targets=["x86-generic"], out=table.parent / f"{name}-bundles", bench=False)
    told = done.certificate
    return {
        "n": told.n,
        "trained": told.reference_accuracy,
        "int8": told.deployed_accuracy,
        "verdict": told.verdict,
        "epochs": [run.metrics.best_epoch, run.metrics.epochs_run],
        "choice": run.lineage["choice"],
        "train_cpu_seconds": round(seconds, 1),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Add every cell that is not known yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    known: dict[str, Any] = read_json(options.out)["cells"] if options.out.is_file() else {}
    for seed in range(options.seeds):
        table = drawn(options.data.resolve(), options.work.resolve() / str(seed) / "samples.csv", seed)
        for name in CELLS:
            if (key := f"{name} {seed}") in known:
                continue
            known[key] = measured(name, table, options.size, seed)
            here = machine()
            about = {
                "machine": {"cpu_model": here["cpu_model"], "cores": here["cores"]},
                "versions": {module: version(module) for module in ("torch", "timm", "onnxruntime")},
                "published": PUBLISHED,
                "size": options.size,
            }
            write_json(options.out, {**about, "cells": known})
            print(key, known[key], flush=True)


if __name__ == "__main__":
    main()
