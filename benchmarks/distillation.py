"""What a teacher adds: the same student, seed, samples and steps, with and without one, and with unlabelled samples.

    python -m benchmarks.distillation [CASE …] --data SHARED --work FOLDER --out benchmarks/results/distillation.json

Every seed draws its own samples and trains its own teacher on the same labelled ones. SHARED holds the real data sets.
"""

from __future__ import annotations

import argparse
import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.task_data import write_rows
from benchmarks.task_transfer import certify_scores
from edgetl.base.extras import version
from edgetl.base.storage import read_json, write_json
from edgetl.core.run import Run
from edgetl.runtime.machine import machine
from edgetl.transfer.finetune import finetune

SEEDS = (0, 1, 2)
Labelled = tuple[Path, str]


@dataclass(frozen=True)
class Case:
    """One student and its teacher.

    Attributes:
        samples: the folder of real data sets and one to write in → files and their classes.
        sizes: of train, val, calibration, search, certify, and of the samples without labels.
        teacher, student: options of finetune.
        set: options of the strategy.
        knows_more: whether the teacher has labels of the samples that the student gets without.
    """

    samples: Callable[[Path, Path], Iterator[Labelled]]
    sizes: tuple[int, int, int, int, int, int]
    teacher: dict[str, Any]
    student: dict[str, Any]
    set: dict[str, float]
    knows_more: bool = False


def _mnist(shared: Path, folder: Path) -> Iterator[Labelled]:
    """The 10,000 test digits, as PNG files."""
    images, labels = (_idx(file) for file in sorted((shared / "mnist-test").glob("t10k-*")))
    folder.mkdir(parents=True, exist_ok=True)
    for number, (pixels, label) in enumerate(zip(images.reshape(-1, 28, 28), labels, strict=True)):
        file = folder / f"{number:05d}.png"
        if not file.is_file():
            Image.fromarray(pixels).save(file)
        yield file, f"digit {label}"


def _idx(file: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """What an IDX file of bytes holds, flat."""
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])


def _tiles(shared: Path, folder: Path) -> Iterator[Labelled]:
    for file in sorted((shared / "magnetic-tile").glob("*/*.jpg")):
        yield file, file.parent.name


