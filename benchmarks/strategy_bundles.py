"""Every strategy, from samples to a certified int8 bundle: for x86-64 here, and for 64-bit Arm under emulation.

    python -m benchmarks.strategy_bundles [STRATEGY …] --work FOLDER [--arm DEVICE] [--size 64] [--epochs 2]

The samples are scikit-learn's digits as pictures, 60 of each; the target domain are others, turned by 20 degrees and
darker, of which every other one has a label. Two epochs show that a strategy reaches the device and what is said of it
there, not what it is worth: that is ``benchmarks.strategies``. DEVICE was made with ``edgetl devices create``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from benchmarks.certificates import told
from benchmarks.task_bundles import arm_rows, timed_row
from benchmarks.task_data import write_rows
from edgetl import pipeline
from edgetl.base.extras import version
from edgetl.base.storage import read_json, write_json
from edgetl.core.run import Run
from edgetl.runtime.machine import machine
from edgetl.transfer.finetune import finetune
from edgetl.transfer.strategies import STRATEGIES, find

RESULT = Path(__file__).parent / "results" / "strategy_bundles.json"
#: Of each digit, for the source; as many others for the target.
EACH, ANGLE, SHADE = 60, 20, 0.6
#: Strategies whose start, or whose teacher, is another one's run.
STARTS, TEACHERS = {"shot": "source-only"}, {"distillation": "linear-probe"}


def samples(folder: Path) -> tuple[Path, Path]:
    """Tables of the source and of the target."""
    source, target = folder / "source.csv", folder / "target.csv"
    if target.is_file():
        return source, target
    bunch, rows = load_digits(), ([], [])  # type: tuple[Any, tuple[list[Any], list[Any]]]
    for digit in range(10):
        for place, index in enumerate(np.flatnonzero(bunch.target == digit)[: 2 * EACH]):
            grey = Image.fromarray(np.clip(bunch.images[index] * 16, 0, 255).astype(np.uint8))
            grey = grey.resize((64, 64), Image.Resampling.BICUBIC)
            if place >= EACH:
                grey = grey.rotate(ANGLE).point(lambda value: round(SHADE * value))
            file = folder / "pictures" / f"{digit}-{index:04d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            grey.save(file)
            rows[place >= EACH].append((f"pictures/{file.name}", "" if place >= EACH and place % 2 else digit))
    for table, listed in ((source, rows[0]), (target, rows[1])):
        write_rows(table, ("path", "label"), listed)
    return source, target


def trained(name: str, work: Path, size: int, epochs: int) -> tuple[Run, float]:
    """The run of a strategy, and the seconds that it took; those that it needs are trained before it."""
    source, target = samples(work / "samples")
    options: dict[str, Any] = {"strategy": name, "epochs": epochs, "progress": told}
    needs = {need.name: need.optional for need in find(name).needs}
    options |= {"target_data": target} if needs.get("target") is False else {}
    options |= {"teacher": trained(TEACHERS[name], work, size, epochs)[0].path} if "teacher" in needs else {}
    start = STARTS.get(name)
    options |= {"image_size": size} if start is None else {"from_run": trained(start, work, size, epochs)[0].path}
    began = time.monotonic()
    run = finetune(source, work / name, **options)
    return run, time.monotonic() - began


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for, beside what was measured before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(STRATEGIES), metavar="STRATEGY")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--arm", help="name of an emulated device")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args(arguments)
    for name in given.names:
        held = read_json(given.out)["strategies"] if given.out.is_file() else {}
        if name in held:
            continue
        run, seconds = trained(name, given.work.resolve(), given.size, given.epochs)
        out = given.work.resolve() / f"{name}-bundles"
        (done,) = pipeline.export(run, targets=["x86-generic"], out=out, bench=False, progress=told)
        rows = {"x86-generic": timed_row(done)}
        rows |= {} if given.arm is None else arm_rows(run.path, out, given.arm)
        row = {"train_seconds": round(seconds, 1), "val": dict(run.metrics.val), "trained": run.lineage["trained"]}
        notes = list(done.certificate.notes)
        versions = {module: version(module) for module in ("edgetl", "torch", "onnxruntime")}
        strategies = {**held, name: {**row, "notes": notes, "bundles": rows}}
        write_json(given.out, {"machine": machine(), "versions": versions, "strategies": strategies})


if __name__ == "__main__":
    main()
