"""Bundles as somebody may make them who means harm: each file altered by hand, every seal and hash made to fit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgetl.base.storage import read_json, sha256_file, write_sealed
from edgetl.core.bundle import MANIFEST, Bundle

Change = Callable[[dict[str, Any]], None]


def forged(bundle: Bundle, folder: Path, change: Change | None = None) -> Path:
    """A copy of a bundle whose manifest is changed and sealed again."""
    shutil.copytree(bundle.path, folder, symlinks=True)
    reseal(folder, change)
    return folder


def reseal(folder: Path, change: Change | None = None) -> None:
    """Make the manifest fit what lies in the folder, then change and seal it."""
    record = read_json(folder / MANIFEST)
    for name, entry in record["files"].items():
        if (file := folder / name).is_file():
            entry |= {"sha256": sha256_file(file), "bytes": file.stat().st_size}
    if change is not None:
        change(record)
    write_sealed(folder / MANIFEST, record)


def entry(file: Path) -> dict[str, Any]:
    """What a manifest says of a file."""
    return {"sha256": sha256_file(file), "bytes": file.stat().st_size}
