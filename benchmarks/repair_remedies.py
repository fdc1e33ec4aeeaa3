"""What each remedy of repair gains, and what it costs: whole exports of linear probes and fine-tuned networks.

    python -m benchmarks.repair_remedies [DATA …] --data FOLDER --work FOLDER [--before TREE] [--target T …]
        [--strategy S …] [--seeds 3] [--size 128] [--out FILE]

DATA is ``magnetic-tile`` (FOLDER holds it) or ``crops``: eight kinds of thing, cut from FOLDER/imagenet-sample as
pictures of 32 pixels, all crops of a photograph in one split. Every run is exported for every target, without timing
it, in a process and a folder of its own; ``--before`` names another checkout of edgetl, which trains the runs then, and
whose exports come right before ours. Results are added to FILE cell by cell: what was interrupted goes on where it
stopped.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.task_data import SHARES, write_rows
from edgetl.base.extras import version
from edgetl.base.storage import read_json, write_json
from edgetl.runtime.machine import machine

RESULT = Path(__file__).parent / "results" / "repair_remedies.json"
OURS = Path(__file__).resolve().parents[1]
TARGETS = ("x86-generic", "intel-cpu", "jetson")
STRATEGIES = ("linear-probe", "fine-tune")
#: Kind → first and last class of ImageNet-1k.
KINDS: Mapping[str, tuple[tuple[int, int], ...]] = {
    "fish": ((0, 6), (389, 397)),
    "bird": ((7, 24), (80, 100), (127, 146)),
    "reptile": ((25, 68),),
    "dog": ((151, 268),),
    "cat": ((281, 293),),
    "insect": ((300, 326),),
    "primate": ((365, 382),),
    "fruit": ((948, 957),),
}
CROPS, SIDE = 6, 32
#: Of a trial, as ``repair.json`` has it.
OF_TRIAL = ("remedy", "change", "score", "difference", "expected_difference", "seconds", "kept", "note")


def crops(folder: Path, shared: Path, seed: int = 0) -> Path:
    """The pictures and the file that lists them."""
    photographs, rng = sorted((shared / "imagenet-sample").glob("n*.jpg")), np.random.default_rng(seed)
    rows = []
    for kind, ranges in KINDS.items():
        chosen = rng.permutation([index for first, last in ranges for index in range(first, last + 1)])
        ends = (np.cumsum(list(SHARES.values())) * len(chosen)).round().astype(int)
        for split, part in zip(SHARES, np.split(chosen, ends[:-1]), strict=True):
            for index in part:
                rows += [(name, kind, split) for name in _cut(photographs[index], folder, rng)]
    return write_rows(folder / "crops.csv", ("path", "label", "split"), rows)


def _cut(photograph: Path, folder: Path, rng: np.random.Generator) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    with Image.open(photograph) as opened:
        image = opened.convert("RGB")
    for number in range(CROPS):
        side = int(min(image.size) * rng.uniform(0.6, 1))
        left, top = (int(rng.integers(0, whole - side + 1)) for whole in image.size)
        cut = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        names.append(f"{photograph.stem}-{number}.png")
        cut.save(folder / names[-1])
    return names


def edgetl(tree: Path, *arguments: object) -> float:
    """Run a command of a checkout; its wall-clock seconds. A failed certificate (3) is an outcome."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "edgetl", *map(str, arguments), "--quiet"], env=environment, cwd=tree, check=False
    )
    if done.returncode not in (0, 3):
        raise SystemExit(f"edgetl {arguments[0]} ended with {done.returncode}")
    return time.perf_counter() - began


def cell(tree: Path, run: Path, target: str, out: Path) -> dict[str, Any]:
    """One export: what its certificate says, what repair tried, and seconds."""
    seconds = edgetl(tree, "export", run, "--target", target, "--out", out, "--no-bench")
    bundle = out / target
    certificate = read_json(bundle / "certificate.json")
    repair = read_json(bundle / "repair.json") if (bundle / "repair.json").is_file() else {}
    return {
        "seconds": round(seconds, 1),
        "repair_seconds": round(repair.get("seconds") or 0.0, 1),
        "chosen": repair.get("chosen", "default"),
        "stopped": repair.get("stopped", ""),
        **{name: certificate[name] for name in ("verdict", "n", "difference", "ci_low", "ci_high")},
        "reference": certificate["reference_score"],
        "deployed": certificate["deployed_score"],
        "trials": [{name: trial.get(name) for name in OF_TRIAL} for trial in repair.get("trials", ())],
    }


def measured(options: argparse.Namespace, known: dict[str, Any]) -> None:
    """Add every cell that is not known yet."""
    work = options.work.resolve()
    shared = options.data.resolve()
    trees = {"before": options.before.resolve()} if options.before else {}
    trees["now"] = OURS
    for seed in range(options.seeds):
        for name in options.names:
            data = shared / name if name != "crops" else work / "crops" / "crops.csv"
            if name == "crops" and not data.is_file():
                crops(data.parent, shared)
            for strategy in options.strategy:
                run = work / f"{name}-{strategy}-{options.size}-{seed}"
                if not (run / "run.json").is_file():
                    edgetl(next(iter(trees.values())), "finetune", data, "--strategy", strategy, "--seed", seed,
                           "--image-size", options.size, "--out", run)  # fmt: skip
                for target in options.target:
                    for tree, folder in trees.items():
                        key = f"{run.name} {target} {tree}"
                        if key not in known:
                            known[key] = cell(folder, run, target, work / f"out-{run.name}-{tree}")
                            write_json(options.out, {"machine": _machine(), "cells": known})
                            print(key, known[key]["deployed"], known[key]["seconds"], flush=True)


def _machine() -> dict[str, Any]:
    here = machine()
    packages = ("torch", "onnxruntime", "openvino", "nncf", "tensorrt-rtx")
    return {"cpu": here["cpu_model"], "cores": here["cores"], "versions": {name: version(name) for name in packages}}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["magnetic-tile", "crops"], choices=["magnetic-tile", "crops"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--target", nargs="+", default=TARGETS)
    parser.add_argument("--strategy", nargs="+", default=STRATEGIES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    measured(options, read_json(options.out)["cells"] if options.out.is_file() else {})


if __name__ == "__main__":
    main()
