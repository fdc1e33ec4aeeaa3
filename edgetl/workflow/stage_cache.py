"""The stages of an export, each kept on disk under a key of all that it depends on.

A stage whose key exists is not done again; a stage that was killed left nothing under its key. So the same
command after a crash takes up where it stopped, and its outcome is that of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edgetl import __version__
from edgetl.base.extras import version
from edgetl.base.lock import exclusive
from edgetl.base.storage import new_folder, sha256_json

WORK = ".work"


@contextlib.contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """The folder that keeps finished stages, for one process at a time; clears what killed ones left behind.

    Raises:
        EdgetlError: ``out`` cannot be written, or another export is using it.
    """
    work = out / WORK
    with exclusive(out, "export"):
        # The lock file of earlier versions.
        for leftover in [*out.glob(".*.partial"), *work.glob(".*.partial"), work / "lock"]:
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
        work.mkdir(exist_ok=True)
        try:
            yield work
        finally:
            # Whoever fails before any work is done leaves nothing that stands in the next one's way.
            with contextlib.suppress(OSError):
                work.rmdir()


def stage(work: Path, name: str, inputs: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
    """The folder of a finished stage, building it if its key is new.

    Args:
        work: where stages are kept.
        name: the stage's name.
        inputs: everything its outcome depends on, as plain JSON values: hashes, settings, versions.
        build: fills the folder it is given.
    """
    folder = work / f"{name}-{sha256_json({'stage': name, **inputs})[:16]}"
    if not folder.is_dir():
        with new_folder(folder) as temporary:
            build(temporary)
    return folder


def versions(*modules: str) -> dict[str, str | None]:
    """Installed versions of edgetl and of some libraries: part of a stage's key."""
    return {"edgetl": __version__, **{module: version(module) for module in modules}}
