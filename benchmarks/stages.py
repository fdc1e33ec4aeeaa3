"""What stages in between are worth, where a domain drifts step by step: digits that are turned further and further.

    python -m benchmarks.stages --work FOLDER [--seeds 3] [--out FILE]

The target is turned by 90 degrees and has 60 labelled samples. It is learned alone, after upright labelled digits
(``--via``), and after these and two steps without labels, of 30 and 60 degrees, which the stage before answers. The
finished model answers the certify split; differences are paired, with the interval of the certificates. The network is
a small one from random weights.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.task_data import write_rows
from edgetl.base.extras import version
from edgetl.base.progress import silent
from edgetl.base.storage import read_json, write_json
from edgetl.certify import verify_arrays
from edgetl.core.run import Run
from edgetl.transfer.finetune import finetune
from edgetl.transfer.staged import staged
from edgetl.workflow.reference import TorchReference

RESULT = Path(__file__).parent / "results" / "stages.json"
#: Name → the stages before, by their angle.
CELLS: Mapping[str, tuple[int, ...]] = {"alone": (), "after the source": (0,), "by steps": (0, 30, 60)}
#: Samples of the source and of each step; of the target's splits.
STEP, TARGET = 400, {"train": 60, "val": 40, "calibration": 30, "search": 30, "certify": 400}
ANGLE = 90


def prepared(folder: Path, seed: int) -> dict[int, Path]:
    """Tables of samples by their angle, of different digits each; only the source and the target have labels."""
    bunch, order = load_digits(), np.random.default_rng(seed).permutation(len(load_digits().target))
    tables, first = {}, 0
    for angle, size in ((0, STEP), (30, STEP), (60, STEP), (ANGLE, sum(TARGET.values()))):
        splits = [name for name, count in TARGET.items() for _ in range(count)] if angle == ANGLE else [""] * size
        rows = []
        for index, split in zip(order[first : first + size], splits, strict=True):
            turned = Image.fromarray(np.clip(bunch.images[index] * 16, 0, 255).astype(np.uint8)).resize((16, 16))
            file = folder / str(angle) / f"{index:04d}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, np.asarray(turned.rotate(angle), np.float32) / 255)
            rows.append((f"{angle}/{file.name}", int(bunch.target[index]), split))
        first += size
        columns = ("path", "label", "split") if angle == ANGLE else ("path", "label") if angle == 0 else ("path",)
        tables[angle] = write_rows(folder / f"{angle}.csv", columns, [row[: len(columns)] for row in rows])
    return tables


def labelled(table: Path) -> int:
    """Rows that have a label."""
    with table.open(newline="", encoding="utf-8") as stream:
        return sum(bool(row.get("label")) for row in csv.DictReader(stream))


def answers(run: Run) -> npt.NDArray[np.int64]:
    """Of the certify split."""
    (logits,) = TorchReference(run).outputs("certify", silent).values()
    found: npt.NDArray[np.int64] = logits.argmax(1)
    return found


def measured(work: Path, seed: int) -> dict[str, Any]:
    """All cells of a seed."""
    tables, runs = prepared(work / f"samples-{seed}", seed), dict[str, Run]()
    for name, via in CELLS.items():
        options: dict[str, Any] = {"backbone": "cnn", "seed": seed}
        out = work / f"{name} {seed}"
        via_tables = [tables[angle] for angle in via]
        runs[name] = (
            staged(tables[ANGLE], out, via_tables, **options) if via else finetune(tables[ANGLE], out, **options)
        )
    labels, rows = runs["alone"].dataset.labels("certify"), {}
    told = {name: answers(run) for name, run in runs.items()}
    for name, found in told.items():
        against = {other: verify_arrays(reference=told[other], deployed=found, labels=labels) for other in CELLS}
        rows[name] = {
            "accuracy": float((found == labels).mean()),
            "n": len(labels),
            "labels": sum(labelled(tables[angle]) for angle in CELLS[name]) + TARGET["train"] + TARGET["val"],
            "gain": {k: [v.difference, v.ci_low, v.ci_high] for k, v in against.items() if k != name},
        }
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    known: dict[str, Any] = read_json(options.out)["seeds"] if options.out.is_file() else {}
    for seed in range(options.seeds):
        if str(seed) not in known:
            known[str(seed)] = measured(options.work.resolve(), seed)
            write_json(options.out, {"versions": {"torch": version("torch")}, "seeds": known})
            print(seed, {name: row["accuracy"] for name, row in known[str(seed)].items()}, flush=True)


if __name__ == "__main__":
    main()
