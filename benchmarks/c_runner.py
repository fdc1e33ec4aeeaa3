"""The C runner beside Python: are pixels and outputs equal, what does a cold start take, and how much memory?

    python benchmarks/c_runner.py RUNNER LIBRARY BUNDLE PICTURES [--n 500] [--starts 5] [--out FILE]

RUNNER is the program edgetl-run, LIBRARY the runtime's shared library. Pixels are compared by SHA-256, outputs number
by number. A cold start is a new process from its beginning to its end with one picture answered, the ways in turn: C;
Python with the runtime, as a device has it; and the same with torch imported, as on a machine that trains. Memory is
the most that the process held (getrusage).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl.base.errors import DataError
from edgetl.base.storage import write_json
from edgetl.core.bundle import load_bundle
from edgetl.inputs import input_of
from edgetl.runtime.machine import machine
from edgetl.runtime.predictor import open_bundle

_STARTER = """
import os, sys, time
begin = time.perf_counter()
null = os.open(os.devnull, os.O_WRONLY)
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, null, 1)])
usage = os.wait4(pid, 0)[2]
print(time.perf_counter() - begin, usage.ru_maxrss)
"""
_PYTHON = "from edgetl.runtime import open_bundle; print(open_bundle({bundle!r}, threads=1).predict({picture!r}).label)"


def in_c(command: Sequence[str], paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The runner's records of some pictures."""
    asked = "".join(f"{path}\n" for path in paths)
    done = subprocess.run([*command, "-"], input=asked, capture_output=True, text=True, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()]


def equality(command: Sequence[str], bundle: Path, paths: Sequence[Path]) -> dict[str, Any]:
    """How many pictures have equal pixels, equal outputs and the same label; and the greatest difference of outputs."""
    opened = load_bundle(bundle)
    definition = input_of(opened)
    pixels = in_c([command[0], "--pixels", str(bundle)], paths)
    answers = in_c([*command, "--outputs", str(bundle)], paths)
    found = {"files": len(paths), "refused_by_both": 0, "equal_pixels": 0, "equal_outputs": 0, "same_label": 0}
    most = 0.0
    with open_bundle(opened, threads=1) as model:
        for path, seen, answer in zip(paths, pixels, answers, strict=True):
            try:
                wanted = hashlib.sha256(next(iter(definition.feeds(path).values())).tobytes()).hexdigest()
            except DataError:
                found["refused_by_both"] += "pixels" not in seen
                continue
            found["equal_pixels"] += seen.get("pixels") == wanted
            outputs = {name: x[0] for name, x in model.outputs(path).items()}
            given = {name: np.array(answer["outputs"][name], np.float32) for name in outputs}
            apart = max(float(np.abs(given[name] - x).max()) for name, x in outputs.items())
            most = max(most, apart)
            found["equal_outputs"] += apart == 0
            label = answer["answer"].get("labels", [{}])[0].get("label")
            found["same_label"] += label == model.predict(path).label
    return {**found, "greatest_difference": most}


def started(command: Sequence[str]) -> tuple[float, float]:
    """Seconds and MiB of one process, started by a small one: a process counts what its parent held when it forked."""
    words = [sys.executable, "-I", "-S", "-c", _STARTER, *command]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
    seconds, kibibytes = done.stdout.split()[-2:]
    return float(seconds), int(kibibytes) / 1024


def cold_starts(command: Sequence[str], bundle: Path, picture: Path, turns: int) -> dict[str, dict[str, float]]:
    """Median seconds and MiB of each way, in turn."""
    program = _PYTHON.format(bundle=str(bundle), picture=str(picture))
    ways = {
        "c": [*command, str(bundle), str(picture)],
        "python": [sys.executable, "-c", program],
        "python_torch": [sys.executable, "-c", f"import torch; {program}"],
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, words in ways.items():
            taken[name].append(started(words))
    return {
        name: {"seconds": statistics.median(t for t, _ in each), "mib": statistics.median(m for _, m in each)}
        for name, each in taken.items()
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("runner", "library", "bundle", "pictures"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    paths = sorted(p for p in options.pictures.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[: options.n]
    command = [str(options.runner.resolve()), "--library", str(options.library.resolve()), "--threads", "1"]
    result = {
        "program_bytes": options.runner.stat().st_size,
        "equality": equality(command, options.bundle, paths),
        "cold_start": cold_starts(command, options.bundle, paths[0], options.starts),
        "machine": machine(),
    }
    print(json.dumps(result, indent=1))
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
