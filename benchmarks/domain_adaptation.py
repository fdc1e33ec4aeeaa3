"""USPS to MNIST and back without a label of the target: each way of adapting, before and after int8.

    python -m benchmarks.domain_adaptation --data FOLDER --work FOLDER [--seeds 3] [--only NAME …] [--way WAY …]
        [--samples 2000] [--epochs N] [--out FILE]

FOLDER holds ``usps`` and ``mnist-test``. The network is a small one from random weights, as others use for digits,
which are 28 by 28 numbers from 0 to 1. Of the source, so many samples are drawn for each seed; of the target as many
without labels, and twice as many with labels, of which a third is searched and two thirds are certified on. MNIST is
its test set alone, so that differences count here and published figures do not (skada-bench: 0.734 of the source alone,
0.878 by CORAL). Each run is exported for x86-generic, in a process of its own, and answers the certify split. Results
are added to FILE cell by cell: what was interrupted goes on where it stopped. Reading USPS takes h5py.
"""

from __future__ import annotations

import argparse
import gzip
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.task_data import write_rows
from edgetl.base.extras import version
from edgetl.base.progress import silent
from edgetl.base.storage import read_json, write_json
from edgetl.certify import verify_arrays
from edgetl.core.run import Run, load_run
from edgetl.runtime.machine import machine
from edgetl.transfer.validators import VALIDATORS
from edgetl.workflow.reference import TorchReference

RESULT = Path(__file__).parent / "results" / "domain_adaptation.json"
WAYS: Mapping[str, tuple[str, str]] = {"usps-to-mnist": ("usps", "mnist"), "mnist-to-usps": ("mnist", "usps")}
#: Name → strategy and its options; what does not train on the source itself starts from the run of the source.
CELLS: Mapping[str, tuple[str, ...]] = {
    "source only": ("--strategy", "source-only"),
    "adabn": ("--strategy", "adabn", "--from", "source only"),
    "coral": ("--strategy", "coral"),
    "mmd": ("--strategy", "mmd"),
    "dann": ("--strategy", "dann"),
    "shot": ("--strategy", "shot", "--from", "source only"),
}
SUPERVISED = "target supervised"
Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def usps(shared: Path) -> tuple[Images, Labels]:
    """All digits, uint8 (n, 28, 28), white on black, enlarged from 16 by 16, and what they are."""
    import h5py

    with h5py.File(shared / "usps" / "usps.h5") as file:
        parts = [(file[name]["data"][:], file[name]["target"][:]) for name in ("train", "test")]
    values = np.concatenate([images for images, _ in parts]).reshape(-1, 16, 16)
    scaled = 255 * (values - values.min()) / (values.max() - values.min())
    small = [Image.fromarray(image) for image in scaled.round().astype(np.uint8)]
    images = np.stack([np.asarray(image.resize((28, 28), Image.Resampling.BILINEAR)) for image in small])
    return images, np.concatenate([labels for _, labels in parts]).astype(np.int64)


