"""A class added to a bundle with 1, 5 and 20 pictures, against a head fitted again: accuracy, milliseconds, bytes.

    python -m benchmarks.enroll_on_device --data FOLDER --work FOLDER [--arm DEVICE] [--size 128] [--out FILE]

FOLDER holds ``magnetic-tile``, six classes of photographs. One class after the other is left out of the run, whose int8
bundle for x86-generic is certified without it; pictures of it are drawn 5 times, added, and the rest of it answered,
beside the certify split of the other classes. "refitted" is the same kind of head, of the same shrinkage, fitted with
these pictures among the training samples, on the same features. The features are those that ``edgetl enroll`` reads;
the rows are made by the functions that it calls. Once for each number of pictures ``edgetl enroll`` itself is run and
timed: as a call of a fresh process, and on an emulated 64-bit Arm that was made with ``edgetl devices create``, whose
means are compared with those of the same bundle simulated here.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import edgetl
from edgetl.base.extras import version
from edgetl.base.storage import write_json
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.core.data import Sample
from edgetl.runtime.machine import machine
from edgetl.runtime.open_head import base_head, enrolled_head
from edgetl.runtime.predict import predict
from edgetl.transfer import class_means

RESULT = Path(__file__).parent / "results" / "enroll_on_device.json"
SHOTS, DRAWS, KIND = (1, 5, 20), 5, "slda"
LEFT_OUT = ("blowhole", "break", "crack")
Floats = npt.NDArray[np.float32]


def without(data: Path, work: Path, name: str) -> tuple[Path, list[Path]]:
    """A folder of the other classes, and the files of the one that is left out."""
    folder = work / f"without-{name}"
    for place in sorted(path for path in data.iterdir() if path.is_dir() and path.name != name):
        if not (folder / place.name).is_dir():
            shutil.copytree(place, folder / place.name)
    return folder, sorted((data / name).glob("*.jpg"))


def seen(bundle: Bundle, paths: Sequence[Path]) -> Floats:
    """What the head reads, (n, features)."""
    return np.asarray(next(iter(predict(bundle, paths, head="features").values())))


def of_split(bundle: Bundle, folder: Path, name: str) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Features and labels of a split."""
    samples: Sequence[Sample] = bundle.dataset.split(name)
    return seen(bundle, [folder / sample.path for sample in samples]), bundle.dataset.labels_of(samples)


def accuracies(weight: Floats, bias: Floats, old: tuple[Floats, Any], new: Floats) -> tuple[float, float]:
    """Share of the old classes' samples, and of the new one's, that are answered rightly; the new row is the last."""
    before = float(((old[0] @ weight.T + bias).argmax(1) == old[1]).mean())
    return before, float(((new @ weight.T + bias).argmax(1) == len(bias) - 1).mean())


def compared(bundle: Bundle, run: Any, folder: Path, pictures: Sequence[Path]) -> dict[str, Any]:
    """Accuracy before and after a class is added, and with the head fitted again; mean and spread over the draws."""
    old, new = of_split(bundle, folder, "certify"), seen(bundle, pictures)
    dataset, head = run.dataset, base_head(bundle)
    parts = {name: [folder / sample.path for sample in dataset.split(name)] for name in ("train", "val")}
    held = {name: (seen(bundle, paths), dataset.labels(name)) for name, paths in parts.items()}
    classes = len(bundle.labels)
    shrinkage = class_means.fit(KIND, held["train"], held["val"], classes).shrinkage
    found: dict[str, Any] = {
        "certify": len(old[1]),
        "before": float(((old[0] @ head.weight.T + head.bias).argmax(1) == old[1]).mean()),
    }
    for shots in SHOTS:
        rows = []
        for draw in range(DRAWS):
            order = np.random.default_rng(draw).permutation(len(new))
            few, rest = new[order[:shots]], new[order[shots:]]
            mean = head.rule.prepared(few).astype(np.float64).mean(0).astype(np.float32)[None]
            weight, bias = head.rule.rows(mean)
            added = np.concatenate([head.weight, weight]), np.concatenate([head.bias, bias])
            x, y = held["train"]
            again = (np.concatenate([x, few]), np.concatenate([y, np.full(len(few), classes)]))
            fitted = class_means.fit(KIND, again, held["val"], classes + 1, shrinkage).head
            rows.append([*accuracies(*added, old, rest), *accuracies(fitted.weight, fitted.bias, old, rest)])
        names = ("enrolled, old classes", "enrolled, new class", "refitted, old classes", "refitted, new class")
        means, spreads = np.mean(rows, 0), np.std(rows, 0, ddof=1)
        told = zip(names, means, spreads, strict=True)
        found[f"{shots} pictures"] = {name: [round(float(m), 4), round(float(s), 4)] for name, m, s in told}
    return found


