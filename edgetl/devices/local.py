"""This machine as a device: the artifact in a fresh process of the same Python."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.base.errors import DeviceError
from edgetl.base.progress import Progress, silent
from edgetl.devices.base import EXECUTED, DeviceProbe, Executed, Kind, describe, probe_by_calling
from edgetl.devices.payload import import_root
from edgetl.devices.process import (
    LEFTOVERS_VARIABLE,
    PROGRESS_VARIABLE,
    SCRATCH_VARIABLE,
    answer,
    read_outputs,
    run_watched,
)


@dataclass(frozen=True)
class LocalDevice:
    """This machine."""

    name: str = "local"

    @property
    def kind(self) -> Kind:
        """See :class:`edgetl.devices.base.Device`."""
        return "local"

    @property
    def arch(self) -> str:
        """This machine's ISA."""
        return platform.machine()

    @property
    def executed(self) -> Executed:
        """``host``."""
        return EXECUTED[self.kind]

    @property
    def where(self) -> str:
        """Empty."""
        return ""

    @property
    def required_key(self) -> str:
        """None."""
        return ""

    def to_json(self) -> dict[str, str]:
        """See :class:`edgetl.devices.base.Device`."""
        return describe(self)

    def probe(self) -> DeviceProbe:
        """See :class:`edgetl.devices.base.Device`."""
        return probe_by_calling(self)

    def call(
        self,
        arguments: Sequence[str],
        *,
        bundle: Path | None = None,
        files: Sequence[Path] = (),
        progress: Progress = silent,
    ) -> dict[str, Any]:
        """See :class:`edgetl.devices.base.Device`."""
        # What the user's Python finds, its own process finds too.
        path = os.pathsep.join(filter(None, (str(import_root()), os.environ.get("PYTHONPATH"))))
        environment = {**os.environ, "PYTHONPATH": path}
        return call_here(self.name, [sys.executable], environment, arguments, bundle, files, progress)

    def close(self) -> None:
        """Nothing to let go of."""


def call_here(
    name: str,
    python: Sequence[str],
    environment: Mapping[str, str],
    arguments: Sequence[str],
    bundle: Path | None,
    files: Sequence[Path],
    progress: Progress,
) -> dict[str, Any]:
    """Do :meth:`edgetl.devices.base.Device.call` with a Python that sees this machine's files.

    Args:
        name: of the device.
        python: the command that starts its Python.
        environment: the whole environment, with edgetl on ``PYTHONPATH``.
        arguments, bundle, files, progress: as in :meth:`edgetl.devices.base.Device.call`.
    """
    verb, *options = arguments
    command = [*python, "-m", "edgetl.runtime", verb, *([str(bundle.resolve())] if bundle else []), *options]
    with tempfile.TemporaryDirectory(prefix="edgetl-call-") as scratch:
        listed, out, left = (Path(scratch) / name for name in ("samples.txt", "outputs.npz", "leftovers"))
        if files:
            listed.write_text(sample_list([str(file.resolve()) for file in files]), encoding="utf-8")
            command += ["--samples", str(listed), "--out", str(out)]
        gone = "\n".join(filter(None, (scratch, environment.get(SCRATCH_VARIABLE))))
        told = {PROGRESS_VARIABLE: "1", LEFTOVERS_VARIABLE: str(left), SCRATCH_VARIABLE: gone, "TMPDIR": scratch}
        # An empty working directory: "-m" puts it first on the import path.
        try:
            finished = run_watched(
                command,
                environment={**environment, **told},
                folder=Path(scratch),
                progress=progress,
            )
        finally:
            for line in left.read_text(encoding="utf-8").splitlines() if left.is_file() else ():
                _remove(Path(line))
        record = answer(name, finished)
        return {**record, "outputs": read_outputs(name, _content(out))} if files else record


def _remove(folder: Path) -> None:
    """Remove what a killed installation left, and the folders above that it leaves empty."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()
        folder.parent.parent.rmdir()


def _content(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def sample_list(names: Sequence[str]) -> str:
    """One path a line, as ``--samples`` wants it.

    Raises:
        DeviceError: a name cannot stand on one line of UTF-8.
    """
    for name in names:
        if len(name.splitlines()) != 1 or name.encode(errors="replace").decode() != name:
            raise DeviceError(f"the file name {name!a} holds a line break or is no UTF-8", "rename the file")
    return "".join(f"{name}\n" for name in names)
