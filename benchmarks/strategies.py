"""What each way of transferring reaches, against a linear probe and against training from scratch, on held-out samples.

    python -m benchmarks.strategies DATA --work FOLDER [--seeds 3] [--size 128] [--only NAME …] [--out FILE]

DATA is a folder of class folders, such as magnetic-tile. Each cell is a run of its own, in a process of its own; the
finished model answers the certify split, which no choice has seen. Differences are paired, of the same samples, with
the interval of the certificates. Results are added to FILE cell by cell: what was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers_export import timed
from edgetl.base.extras import version
from edgetl.base.progress import silent
from edgetl.base.storage import read_json, write_json
from edgetl.certify import verify_arrays
from edgetl.core.run import Run, load_run
from edgetl.runtime.machine import machine
from edgetl.workflow.reference import TorchReference

RESULT = Path(__file__).parent / "results" / "strategies.json"
#: Name → options of ``edgetl finetune``; distillation is from a larger backbone's run.
CELLS: Mapping[str, tuple[str, ...]] = {
    "probe": ("--strategy", "linear-probe"),
    "probe, best of three heads": ("--strategy", "linear-probe", "--set", "head=best", "--set", "folds=5"),
    "fine-tune": (),
    "gradual": ("--set", "unfreeze=1", "--set", "schedule=triangular"),
    "balanced": ("--set", "balance=1"),
    "focal": ("--set", "focal=2"),
    "mixed": ("--set", "mixup=0.2", "--set", "cutmix=1"),
    "averaged": ("--set", "average=0.99"),
    "a half of the start": ("--set", "start_share=0.5"),
    "strong augmentation": ("--augment", "strong"),
    "lora": ("--strategy", "lora"),
    "slower": ("--learning-rate", "0.0001"),
    "faster": ("--learning-rate", "0.001"),
    "teacher": ("--backbone", "efficientnet_lite2"),
    "distilled": ("--strategy", "distillation", "--teacher", "teacher"),
    "distilled, attention": ("--strategy", "distillation", "--teacher", "teacher", "--set", "attention=5"),
    "front frozen by gradient": ("--set", "freeze=auto"),
    **{f"front {share} frozen": ("--set", f"freeze={share}") for share in (0.25, 0.5, 0.75)},
    "scratch": ("--baseline", "scratch"),
}
#: Members of the mean of weights.
SOUP = ("fine-tune", "slower", "faster")


def trained(
    name: str, words: tuple[str, ...], data: Path, work: Path, seed: int, size: int
) -> tuple[Run, float, float]:
    """The run of a cell, and the wall and CPU seconds that it took; 0 where it was there."""
    place = work / f"seed-{seed}"
    own = [str(place / "teacher") if word == "teacher" and given == "--teacher" else word
           for given, word in zip(("", *words), words, strict=False)]  # fmt: skip
    # The baseline from scratch is added to the run that it is the baseline of.
    out = place / ("fine-tune" if name == "scratch" else name.replace(" ", "-").replace(",", ""))
    command = [
        "finetune",
        str(data),
        "--out",
        str(out),
        "--seed",
        str(seed),
        "--image-size",
        str(size),
        "--quiet",
        *own,
    ]
    if name == "mean":
        members = [str(place / member) for member in SOUP]
        command = ["soup", *members, "--out", str(out), "--quiet"]
    if (out / "run.json").is_file() and (name != "scratch" or load_run(out).baseline is not None):
        return load_run(out), 0.0, 0.0
    spent = timed([sys.executable, "-m", "edgetl", *command], (0,))
    return load_run(out), spent["seconds"], spent["cpu_seconds"]


def answers(run: Run, baseline: bool = False) -> npt.NDArray[np.int64]:
    """Classes that the finished float model of a run, or of its baseline, gives the certify samples."""
    reference = TorchReference(run)
    (logits,) = (reference.baseline(silent) if baseline else reference.outputs("certify", silent)).values()
    return np.asarray(logits.argmax(1), np.int64)


def cell(name: str, run: Run, seconds: float, cpu: float, probe: Run) -> dict[str, Any]:
    """What a run reaches on the certify split, and how much more than the probe of its seed."""
    scratch = name == "scratch"
    labels, told, theirs = run.dataset.labels("certify"), answers(run, scratch), answers(probe)
    metrics = run.baseline.metrics if scratch and run.baseline else run.metrics
    recalls = [float((told[labels == c] == c).mean()) for c in np.unique(labels)]
    tested = verify_arrays(reference=theirs, deployed=told, labels=labels)
    return {
        "n": len(labels),
        "accuracy": float((told == labels).mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "worst_class": min(recalls),
        "against_probe": {"difference": tested.difference, "ci_low": tested.ci_low, "ci_high": tested.ci_high},
        "val": dict(metrics.val),
        "epochs": [metrics.best_epoch, metrics.epochs_run],
        "seconds": seconds,
        "cpu_seconds": cpu,
    }


def main(arguments: list[str] | None = None) -> None:
    """Add every cell that is not known yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--only", nargs="+", default=[*CELLS, "mean"])
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args(arguments)
    known: dict[str, Any] = read_json(given.out)["cells"] if given.out.is_file() else {}
    work, data = given.work.resolve(), given.data.resolve()
    here = machine()
    about = {
        "machine": {"cpu_model": here["cpu_model"], "cores": here["cores"]},
        "versions": {name: version(name) for name in ("torch", "timm", "sklearn", "peft")},
        "data": data.name,
        "size": given.size,
    }
    for seed in range(given.seeds):
        (work / f"seed-{seed}").mkdir(parents=True, exist_ok=True)
        probe = trained("probe", CELLS["probe"], data, work, seed, given.size)
        for name in given.only:
            if (key := f"{name} {seed}") in known:
                continue
            run, seconds, cpu = (
                probe if name == "probe" else trained(name, CELLS.get(name, ()), data, work, seed, given.size)
            )
            known[key] = cell(name, run, seconds, cpu, probe[0])
            write_json(given.out, {**about, "cells": known})
            print(key, known[key]["accuracy"], known[key]["seconds"], flush=True)


if __name__ == "__main__":
    main()
