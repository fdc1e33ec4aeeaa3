"""Several tasks on one backbone against a network for each: what was said, by whom, and how long it took.

    python -m benchmarks.multi_task --data FOLDER --work FOLDER [--seeds 3] [--epochs N] [--out FILE]

FOLDER holds ``audio-fsdd``: 1,500 spoken digits by 6 speakers, as spectrograms of at most 0.64 seconds. Each task is
learned alone, by fine-tuning a small network from random weights, and all three together, their losses added up or
weighed by their uncertainty. In "partial" each sample keeps the label of one task, drawn at random, so that a third of
the labels is there. All runs have the same splits. The finished models answer the certify split; differences to the
network of its own are paired, with the interval of the certificates. What is together is exported for x86-generic.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.task_data import RATE, spectrograms, write_rows
from edgetl.base.extras import version
from edgetl.base.progress import silent
from edgetl.base.storage import read_json, write_json
from edgetl.certify import verify_arrays
from edgetl.core.run import Run
from edgetl.pipeline import export
from edgetl.runtime.machine import machine
from edgetl.transfer.finetune import finetune
from edgetl.workflow.reference import TorchReference

RESULT = Path(__file__).parent / "results" / "multi_task.json"
#: Task → its column.
TASKS: Mapping[str, str] = {"digit": "label:digit", "speaker": "label:speaker", "seconds": "target:seconds"}
TOGETHER: Mapping[str, dict[str, Any]] = {
    "together": {"weighting": "equal"},
    "together, by uncertainty": {"weighting": "uncertainty"},
}
SHARES = {"train": 0.4, "val": 0.1, "calibration": 0.05, "search": 0.1, "certify": 0.35}
Answers = dict[str, npt.NDArray[Any]]


def tables(folder: Path, shared: Path, seed: int) -> dict[str, Path]:
    """A table for each task, one for all, and those of a third of the labels; every row says its split."""
    rng = np.random.default_rng(seed)
    rows = [
        (path, f"digit {file.parent.name}", file.stem.split("_")[1], round(samples / RATE, 4))
        for path, file, samples in spectrograms(folder, shared)
    ]
    ends = (np.cumsum(list(SHARES.values())) * len(rows)).round().astype(int)
    splits = [""] * len(rows)
    for name, part in zip(SHARES, np.split(rng.permutation(len(rows)), ends[:-1]), strict=True):
        for row in part:
            splits[row] = name
    keeps = rng.integers(0, len(TASKS), len(rows))
    found = {}
    for partly in (False, True):
        told = [
            (path, *(x if not partly or split == "certify" or keep == i else "" for i, x in enumerate(labels)), split)
            for (path, *labels), split, keep in zip(rows, splits, keeps, strict=True)
        ]
        kind = "partial" if partly else "whole"
        found[f"{kind} together"] = write_rows(folder / f"{kind}.csv", ("path", *TASKS.values(), "split"), told)
        for i, (task, column) in enumerate(TASKS.items(), 1):
            own = [(row[0], row[i], row[-1]) for row in told if row[i] != ""]
            columns = ("path", column.partition(":")[0], "split")
            found[f"{kind} {task}"] = write_rows(folder / f"{kind}-{task}.csv", columns, own)
    return found


def answers(run: Run) -> Answers:
    """Of the certify split: what each task's output says, in the order of the samples' names."""
    outputs = TorchReference(run).outputs("certify", silent)
    names = [sample.path for sample in run.dataset.split("certify")]
    order = np.argsort(names)
    named = outputs if run.dataset.parts else {"": next(iter(outputs.values()))}
    return {name: values[order] for name, values in named.items()}


def truth(table: Path) -> Answers:
    """Labels of the certify split, in the same order; classes by their place in the alphabet."""
    with table.open(newline="", encoding="utf-8") as stream:
        rows = sorted((row for row in csv.DictReader(stream) if row["split"] == "certify"), key=lambda row: row["path"])
    found: Answers = {}
    for task, column in TASKS.items():
        cells = [row[column] for row in rows]
        classes = {name: i for i, name in enumerate(sorted(set(cells)))}
        found[task] = np.array([float(c) for c in cells] if task == "seconds" else [classes[c] for c in cells])
    return found


def judged(found: npt.NDArray[Any], alone: npt.NDArray[Any] | None, labels: npt.NDArray[Any]) -> dict[str, Any]:
    """Score of a task's answers, and what they gain over those of the network of its own."""
    if labels.dtype.kind == "f":
        error = np.abs(found[:, 0] - labels)
        return {"mae": float(error.mean())}
    scored: dict[str, Any] = {"accuracy": float((found.argmax(1) == labels).mean()), "n": len(labels)}
    if alone is not None:
        test = verify_arrays(reference=alone.argmax(1), deployed=found.argmax(1), labels=labels)
        scored["gain"] = [test.difference, test.ci_low, test.ci_high]
    return scored


def measured(work: Path, shared: Path, seed: int, epochs: int) -> dict[str, Any]:
    """All cells of a seed."""
    folder = work / f"samples-{seed}"
    given = tables(folder, shared, seed)
    labels, cells = truth(given["whole together"]), dict[str, Any]()
    how: dict[str, Any] = {"backbone": "cnn", "seed": seed, "epochs": epochs, "set": {"patience": epochs}}
    for kind in ("whole", "partial"):
        runs = {task: finetune(given[f"{kind} {task}"], work / f"{kind} {task} {seed}", strategy="fine-tune", **how)
                for task in TASKS}  # fmt: skip
        alone = {task: answers(run)[""] for task, run in runs.items()}
        cells[f"{kind}: each alone"] = {task: judged(alone[task], None, labels[task]) for task in TASKS}
        for name, options in TOGETHER.items():
            terms = {**how, "set": {**how["set"], **options}}
            run = finetune(given[f"{kind} together"], work / f"{kind} {name} {seed}", strategy="multi-task", **terms)
            found = answers(run)
            cells[f"{kind}: {name}"] = {task: judged(found[task], alone[task], labels[task]) for task in TASKS}
            if name == "together":
                cells[f"{kind}: {name}"]["int8"] = _bundle(run, work / f"out {kind} {seed}")
                cells[f"{kind}: each alone"]["int8"] = {
                    task: _bundle(one, work / f"out {kind} {task} {seed}") for task, one in runs.items()
                }
    return cells


def _bundle(run: Run, out: Path) -> dict[str, Any]:
    (done,) = export(run, targets="x86-generic", out=out)
    certificate = done.certificate
    parts = certificate.parts or {"": certificate}
    record = done.bench
    return {
        "verdict": certificate.verdict,
        "tasks": {name: [part.verdict, part.difference, part.n] for name, part in parts.items()},
        "p50_ms": record.deployed.p50_ms if record is not None else None,
        "bytes": done.bundle.manifest.artifacts["deployed"].bytes,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    known: dict[str, Any] = read_json(options.out)["seeds"] if options.out.is_file() else {}
    for seed in range(options.seeds):
        if str(seed) not in known:
            known[str(seed)] = measured(options.work.resolve(), options.data, seed, options.epochs)
            about = {"machine": machine(), "versions": {"torch": version("torch")}, "epochs": options.epochs}
            write_json(options.out, {**about, "seeds": known})
            print(seed, known[str(seed)], flush=True)


if __name__ == "__main__":
    main()
