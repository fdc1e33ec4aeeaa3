"""What the settings of fine-tuning are worth: rate, epochs and start of the head, against a probe and a plain loop.

    python -m benchmarks.defaults [DATA …] --data FOLDER --work FOLDER [--seeds 3] [--only CELL …]
        [--train 240] [--size 64] [--out FILE]

DATA are magnetic-tile, crops (of imagenet-sample), usps, spoken (digits, as pictures of mel bands) and sst2, whose
files FOLDER holds. Of each, every seed draws other samples to train on, a quarter as many to validate with, and up to
1,000 to judge by, which no choice has seen. What is varied is varied alone. The plain loop is that of torchvision's
references (:mod:`benchmarks.training_speed`) with as many epochs. Results are added to FILE cell by cell: what was
interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.domain_adaptation import usps
from benchmarks.repair_remedies import crops
from benchmarks.task_data import sentences, spectrograms, write_rows
from benchmarks.training_speed import Files, plainly_trained, transforms
from edgetl.base.extras import version
from edgetl.base.progress import silent
from edgetl.base.storage import read_json, write_json
from edgetl.certify import verify_arrays
from edgetl.core.data.readers.columns import has_column
from edgetl.core.run import Run
from edgetl.runtime.machine import machine
from edgetl.tasks import find_task
from edgetl.transfer.finetune import finetune
from edgetl.transfer.strategies import STRATEGIES
from edgetl.transfer.strategies.base import HeadSpec, Strategy
from edgetl.transfer.strategies.fine_tuning import fine_tune
from edgetl.transfer.tasks import scored
from edgetl.workflow.reference import TorchReference

RESULT = Path(__file__).parent / "results" / "defaults.json"
#: All epochs, and the weights of the last one: nothing is chosen by the few samples to validate with.
LAST: Mapping[str, Any] = {"keep": "last", "patience": 1000}
#: Name → the strategy, and options of ``finetune``; rates are relative to fine-tuning's own.
CELLS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "probe": ("linear-probe", {}),
    "as it is": ("fine-tune", {}),
    "a third of the rate": ("fine-tune", {"rate": 1 / 3}),
    "three times the rate": ("fine-tune", {"rate": 3.0}),
    "5 epochs": ("fine-tune", {"epochs": 5}),
    "30 epochs": ("fine-tune", {"epochs": 30}),
    "last epoch": ("fine-tune", {"set": LAST}),
    "three times the rate, last epoch": ("fine-tune", {"rate": 3.0, "set": LAST}),
    "head from random weights": ("random-head", {}),
}
PLAIN = "plain loop"
#: Samples to judge by, at most.
JUDGED = 1000
Rows = list[tuple[str, str]]


def random_head() -> Strategy:
    """Fine-tuning whose head is not fitted before it starts."""
    return replace(fine_tune(), head=HeadSpec(start="random"))


def folders(root: Path) -> Rows:
    """Files in class folders."""
    return [(str(file), file.parent.name) for file in sorted(root.glob("*/*")) if file.suffix in (".jpg", ".png")]


def digits(folder: Path, shared: Path) -> Rows:
    """All of USPS as PNG files of 28 pixels."""
    images, labels = usps(shared)
    rows = [(str(folder / f"{number:05d}.png"), str(label)) for number, label in enumerate(labels)]
    folder.mkdir(parents=True, exist_ok=True)
    for (path, _), image in zip(rows, images, strict=True):
        Image.fromarray(image).save(path)
    return rows


def spoken(folder: Path, shared: Path) -> Rows:
    """Spoken digits as PNG files of 39 by 40: the logarithm of mel energies, from the least of all to the greatest."""
    found = [(folder / path, f"digit {file.parent.name}") for path, file, _ in spectrograms(folder, shared)]
    held = [np.load(path)[0] for path, _ in found]
    low, high = min(map(np.min, held)), max(map(np.max, held))
    for (path, _), values in zip(found, held, strict=True):
        Image.fromarray((255 * (values - low) / (high - low)).round().astype(np.uint8)).save(path.with_suffix(".png"))
    return [(str(path.with_suffix(".png")), label) for path, label in found]


def cut(folder: Path, shared: Path) -> Rows:
    """Crops of photographs; how these are divided is kept."""
    with crops(folder, shared).open(newline="", encoding="utf-8") as stream:
        return [(str(folder / row["path"]), row["label"]) for row in csv.DictReader(stream)]


POOLS: Mapping[str, Callable[[Path, Path], Rows]] = {
    "magnetic-tile": lambda folder, shared: folders(shared / "magnetic-tile"),
    "crops": cut,
    "usps": digits,
    "spoken": spoken,
}
SENTENCES = "sst2"


def drawn(name: str, work: Path, shared: Path, seed: int, train: int) -> Path:
    """The table of a seed: its own samples to train on and to validate with, the rest, up to a limit, to judge by."""
    table = work / f"{name}-{seed}" / "samples.csv"
    if table.is_file():
        return table
    if name == SENTENCES:
        return sentences(table.parent, shared, name, round(train / 0.75), seed).rename(table)
    rows = POOLS[name](work / name, shared)
    # Crops of one photograph stay together.
    units = np.array([Path(path).stem.rpartition("-")[0] if name == "crops" else path for path, _ in rows])
    small = train // 8
    sizes = {"train": train, "val": train // 4, "calibration": small, "search": small, "certify": JUDGED}
    ends = np.cumsum(list(sizes.values()))
    rng, parts, classes = np.random.default_rng(seed), [np.empty(0, int)], {label for _, label in rows}
    # Again, where a rare class has no sample to train on.
    while {rows[i][1] for i in parts[0]} != classes:
        place = {unit: position for position, unit in enumerate(rng.permutation(np.unique(units)))}
        parts = np.split(np.array(sorted(range(len(rows)), key=lambda row: place[units[row]])), ends)
    told = [(*rows[i], split) for split, part in zip(sizes, parts, strict=False) for i in part]
    return write_rows(table, ("path", "label", "split"), told)


def edgetls(name: str, table: Path, out: Path, seed: int, size: int) -> tuple[Run, npt.NDArray[Any]]:
    """The run of a cell, and its logits of the certify split."""
    strategy, varied = CELLS[name]
    texts = has_column(table, "text")
    options: dict[str, Any] = {"strategy": strategy, "seed": seed, "epochs": varied.get("epochs")}
    options["set"] = dict(varied.get("set", {}))
    options |= {} if texts else {"image_size": size}
    if "rate" in varied:
        options["learning_rate"] = fine_tune().schedule.learning_rate * varied["rate"]
    run = finetune(table, out / name.replace(" ", "-").replace(",", ""), **options)
    (logits,) = TorchReference(run).outputs("certify", silent).values()
    return run, logits


def plain(table: Path, size: int, epochs: int, run: Run) -> npt.NDArray[Any]:
    """Logits of the plain loop's network, of the samples of a run's certify split."""
    parts = {
        split: list(zip(map(str, run.dataset.paths(split)), run.dataset.labels(split).tolist(), strict=True))
        for split in ("train", "val", "certify")
    }
    torch.manual_seed(run.settings["seed"])
    model = plainly_trained(parts["train"], parts["val"], len(run.classes), size, epochs, 0).eval()
    loader = DataLoader(Files(parts["certify"], transforms(size)[1]), 64)
    with torch.inference_mode():
        return np.concatenate([model(images).numpy() for images, _ in loader])


def measured(name: str, seed: int, options: argparse.Namespace, known: dict[str, Any]) -> None:
    """Add every cell of a data set and seed that is not known yet."""
    work, shared = options.work.resolve(), options.data.resolve()
    table = drawn(name, work, shared, seed, options.train)
    probe, theirs = edgetls("probe", table, table.parent, seed, options.size)
    labels, task = probe.dataset.labels("certify"), find_task(probe.task)
    for cell in [*CELLS, *([PLAIN] if name != SENTENCES else [])]:
        if (key := f"{name}, {cell}, {seed}") in known or cell not in options.only:
            continue
        began = time.process_time()
        if cell == "probe":
            run, logits = probe, theirs
        elif cell == PLAIN:
            run, logits = probe, plain(table, options.size, 15, probe)
        else:
            run, logits = edgetls(cell, table, table.parent, seed, options.size)
        tested = verify_arrays(reference=theirs.argmax(1), deployed=logits.argmax(1), labels=labels)
        against = {"difference": tested.difference, "ci_low": tested.ci_low, "ci_high": tested.ci_high}
        epochs = {} if cell == PLAIN else {"epochs": [run.metrics.best_epoch, run.metrics.epochs_run]}
        seconds = round(time.process_time() - began, 1)
        known[key] = {
            **scored(task, {"logits": logits}, labels).to_json(),
            "against_probe": against,
            **epochs,
            "cpu_seconds": seconds,
        }
        here = machine()
        told = {"cpu_model": here["cpu_model"], "cores": here["cores"]}
        versions = {module: version(module) for module in ("torch", "timm", "sklearn")}
        settings = {"train": options.train, "size": options.size}
        write_json(options.out, {"machine": told, "versions": versions, "settings": settings, "cells": known})
        print(key, round(known[key]["accuracy"], 4), round(known[key]["loss"], 4), seconds, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[*POOLS, SENTENCES], metavar="DATA")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[*CELLS, PLAIN], metavar="CELL")
    parser.add_argument("--train", type=int, default=240)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    STRATEGIES["random-head"] = random_head
    known: dict[str, Any] = read_json(options.out)["cells"] if options.out.is_file() else {}
    for seed in range(options.seeds):
        for name in options.names:
            measured(name, seed, options, known)


if __name__ == "__main__":
    main()
