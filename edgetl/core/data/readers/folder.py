"""A folder with a folder for each class: of images, of .txt files, of .npy or .npz files."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

from edgetl.base.errors import DataError
from edgetl.core.data.readers.base import Listing, Reader
from edgetl.core.data.samples import CLASS, SPLITS, Sample, Skipped
from edgetl.core.data.splits import SPLIT_ALIASES

#: Files looked at to tell what a folder holds.
SNIFFED = 1000


def read(root: Path, into: Path) -> Listing:
    """The files of a folder of class folders, unread.

    Raises:
        DataError: fewer than two classes, an empty one, or folders that are splits.
    """
    folders = _class_folders(root)
    listed = []
    for label, folder in enumerate(folders):
        # A link to nothing is no file, but its owner believes in a sample there: it is listed, and named as missing.
        found = [p for p in folder.rglob("*") if p.is_file() or not p.exists()]
        if not writable_name(folder.name):
            raise DataError(f"the class folder {folder.name!a} holds a line break or is no UTF-8", "rename it")
        files = sorted(p for p in found if not _hidden(p.relative_to(folder)))
        if not files:
            raise DataError(f"the class folder {folder} is empty", "add samples or remove the folder")
        listed += [Sample(p.relative_to(root).as_posix(), label, "", "") for p in files]
    return Listing(root, tuple(folder.name for folder in folders), tuple(listed), skipped=_strays(root))


def _class_folders(root: Path) -> list[Path]:
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(folders) < 2:
        only = f"only the class '{folders[0].name}'" if folders else "no class folder"
        raise DataError(f"{root} holds {only}", "give a folder with at least two folders, one for each class")
    if {folder.name.lower() for folder in folders} <= {*SPLITS, *SPLIT_ALIASES}:
        raise DataError(f"{root} holds splits, not classes", "give a CSV file with the columns path,label,split")
    return folders


def _sniff(root: Path) -> tuple[str, str]:
    every = (p for folder in _class_folders(root) for p in folder.rglob("*"))
    files = (p for p in every if p.is_file() and not _hidden(p.relative_to(root)))
    return commonest_suffix([p.name for p in islice(files, SNIFFED)]), CLASS


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _strays(source: Path) -> tuple[Skipped, ...]:
    """Files that lie beside the class folders: no label, no use, but no silence either."""
    beside = sorted(p.name for p in source.iterdir() if p.is_file())
    return tuple(Skipped(name, "it lies in no class folder") for name in beside if not name.startswith("."))


def commonest_suffix(names: list[str]) -> str:
    """The suffix of most file names, in lower case, with the dot; "" without names."""
    counted = Counter(Path(name).suffix.lower() for name in names)
    return counted.most_common(1)[0][0] if counted else ""


def writable_name(name: str) -> bool:
    """Whether a file name can stand on one line of UTF-8."""
    return len(name.splitlines()) == 1 and name.encode(errors="replace").decode() == name


READER = Reader(
    name="folder",
    about="a folder with a folder for each class",
    takes=lambda source: Path(source).is_dir(),
    sniff=_sniff,
    read=read,
)
