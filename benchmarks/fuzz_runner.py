"""Fuzz the C runner: pictures, what a bundle's folder holds, and arrays and structures of a caller.

    python benchmarks/fuzz_runner.py BUILD [--minutes 60] [--jobs 1] [--out FILE]

libFuzzer under AddressSanitizer and UndefinedBehaviorSanitizer, with clang; each target starts from what
tests/runner/corpus keeps and leaves what it found in BUILD/corpus. BUILD is a folder for CMake. Libraries of the system
are not instrumented: coverage, counted in edges, is of the runner's own code. What crashes lies in BUILD/crashes, and
is to be kept in tests/runner/corpus once mended.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl.base.storage import write_json
from edgetl.runtime.machine import machine

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ("picture", "bundle", "tensor")
#: Longest input of each, bytes.
_LENGTH = {"picture": 8192, "bundle": 4096, "tensor": 1024}
_STATUS = re.compile(r"#(\d+)\s.*cov: (\d+) ft: (\d+) corp: (\d+)/")


def clang() -> tuple[str, str]:
    """The newest C and C++ compilers of clang's here."""
    names = ["clang", *(f"clang-{version}" for version in range(30, 12, -1))]
    for name in names:
        if shutil.which(name) and shutil.which(name.replace("clang", "clang++")):
            return name, name.replace("clang", "clang++")
    raise SystemExit("libFuzzer comes with clang: apt-get install clang libclang-rt-14-dev")


def build(folder: Path) -> None:
    """Compile the targets."""
    c, cxx = clang()
    compilers = [f"-DCMAKE_C_COMPILER={c}", f"-DCMAKE_CXX_COMPILER={cxx}", "-DEDGETL_WERROR=OFF"]
    subprocess.run(["cmake", "-S", ROOT / "runner", "-B", folder, *compilers], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", folder, "--target", "fuzz"], check=True, stdout=subprocess.DEVNULL)


def fuzzed(folder: Path, target: str, seconds: int, jobs: int) -> dict[str, Any]:
    """Run one target, and tell its executions, coverage and crashes."""
    corpus, crashes = folder / "corpus" / target, folder / "crashes" / target
    for made in (corpus, crashes):
        made.mkdir(parents=True, exist_ok=True)
    seeds = ROOT / "tests/runner/corpus" / target
    options = [f"-max_total_time={seconds}", f"-max_len={_LENGTH[target]}", f"-artifact_prefix={crashes}/"]
    limits = ["-rss_limit_mb=2048", "-timeout=10", *([f"-fork={jobs}"] if jobs > 1 else [])]
    program = str(folder / "fuzz" / f"fuzz-{target}")
    began = time.perf_counter()
    words = [program, *options, *limits, str(corpus), str(seeds)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = _STATUS.findall(done.stderr)
    if not found:
        raise SystemExit(f"{target} did not start: {done.stderr[-2000:]}")
    executions, edges, features, inputs = map(int, found[-1])
    return {
        "seconds": round(time.perf_counter() - began),
        "executions": executions,
        "edges": edges,
        "features": features,
        "inputs": inputs,
        "crashes": sorted(path.name for path in crashes.iterdir()),
        "exit": done.returncode,
    }


def main() -> None:
    """Build, fuzz and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=TARGETS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    folder = options.build.resolve()
    build(folder)
    seconds = round(options.minutes * 60)
    result = {name: fuzzed(folder, name, seconds, options.jobs) for name in options.targets}
    print(json.dumps(result, indent=1))
    if options.out:
        write_json(options.out, {**result, "machine": machine()})
    if any(found["crashes"] for found in result.values()):
        raise SystemExit("there are crashes: see the folder of the build")


if __name__ == "__main__":
    main()
