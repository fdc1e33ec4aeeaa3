"""One kind of digits after another: a column beside the old one, against going on from it, and against a new network.

    python -m benchmarks.progressive --data FOLDER --work FOLDER [--seeds 3] [--samples 2000] [--few 400]
        [--epochs N] [--out FILE]

FOLDER holds ``usps`` and ``mnist-test``. A small network from random weights learns the one kind first, from so many
samples with the splits of edgetl, and then the other one from few. "in sequence" is fine-tuning from the first run, of
which the old head on the new backbone says what it still knows; "separate" is a second network that starts from random
weights; "progressive" is both in one, the new column reading the old one, "progressive, from it" the same with a new
column that starts from the old one's weights, and "unread" the former without its adapters' part, which tells what they
are worth to the column as it was trained. Accuracies are on the certify splits; differences
to "separate" are paired, with the interval of the certificates. Each is exported for x86-generic, without repair.
Results are added to FILE seed by seed: what was interrupted goes on where it stopped. Reading USPS takes h5py.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.domain_adaptation import READ, WAYS
from benchmarks.task_data import write_rows
from edgetl.base.extras import version
from edgetl.base.progress import silent
from edgetl.base.storage import read_json, write_json
from edgetl.certify import verify_arrays
from edgetl.core.run import Run
from edgetl.pipeline import export
from edgetl.runtime.machine import machine
from edgetl.transfer import features
from edgetl.transfer.classifier import head_of
from edgetl.transfer.columns import Columns
from edgetl.transfer.finetune import finetune
from edgetl.transfer.model import load_model, outputs
from edgetl.transfer.stores import store_of

RESULT = Path(__file__).parent / "results" / "progressive.json"
HOST = torch.device("cpu")
#: Of the new kind of digits so many are certified on, whatever few are learned from.
CERTIFIED = 2000
Answers = npt.NDArray[np.float32]


def tables(folder: Path, shared: Path, way: str, seed: int, samples: int, few: int) -> tuple[Path, Path]:
    """The old kind, with splits by edgetl, and the new one, of which few are not certified on."""
    found = folder / "old.csv", folder / "new.csv"
    if all(table.is_file() for table in found):
        return found
    rng = np.random.default_rng(seed)
    (images, labels), (others, theirs) = (READ[name](shared) for name in WAYS[way])
    drawn, order = rng.permutation(len(images))[:samples], rng.permutation(len(others))[: few + CERTIFIED]
    rows = [(name, label) for name, label in _written(folder, "old", images[drawn], labels[drawn])]
    splits = ["train"] * (few // 2) + ["val"] * (few // 6) + ["calibration"] * (few // 6)
    splits += ["search"] * (few - len(splits)) + ["certify"] * CERTIFIED
    new = _written(folder, "new", others[order], theirs[order])
    write_rows(found[1], ("path", "label", "split"), [(*row, split) for row, split in zip(new, splits, strict=True)])
    write_rows(found[0], ("path", "label"), rows)
    return found


def _written(folder: Path, part: str, images: npt.NDArray[Any], labels: npt.NDArray[Any]) -> list[tuple[str, str]]:
    (folder / part).mkdir(parents=True, exist_ok=True)
    names = [f"{part}/{number:05d}.npy" for number in range(len(images))]
    for name, image in zip(names, images, strict=True):
        np.save(folder / name, image.astype(np.float32) / 255)
    return [(name, str(label)) for name, label in zip(names, labels, strict=True)]


def answered(run: Run, of: Run, task: str = "", unread: bool = False) -> Answers:
    """Logits of a task for the certify samples of a run, in their order."""
    model = load_model(run)
    if unread and isinstance(model.backbone, Columns):
        for place in model.backbone.places:
            for value in model.backbone.adapter(place).parameters():
                torch.nn.init.zeros_(value)
    found = outputs(model, store_of(model.definition, of.dataset.paths("certify")), HOST)
    return found[task] if task else next(iter(found.values()))


def remembered(old: Run, new: Run) -> Answers:
    """Logits of the old run's head on what the new run's backbone gives for the old certify samples."""
    model, head = load_model(new), head_of(load_model(old).backbone)[1]
    seen = features.compute(model, store_of(model.definition, old.dataset.paths("certify")), HOST)
    with torch.inference_mode():
        found: Answers = head(torch.from_numpy(seen)).numpy()
    return found


def right(logits: Answers, run: Run) -> float:
    """The share of a run's certify samples that are answered rightly."""
    return float((logits.argmax(1) == run.dataset.labels("certify")).mean())


