"""From files to weights: edgetl's training against the loop of torchvision's references, in turns on one machine.

    python -m benchmarks.training_speed DATA --work FOLDER [--size 128] [--epochs 5] [--rounds 3] [--workers 1]
        [--freeze SHARE …] [--out FILE]

DATA is a folder of class folders. Both train the same network from the same weights on as many of the same files for as
many epochs, with a validation after each, and the time of the whole process counts, imports and all. The other loop is
what ``references/classification/train.py`` of torchvision does: ImageFolder, RandomResizedCrop, a flip, a DataLoader
that decodes every file in every epoch, SGD. ``--freeze`` adds runs of edgetl whose front layers stay, without
augmentation: with their activations computed once, and computed each time.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import default_loader
from torchvision.transforms import v2

from benchmarks.peers_export import timed
from edgetl.base.extras import version
from edgetl.base.storage import read_json, write_json
from edgetl.core.run import load_run
from edgetl.runtime.machine import machine
from edgetl.transfer import backbones, weights

RESULT = Path(__file__).parent / "results" / "training_speed.json"
#: The command line, and the same with nothing computed ahead.
PLAIN = ("-m", "edgetl")
EACH_TIME = (
    "-c",
    "from edgetl.transfer import ahead; ahead._same_every_time = lambda *_: False; from edgetl.cli import main; main()",
)
BACKBONE, BATCH = "efficientnet_lite0", 32
#: Shares that edgetl trains on and validates with.
TRAIN, VAL = 0.5, 0.1


class Files(Dataset[tuple[Any, int]]):
    """Pictures of files with their classes, as torchvision's ImageFolder gives them."""

    def __init__(self, rows: Sequence[tuple[str, int]], transform: Any) -> None:
        self.rows, self.transform = rows, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """A prepared image, float32 (3, size, size), and its class."""
        path, label = self.rows[index]
        return self.transform(default_loader(path)), label


def transforms(size: int) -> tuple[Any, Any]:
    """Of training, and of evaluation."""
    prepared = backbones.find(BACKBONE).preprocess
    assert prepared is not None
    last = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(prepared.mean, prepared.std)]
    varied = v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), *last])
    return varied, v2.Compose([v2.Resize(round(size / 0.875)), v2.CenterCrop(size), *last])


def plainly_trained(
    train: Sequence[tuple[str, int]], val: Sequence[tuple[str, int]], classes: int, size: int, epochs: int, workers: int
) -> nn.Module:
    """The network that torchvision's reference loop ends with: files and their classes, SGD, a validation an epoch."""
    found, (varied, plain) = backbones.find(BACKBONE), transforms(size)
    loaders = [
        DataLoader(Files(train, varied), BATCH, shuffle=True, num_workers=workers, drop_last=True),
        DataLoader(Files(val, plain), BATCH, num_workers=workers),
    ]
    model = weights.load(found, classes, weights.locate(found, None), found.preprocess)
    loss, optimizer = nn.CrossEntropyLoss(label_smoothing=0.1), torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        model.train()
        for images, labels in loaders[0]:
            optimizer.zero_grad()
            loss(model(images), labels).backward()
            optimizer.step()
        rates.step()
        model.eval()
        with torch.inference_mode():
            for images, _ in loaders[1]:
                model(images)
    return model


def reference(data: Path, size: int, epochs: int, workers: int) -> None:
    """Train as torchvision's references do, on as many files as edgetl does."""
    folder = torchvision.datasets.ImageFolder(str(data))
    rows = [folder.samples[index] for index in np.random.default_rng(0).permutation(len(folder))]
    ends = (np.cumsum([TRAIN, VAL]) * len(rows)).round().astype(int)
    plainly_trained(rows[: ends[0]], rows[ends[0] : ends[1]], len(folder.classes), size, epochs, workers)


def run_python(words: Sequence[object]) -> dict[str, float]:
    """Seconds of a Python process and those that it starts: by the wall clock, and of all processors."""
    return timed([sys.executable, *map(str, words)], (0,))


def ours(options: argparse.Namespace, out: Path, *more: object, start: Sequence[str] = PLAIN) -> dict[str, Any]:
    """A run of edgetl, which never stops early: seconds, and what it reaches."""
    words = [*start, "finetune", options.data, "--image-size", options.size, "--epochs", options.epochs]
    seconds = run_python([*words, "--set", "patience=1000", "--out", out, "--fresh", "--quiet", *more])
    run = load_run(out)
    trained = run.lineage["timing"]["train_seconds"]
    return {**seconds, "loop_seconds": trained, "accuracy": run.metrics.val["accuracy"],
            "loss": run.metrics.val["loss"], "samples": len(run.dataset.split("train")) * options.epochs}  # fmt: skip


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """One round of all."""
    words = [
        "-m",
        "benchmarks.training_speed",
        options.data,
        "--work",
        options.work,
        "--reference",
        "--size",
        options.size,
    ]
    theirs = run_python([*words, "--epochs", options.epochs, "--workers", options.workers])
    rows: dict[str, Any] = {"torchvision": theirs}
    rows["edgetl"] = ours(options, options.work / "plain")
    for share in options.freeze:
        fixed = ("--set", f"freeze={share}", "--augment", "none")
        rows[f"freeze {share}, computed once"] = ours(options, options.work / f"once-{share}", *fixed)
        rows[f"freeze {share}, each time"] = ours(options, options.work / f"each-{share}", *fixed, start=EACH_TIME)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--freeze", nargs="*", default=["0.5"])
    parser.add_argument("--reference", action="store_true", help="Only the other loop.")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    options.data = options.data.resolve()
    if options.reference:
        reference(options.data, options.size, options.epochs, options.workers)
        return
    options.work = options.work.resolve()
    rounds = read_json(options.out)["rounds"] if options.out.is_file() else []
    while len(rounds) < options.rounds:
        rounds.append(measured(options))
        here = machine()
        told = {"cpu": here["cpu_model"], "cores": here["cores"], "torch": version("torch")}
        settings = {"size": options.size, "epochs": options.epochs, "workers": options.workers}
        write_json(options.out, {"machine": told, "settings": settings, "rounds": rounds})
        print(rounds[-1], flush=True)


if __name__ == "__main__":
    main()
