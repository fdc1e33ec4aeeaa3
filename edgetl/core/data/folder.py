"""A folder with a folder for each class."""

from __future__ import annotations

from pathlib import Path

from edgetl.base.errors import DataError
from edgetl.core.data.samples import SPLITS, Sample, Skipped
from edgetl.core.data.splits import SPLIT_ALIASES


def from_folder(root: Path) -> tuple[Path, tuple[str, ...], list[Sample]]:
    """Root, class names and unread samples of a folder of class folders.

    Raises:
        DataError: fewer than two classes, an empty one, or folders that are splits.
    """
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(folders) < 2:
        only = f"only the class '{folders[0].name}'" if folders else "no class folder"
        raise DataError(f"{root} holds {only}", "give a folder with at least two folders, one for each class")
    if {folder.name.lower() for folder in folders} <= {*SPLITS, *SPLIT_ALIASES}:
        raise DataError(f"{root} holds splits, not classes", "give a CSV file with the columns path,label,split")
    listed = []
    for label, folder in enumerate(folders):
        # A link to nothing is no file, but its owner believes in an image there: it is listed, and named as missing.
        found = [p for p in folder.rglob("*") if p.is_file() or not p.exists()]
        if not writable_name(folder.name):
            raise DataError(f"the class folder {folder.name!a} holds a line break or is no UTF-8", "rename it")
        files = sorted(p for p in found if not any(s.startswith(".") for s in p.relative_to(folder).parts))
        if not files:
            raise DataError(f"the class folder {folder} is empty", "add images or remove the folder")
        listed += [Sample(p.relative_to(root).as_posix(), label, "", "") for p in files]
    return root, tuple(folder.name for folder in folders), listed


def strays(source: Path) -> tuple[Skipped, ...]:
    """Files that lie beside the class folders: no label, no use, but no silence either."""
    beside = sorted(p.name for p in source.iterdir() if p.is_file()) if source.is_dir() else []
    return tuple(Skipped(name, "it lies in no class folder") for name in beside if not name.startswith("."))


def writable_name(name: str) -> bool:
    """Whether a file name can stand on one line of UTF-8."""
    return len(name.splitlines()) == 1 and name.encode(errors="replace").decode() == name
