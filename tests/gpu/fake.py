"""The fake GPU for tests: compile its driver, put it in the place of the real one, and read what it counted."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent
#: Folder to put on PYTHONPATH: it holds the module ``tensorrt``.
MODULES = SOURCES / "site"
_KEPT = ("allocated", "page-locked", "streams", "retained")


def compile_driver(folder: Path) -> Path:
    """``libcuda.so.1`` in ``folder``; a folder to put on LD_LIBRARY_PATH."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None
    sources = [str(SOURCES / name) for name in ("driver.c", "memory.c")]
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-pthread"]
    subprocess.run([compiler, *flags, "-o", str(folder / "libcuda.so.1"), *sources], check=True, capture_output=True)
    return folder


def environment(folder: Path, report: Path, **more: str) -> dict[str, str]:
    """Variables with which another process has the fake GPU, and writes what it counted into ``report``."""
    return {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(MODULES), "FAKE_GPU_REPORT": str(report), **more}


def reports(file: Path) -> list[dict[str, Any]]:
    """What each process counted that has ended."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


@dataclass(frozen=True)
class FakeGpu:
    """The fake GPU of this process."""

    driver: ctypes.CDLL

    def count(self, name: str) -> int:
        """How often a function of the driver was called, or how many there are of something."""
        found: int = self.driver.fake_count(name.encode())
        return found

    def fail(self, name: str, nth: int = 1) -> None:
        """Let the nth call from now on find no memory."""
        self.driver.fake_fail(name.encode(), nth)

    @property
    def faults(self) -> str:
        """What a program must not do, and did; "" if nothing."""
        self.driver.fake_first_fault.restype = ctypes.c_char_p
        return str(self.driver.fake_first_fault().decode()) if self.count("faults") else ""

    def held(self) -> Mapping[str, int]:
        """What was taken of the driver and not given back."""
        return {name: self.count(name) for name in _KEPT}

    @property
    def depth(self) -> int:
        """Contexts that are current in this thread, one over the other."""
        found: int = self.driver.fake_depth()
        return found
