"""The C runner beside Python: are pixels and outputs equal, what does a cold start take, and how much memory?

    python benchmarks/c_runner.py RUNNER LIBRARY BUNDLE PICTURES [--n 500] [--starts 5] [--only PART…] [--out FILE]
        [--opencv PYTHON] [--header FOLDER] [--asan RUNNER] [--frames 10000] [--valgrind-frames 200]

RUNNER is the program edgetl-run, LIBRARY the runtime's shared library. Pixels are compared by SHA-256, outputs number
by number. A cold start is a new process from its beginning to its end with one picture answered, the ways in turn: C;
Python with the runtime, as a device has it; and the same with torch imported, as on a machine that trains. Memory is
the most that the process held (getrusage).

Reading: decode and resize of a JPEG of 1080p and of 12 megapixels, the ways in turn: C, Pillow, and OpenCV of another
Python (--opencv) that has opencv-python-headless. Overhead: c_overhead.cpp, compiled here with ONNX Runtime's header of
the folder --header. Frames: many pictures through edgetl-run built with -fsanitize=address (--asan), and under
valgrind.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl.base.errors import DataError
from edgetl.base.storage import write_json
from edgetl.core.bundle import load_bundle
from edgetl.inputs import input_of
from edgetl.inputs.image import Preprocess
from edgetl.inputs.pictures import decode
from edgetl.runtime.machine import machine, saturates
from edgetl.runtime.predictor import open_bundle

_STARTER = """
import os, sys, time
begin = time.perf_counter()
null = os.open(os.devnull, os.O_WRONLY)
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, null, 1)])
usage = os.wait4(pid, 0)[2]
print(time.perf_counter() - begin, usage.ru_maxrss)
"""
_PARTS = ("equality", "cold_start", "reading", "overhead", "frames")
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


_OPENCV = """
import cv2, sys, time
cv2.setNumThreads(1)
begin = time.perf_counter()
picture = cv2.imread(sys.argv[1], cv2.IMREAD_COLOR)
middle = time.perf_counter()
height, width = picture.shape[:2]
scale = int(sys.argv[2]) / min(height, width)
cv2.resize(picture, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
print((middle - begin) * 1000, (time.perf_counter() - middle) * 1000)
"""


def pillow_reading(path: Path, definition: Any) -> tuple[float, float]:
    """Milliseconds of decoding and of resizing as edgetl does it."""
    begin = time.perf_counter()
    picture = decode(path)
    middle = time.perf_counter()
    definition.apply(picture)
    return (middle - begin) * 1000, (time.perf_counter() - middle) * 1000


def reading(command: Sequence[str], bundle: Path, opencv: str | None, turns: int) -> dict[str, Any]:
    """Median milliseconds of decoding and resizing, by size of picture and way."""
    definition = input_of(load_bundle(bundle))
    if not isinstance(definition, Preprocess):
        raise SystemExit("the bundle takes no pictures")
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, width, height in (("1080p", 1920, 1080), ("12_megapixels", 4000, 3000)):
            path = Path(folder) / f"{name}.jpg"
            coarse = np.random.default_rng(0).integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)
            taken: dict[str, list[tuple[float, float]]] = {"c": [], "pillow": [], "opencv": []}
            # Warm, as a camera's program is: the first of several in one process is left out.
            lines = in_c([*command, str(bundle)], [path] * (turns + 1))[1:]
            taken["c"] = [(line["timing"]["decode_ms"], line["timing"]["resize_ms"]) for line in lines]
            for _ in range(turns):
                taken["pillow"].append(pillow_reading(path, definition))
                if opencv:
                    words = [opencv, "-c", _OPENCV, str(path), str(definition.resize)]
                    done = subprocess.run(words, capture_output=True, text=True, check=True)
                    decoded, resized = map(float, done.stdout.split())
                    taken["opencv"].append((decoded, resized))
            result[name] = {
                way: {
                    "decode_ms": statistics.median(d for d, _ in each),
                    "resize_ms": statistics.median(r for _, r in each),
                }
                for way, each in taken.items()
                if each
            }
    return result


def overhead(options: argparse.Namespace) -> dict[str, float]:
    """Median milliseconds of a sample through the runner and through its runtime alone, at batch 1, in turn."""
    source = Path(__file__).with_name("c_overhead.cpp")
    root = source.parents[1]
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "overhead")
        library = options.runner.resolve().parent
        headers = [f"-I{root / 'runner/include'}", "-isystem", str(options.header)]
        linked = [str(library / "libedgetl.so"), f"-Wl,-rpath,{library}", "-ldl"]
        subprocess.run(["c++", "-std=c++17", "-O2", *headers, str(source), *linked, "-o", program], check=True)
        model = load_bundle(options.bundle).artifact().path
        words = [program, str(options.library.resolve()), str(options.bundle), str(model), str(options.rounds)]
        words += ["exact"] * saturates(machine())
        runner, alone = map(float, subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())
    return {"runner_ms": runner, "runtime_ms": alone, "share": runner / alone - 1}


def watched(words: Sequence[str], paths: Sequence[Path], frames: int, environment: dict[str, str]) -> dict[str, Any]:
    """Frames through the program under a tool that ends it with another status if memory is misused or lost."""
    asked = "".join(f"{paths[i % len(paths)]}\n" for i in range(frames))
    begin = time.perf_counter()
    given = {**os.environ, **environment}
    done = subprocess.run([*words, "-"], input=asked, capture_output=True, text=True, check=False, env=given)
    found = {"frames": len(done.stdout.splitlines()), "exit": done.returncode, "seconds": time.perf_counter() - begin}
    return {**found, "last": (done.stderr.strip().splitlines() or [""])[-1]}


def many_frames(options: argparse.Namespace, command: Sequence[str], paths: Sequence[Path]) -> dict[str, Any]:
    """Frames under AddressSanitizer and under valgrind."""
    result = {}
    asked = [*command[1:], str(options.bundle)]
    if options.asan:
        words = [str(options.asan.resolve()), *asked]
        result["asan"] = watched(words, paths, options.frames, {"ASAN_OPTIONS": "detect_leaks=1"})
    if options.valgrind_frames:
        tool = ["valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"]
        result["valgrind"] = watched([*tool, command[0], *asked], paths, options.valgrind_frames, {})
    return result


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("runner", "library", "bundle", "pictures"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--opencv", help="a Python that has opencv-python-headless")
    parser.add_argument("--header", type=Path, help="folder of onnxruntime_c_api.h")
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--asan", type=Path, help="edgetl-run built with -fsanitize=address")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--valgrind-frames", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    paths = sorted(p for p in options.pictures.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))[: options.n]
    command = [str(options.runner.resolve()), "--library", str(options.library.resolve()), "--threads", "1"]
    parts: dict[str, Callable[[], Any]] = {
        "equality": lambda: equality(command, options.bundle, paths),
        "cold_start": lambda: cold_starts(command, options.bundle, paths[0], options.starts),
        "reading": lambda: reading(command, options.bundle, options.opencv, options.starts),
        "overhead": lambda: overhead(options) if options.header else None,
        "frames": lambda: many_frames(options, command, paths),
    }
    result = {name: part() for name, part in parts.items() if name in options.only}
    result |= {"program_bytes": options.runner.stat().st_size, "machine": machine()}
    print(json.dumps(result, indent=1))
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