def timed(bundle: Path, pictures: Sequence[Path], device: str | None) -> dict[str, Any]:
    """``edgetl enroll`` with each number of pictures: seconds of the call, those of the rows alone, and bytes."""
    found: dict[str, Any] = {}
    for shots in SHOTS:
        began = time.perf_counter()
        done = edgetl.enroll(bundle, "new", pictures[:shots], device=device)
        whole = time.perf_counter() - began
        added = enrolled_head(load_bundle(bundle))
        assert added is not None
        found[f"{shots} pictures"] = {
            "call_seconds": round(whole, 2),
            "bytes": done.bytes,
            "rows_ms": round(_rows_ms(load_bundle(bundle), added.means), 3),
            "mean": added.means[0].tolist(),
        }
        edgetl.forget(bundle, "new")
    return found


def _rows_ms(bundle: Bundle, means: Floats) -> float:
    rule, times = base_head(bundle).rule, []
    for _ in range(20):
        began = time.perf_counter()
        rule.rows(means)
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))


def apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, float]:
    """Largest difference of two machines' means, as a share of their range."""
    pairs = {name: (np.array(one[name].pop("mean")), np.array(other[name].pop("mean"))) for name in one}
    return {name: round(float(np.abs(a - b).max() / np.ptp(a)), 5) for name, (a, b) in pairs.items()}


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--arm")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--classes", nargs="*", default=list(LEFT_OUT))
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    told: dict[str, Any] = {}
    for name in options.classes:
        folder, pictures = without(options.data / "magnetic-tile", options.work, name)
        shared = {"strategy": KIND, "image_size": options.size, "accelerator": "cpu"}
        began = time.perf_counter()
        run = edgetl.finetune(folder, options.work / f"run-{name}", **shared)
        arm = ["rpi5"] if options.arm else []
        targets, out = ["x86-generic", *arm], options.work / f"out-{name}"
        done = edgetl.export(run, targets=targets, out=out, bench=False, repair=False)
        seconds = time.perf_counter() - began
        bundle = load_bundle(done[0].bundle.path)
        row = compared(bundle, run, folder, pictures)
        here = timed(bundle.path, pictures, None)
        row |= {"verdict": done[0].certificate.verdict, "train_and_export_seconds": round(seconds, 1)}
        if options.arm:
            there = timed(done[1].bundle.path, pictures, options.arm)
            differences = apart(there, timed(done[1].bundle.path, pictures, None))
            # An emulator's time is no device's.
            sizes = {shots: each["bytes"] for shots, each in there.items()}
            row["emulated aarch64"] = {"bytes": sizes, "means apart": differences}
        for each in here.values():
            each.pop("mean", None)
        told[name] = row | {"x86": here}
        print(name, told[name])
        versions = {each: version(each) for each in ("edgetl", "torch", "onnxruntime", "sklearn")}
        write_json(options.out, {"machine": machine(), "versions": versions, "head": KIND, "left out": told})


if __name__ == "__main__":
    main()