def mnist(shared: Path) -> tuple[Images, Labels]:
    """The test set, uint8 (10000, 28, 28), and what each is."""

    def held(name: str, header: int) -> Images:
        with gzip.open(shared / "mnist-test" / name) as stream:
            return np.frombuffer(stream.read(), np.uint8, offset=header)

    images = held("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    return images, held("t10k-labels-idx1-ubyte.gz", 8).astype(np.int64)


READ = {"usps": usps, "mnist": mnist}


def prepared(way: str, shared: Path, work: Path, seed: int, samples: int) -> tuple[Path, Path, Path]:
    """Tables of the source, of the target without and with labels, and of the same target for supervised training."""
    folder = work / f"{way}-{samples}-{seed}"
    tables = tuple(folder / name for name in ("source.csv", "target.csv", "supervised.csv"))
    if all(table.is_file() for table in tables):
        return tables[0], tables[1], tables[2]
    rng = np.random.default_rng(seed)
    source, target = WAYS[way]
    (images, labels), (others, theirs) = READ[source](shared), READ[target](shared)
    drawn, order = rng.permutation(len(images))[:samples], rng.permutation(len(others))
    write_rows(tables[0], ("path", "label"), _written(folder, "source", images[drawn], labels[drawn]))
    free, held = order[:samples], order[samples : 3 * samples]
    plain = _written(folder, "free", others[free], theirs[free])
    told = _written(folder, "held", others[held], theirs[held])
    third = len(told) // 3
    splits = ["search"] * third + ["certify"] * (len(told) - third)
    marked = [(*row, split) for row, split in zip(told, splits, strict=True)]
    write_rows(tables[1], ("path", "label", "split"), [*((name, "", "train") for name, _ in plain), *marked])
    rows = [(*row, "val" if place % 7 == 0 else "train") for place, row in enumerate(plain)]
    write_rows(tables[2], ("path", "label", "split"), [*rows, *marked])
    return tables[0], tables[1], tables[2]


def _written(folder: Path, part: str, images: Images, labels: Labels) -> list[tuple[str, str]]:
    (folder / part).mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        name = f"{part}/{number:05d}.npy"
        np.save(folder / name, image.astype(np.float32) / 255)
        rows.append((name, str(label)))
    return rows


def edgetl(*arguments: object) -> float:
    """Run a command; its wall-clock seconds. A failed certificate (3) is an outcome."""
    began = time.perf_counter()
    words = [sys.executable, "-m", "edgetl", *map(str, arguments), "--quiet"]
    done = subprocess.run(words, check=False, env={**os.environ})
    if done.returncode not in (0, 3):
        raise SystemExit(f"edgetl {arguments[0]} ended with {done.returncode}")
    return time.perf_counter() - began


def answers(run: Run) -> Labels:
    """What the finished model says of the certify split."""
    (logits,) = TorchReference(run).outputs("certify", silent).values()
    found: Labels = logits.argmax(1)
    return found


def cell(run: Run, out: Path, control: Labels, seconds: float) -> dict[str, Any]:
    """What a run reaches on the target, against the control, before and after int8."""
    edgetl("export", run.path, "--target", "x86-generic", "--out", out, "--no-bench")
    certificate = read_json(out / "x86-generic" / "certificate.json")
    labels = run.dataset.labels("certify")
    against = verify_arrays(reference=control, deployed=answers(run), labels=labels)
    rows = run.history
    return {
        "accuracy": certificate["reference_score"],
        "int8": certificate["deployed_score"],
        "verdict": certificate["verdict"],
        "gain": against.difference,
        "interval": [against.ci_low, against.ci_high],
        "n": certificate["n"],
        "source": run.metrics.val["accuracy"],
        "best_epoch": run.metrics.best_epoch,
        "epochs": len(rows) - 1,
        "seconds": round(seconds, 1),
    }


def measured(options: argparse.Namespace, known: dict[str, Any]) -> None:
    """Add every cell that is not known yet."""
    work, shared = options.work.resolve(), options.data.resolve()
    common = ["--backbone", "cnn", *(["--epochs", options.epochs] if options.epochs else [])]
    for seed in range(options.seeds):
        for way in options.way:
            source, target, supervised = prepared(way, shared, work, seed, options.samples)
            folder = work / f"{way}-{options.samples}-{options.epochs or 'own'}-{seed}"
            for name in ["source only", *(name for name in options.only if name != "source only")]:
                key = f"{way} {name} {seed}"
                if key in known:
                    continue
                out, seconds = folder / name, 0.0
                if not (out / "run.json").is_file():
                    words = CELLS.get(name, ("--strategy", "fine-tune"))
                    named = [str(folder / word) if before == "--from" else word for before, word in _pairs(words)]
                    data = (supervised,) if name == SUPERVISED else (source, "--target-data", target)
                    seconds = edgetl("finetune", *data, *named, *common, "--seed", seed, "--out", out)
                control = answers(load_run(folder / "source only"))
                known[key] = cell(load_run(out), folder / f"out {name}", control, seconds)
                write_json(options.out, {"machine": _machine(), "settings": _settings(options), "cells": known})
                print(key, known[key], flush=True)


def _pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    return list(zip(("", *words), words, strict=False))


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {"samples": options.samples, "epochs": options.epochs, "validators": list(VALIDATORS)}


def _machine() -> dict[str, Any]:
    here = machine()
    packages = ("torch", "onnxruntime")
    return {"cpu": here["cpu_model"], "cores": here["cores"], "versions": {name: version(name) for name in packages}}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="+", default=[*CELLS, SUPERVISED])
    parser.add_argument("--way", nargs="+", default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    measured(options, read_json(options.out)["cells"] if options.out.is_file() else {})


if __name__ == "__main__":
    main()
