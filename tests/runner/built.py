"""The C runner, compiled: its program, its library, and bundles that it is asked with."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgetl.base.storage import write_json
from edgetl.core.bundle import LABELS, Artifact, Bundle, load_bundle, write_manifest
from edgetl.core.manifest import Manifest
from edgetl.core.targets import find_target
from edgetl.inputs import write_input
from edgetl.inputs.image import Preprocess
from tests.conftest import ROOT

SOURCE = ROOT / "runner"
#: An ONNX file that says its version and nothing else: enough where no runtime is asked.
_NO_NETWORK = b"\x08\x09"


@dataclass(frozen=True)
class Runner:
    """A build of the runner.

    Attributes:
        folder: CMake's.
        start: the command that starts ``edgetl-run``, with its first options.
    """

    folder: Path
    start: tuple[str, ...]

    @property
    def library(self) -> Path:
        """The shared library."""
        return self.folder / "libedgetl.so"

    def compiled_with(self, definition: str) -> bool:
        """Whether a runtime's headers were there."""
        files = [*self.folder.rglob("flags.make"), self.folder / "build.ninja"]
        return any(definition in file.read_text() for file in files if file.is_file())

    def run(self, *arguments: object, paths: Iterable[Path] = ()) -> subprocess.CompletedProcess[str]:
        """Run ``edgetl-run``; names of pictures go to its standard input."""
        asked = "".join(f"{path}\n" for path in paths)
        command = [*self.start, *map(str, arguments)]
        return subprocess.run(command, input=asked, capture_output=True, text=True, check=False)

    def lines(self, *arguments: object, paths: Iterable[Path]) -> list[dict[str, Any]]:
        """One record for each picture."""
        done = self.run(*arguments, "-", paths=paths)
        assert done.returncode in (0, 1), done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def pixels(self, bundle: Path, paths: Iterable[Path]) -> list[str | None]:
        """SHA-256 of the network's picture of each; None where the runner refuses it."""
        return [line.get("pixels") for line in self.lines("--pixels", bundle, paths=paths)]


def compiled(folder: Path, options: Sequence[str], target: str | None = None) -> Path:
    """Configure, build and install in a folder that other processes may use at the same time; again, what changed.

    Args:
        folder: CMake's.
        options: of configuring.
        target: to be built alone, without being installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    build = ["cmake", "--build", str(folder)]
    steps = [[*build, "--target", target]] if target else [build, ["cmake", "--install", str(folder)]]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = f"-DCMAKE_INSTALL_PREFIX={folder / 'installed'}"
        configure = ["cmake", "-S", str(SOURCE), "-B", str(folder), installed, *options]
        for command in (configure, *steps):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return folder


def packages(what: str, folder: Path) -> Path | None:
    """What ``fetch_packages.sh`` unpacks; None where apt does not offer it here."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            command = [str(SOURCE / "fetch_packages.sh"), what, str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                return None
            (folder / "done").touch()
    return folder


def need(*programs: str) -> None:
    """Skip where a program is missing."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(f"the runner is not compiled without {', '.join(missing)}: see CONTRIBUTING.md")


def need_headers(*names: str) -> None:
    """Skip where the compiler does not find a header."""
    for name in names:
        command = ["cc", "-x", "c++" if name.endswith("pp") else "c", "-fsyntax-only", "-"]
        text = f"#include <stddef.h>\n#include <stdio.h>\n#include <{name}>\n"
        if subprocess.run(command, input=text, capture_output=True, text=True, check=False).returncode:
            pytest.skip(f"the runner is not compiled without <{name}>: see CONTRIBUTING.md")


def pixel_bundle(folder: Path, definition: Preprocess) -> Bundle:
    """A bundle for its preprocessing alone."""
    (folder / "model").mkdir(parents=True)
    model = folder / "model/model.onnx"
    model.write_bytes(_NO_NETWORK)
    write_json(folder / LABELS, ["one", "two"])
    write_input(folder, definition)
    artifacts = {"deployed": Artifact("onnxruntime", model, "fp32")}
    write_manifest(folder, Manifest(target=find_target("x86-generic")), artifacts)
    return load_bundle(folder)
