"""What fuzzing started from and found, run again under AddressSanitizer and UndefinedBehaviorSanitizer.

``benchmarks/fuzz_runner.py`` fuzzes for as long as one likes.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.runner.built import compiled, need, need_headers

CORPUS = Path(__file__).with_name("corpus")


@pytest.fixture(scope="module")
def targets(shared: Path) -> Path:
    """A folder with a program for each target."""
    need("cmake", "cc", "c++")
    need_headers("jpeglib.h", "png.h", "openssl/evp.h", "nlohmann/json.hpp")
    return compiled(shared / "fuzz", (), "fuzz") / "fuzz"


@pytest.mark.parametrize("target", ["picture", "bundle", "tensor"])
def test_the_corpus(targets: Path, target: str) -> None:
    files = sorted(map(str, (CORPUS / target).iterdir()))
    done = subprocess.run([str(targets / f"fuzz-{target}"), *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == f"{len(files)} files\n"
    assert len(files) > 5