def measured(work: Path, shared: Path, way: str, seed: int, samples: int, few: int, epochs: int) -> dict[str, Any]:
    """All cells of a seed."""
    old_data, new_data = tables(work / f"{way}-{seed}", shared, way, seed, samples, few)
    how: dict[str, Any] = {"seed": seed, "epochs": epochs, "accelerator": "cpu", "precision": "32-true", "workers": 0}
    place = work / f"runs {way} {seed}"
    old = finetune(old_data, place / "old", backbone="cnn", **how)
    alone = finetune(new_data, place / "separate", backbone="cnn", **how)
    sequence = finetune(new_data, place / "sequence", from_run=old.path, **how)
    both = finetune(new_data, place / "progressive", from_run=old.path, strategy="progressive", **how)
    start = {"start": "previous"}
    begun = finetune(new_data, place / "begun", from_run=old.path, strategy="progressive", set=start, **how)
    before, labels = answered(old, old), alone.dataset.labels("certify")
    new = {
        "separate": answered(alone, alone), "in sequence": answered(sequence, alone),
        "progressive": answered(both, alone, "task2"), "unread": answered(both, alone, "task2", unread=True),
        "progressive, from it": answered(begun, alone, "task2"),
    }  # fmt: skip
    kept = answered(both, old, "task1")
    after = {"separate": before, "in sequence": remembered(old, sequence), "progressive": kept, "unread": kept}
    after["progressive, from it"] = answered(begun, old, "task1")
    cells: dict[str, Any] = {
        "same bits": all(np.array_equal(before, after[name]) for name in after if name.startswith("progressive")),
        "columns": both.lineage["columns"],
    }
    for name, logits in new.items():
        test = verify_arrays(reference=new["separate"].argmax(1), deployed=logits.argmax(1), labels=labels)
        cells[name] = {
            "old before": right(before, old), "old after": right(after[name], old), "new": right(logits, alone),
            "gain": [test.difference, test.ci_low, test.ci_high],
        }  # fmt: skip
    deployed = {
        "old": old,
        "separate": alone,
        "in sequence": sequence,
        "progressive": both,
        "progressive, from it": begun,
    }
    cells["int8"] = {name: _bundle(run, work / f"out {way} {seed} {name}") for name, run in deployed.items()}
    return cells


def _bundle(run: Run, out: Path) -> dict[str, Any]:
    (done,) = export(run, targets="x86-generic", out=out, repair=False, progress=silent)
    parts = done.certificate.parts or {"": done.certificate}
    return {
        "tasks": {name: [part.verdict, part.deployed_score, part.difference, part.n] for name, part in parts.items()},
        "p50_ms": done.bench.deployed.p50_ms if done.bench is not None else None,
        "bytes": done.bundle.manifest.artifacts["deployed"].bytes,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--few", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--way", choices=WAYS, default="usps-to-mnist")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    known: dict[str, Any] = read_json(options.out)["cells"] if options.out.is_file() else {}
    sizes = (options.samples, options.few, options.epochs)
    for seed in range(options.seeds):
        cell = f"{options.way} {seed}"
        if cell not in known:
            known[cell] = measured(options.work.resolve(), options.data, options.way, seed, *sizes)
            about = {"machine": machine(), "versions": {"torch": version("torch")}}
            about |= dict(zip(("samples", "few", "epochs"), sizes, strict=True))
            write_json(options.out, {**about, "cells": known})
            print(cell, known[cell], flush=True)


if __name__ == "__main__":
    main()