def _small(shared: Path, folder: Path) -> Iterator[Labelled]:
    """scikit-learn's 1,797 digits of 8 x 8, an array file each."""
    bunch = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    for number, (pixels, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        file = folder / f"{number:04d}.npy"
        if not file.is_file():
            np.save(file, pixels.astype(np.float32))
        yield file, f"digit {label}"


CASES = {
    # A minute of one core. Convolutions learn less from 100 samples than the perceptron that they teach: what a bad
    # teacher does. The other teacher is like its student, and knows 600 labels more.
    "small-digits, same labels": Case(
        _small, (100, 50, 20, 20, 800, 600), {"backbone": "cnn"}, {"backbone": "mlp"}, {"weight": 0.9}
    ),
    "small-digits, a teacher of more labels": Case(
        _small, (100, 50, 20, 20, 800, 600), {"backbone": "mlp"}, {"backbone": "mlp"}, {"weight": 0.9}, True
    ),
    # A network of 0.1 million parameters that has seen nothing, taught by one of 3.4 million that knows ImageNet.
    "digits": Case(
        _mnist,
        (200, 50, 20, 20, 1000, 400),
        {"backbone": "efficientnet_lite0", "image_size": 32, "epochs": 5},
        {
            "backbone": "timm/test_efficientnet",
            "weights": "none",
            "image_size": 32,
            "epochs": 12,
            "learning_rate": 3e-3,
        },
        {"weight": 0.9, "temperature": 2.0},
    ),
    # Both know ImageNet.
    "tiles": Case(
        _tiles,
        (240, 60, 20, 20, 500, 400),
        {"backbone": "efficientnet_lite2", "image_size": 96, "epochs": 6},
        {"backbone": "efficientnet_lite0", "image_size": 96, "epochs": 6},
        {"weight": 0.9, "temperature": 2.0},
    ),
}
#: Name of what is compared → strategy, and whether it sees the samples without labels.
ARMS = {
    "alone": ("fine-tune", False),
    "taught": ("distillation", False),
    "taught, unlabelled too": ("distillation", True),
}


def divided(case: Case, folder: Path, shared: Path, seed: int) -> tuple[Path, Path, Path]:
    """CSV files: the teacher's, with labels and splits, the student's, and what is without labels."""
    listed = list(case.samples(shared, folder / "files"))
    order = np.random.default_rng(seed).permutation(len(listed))[: sum(case.sizes)]
    parts = np.split(order, np.cumsum(case.sizes)[:-1])
    names = ("train", "val", "calibration", "search", "certify")
    rows = [(*listed[i], name) for name, part in zip(names, parts, strict=False) for i in part]
    columns, more = ("path", "label", "split"), [(*listed[i], "train") for i in parts[-1]]
    taught = write_rows(folder / f"seed{seed}-teacher.csv", columns, rows + (more if case.knows_more else []))
    data = write_rows(folder / f"seed{seed}.csv", columns, rows)
    return (
        taught,
        data,
        write_rows(folder / f"seed{seed}-unlabelled.csv", ("path",), [(listed[i][0],) for i in parts[-1]]),
    )


def measured(name: str, seed: int, work: Path, shared: Path) -> dict[str, Any]:
    """One teacher and its students, each trained or taken up where it is finished."""
    case = CASES[name]
    common: dict[str, Any] = {
        "seed": seed,
        "precision": "32-true",
        "accelerator": "cpu",
        "batch_size": 16,
        "workers": 0,
    }
    folder = work / name.replace(", ", "-").replace(" ", "-")
    known, data, unlabelled = divided(case, folder, shared, seed)
    teacher = finetune(known, folder / f"teacher-{seed}", **common, **case.teacher)
    found = {"teacher": _told(teacher)}
    for arm, (strategy, more) in ARMS.items():
        taught: dict[str, Any] = {} if strategy == "fine-tune" else {"teacher": teacher.path, "set": case.set}
        given = {**taught, **({"target_data": unlabelled} if more else {})}
        out = folder / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
        found[arm] = _told(finetune(data, out, strategy=strategy, **common, **case.student, **given))
    return found


def _told(run: Run) -> dict[str, Any]:
    return {
        "backbone": run.backbone,
        "certify": certify_scores(run),
        "epochs": [run.metrics.best_epoch, run.metrics.epochs_run],
        "samples": run.dataset.sizes(),
        "streams": run.lineage["streams"],
        "timing": run.lineage["timing"],
        "trained": run.lineage["trained"],
    }


def gains(seeds: dict[str, Any]) -> dict[str, Any]:
    """Points of accuracy on the certify samples above the student alone, for each seed and on average."""
    found = {}
    for arm in ARMS:
        apart = [
            100 * (each[arm]["certify"]["accuracy"] - each["alone"]["certify"]["accuracy"]) for each in seeds.values()
        ]
        found[arm] = {"each": [round(x, 2) for x in apart], "mean": round(float(np.mean(apart)), 2)}
    return found


def main() -> None:
    """Measure what is asked for, beside what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/distillation.json"))
    given = parser.parse_args()
    held = read_json(given.out)["cases"] if given.out.is_file() else {}
    for name in given.names or CASES:
        seeds: dict[str, Any] = {}
        for seed in SEEDS:
            seeds[str(seed)] = measured(name, seed, given.work, given.data)
            held[name] = {
                "set": CASES[name].set,
                "knows_more": CASES[name].knows_more,
                "seeds": seeds,
                "gain": gains(seeds),
            }
            versions = {module: version(module) for module in ("edgetl", "torch", "timm", "sklearn")}
            record = {"machine": machine(), "versions": versions, "threads": torch.get_num_threads()}
            write_json(given.out, {**record, "cases": held})


if __name__ == "__main__":
    main()
