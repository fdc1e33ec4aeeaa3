"""Which folders of a tree are classes: those at the top, or those below folders that are splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgetl.base.errors import DataError
from edgetl.base.wording import enumerated
from edgetl.core.data.samples import SPLITS
from edgetl.core.data.splits import SPLIT_ALIASES
from edgetl.core.data.walk import unwritable_remedy, writable_name

#: Lower-case names of folders that may be splits.
SPLIT_FOLDERS: Mapping[str, str] = {**{name: name for name in SPLITS}, **SPLIT_ALIASES}


@dataclass(frozen=True)
class ClassFolder:
    """A folder whose files are samples of one class.

    Attributes:
        path: relative to the tree's root.
        name: of the class.
        split: of its samples, or "".
    """

    path: str
    name: str
    split: str = ""


def class_folders(root: Path, folders: Iterable[str]) -> tuple[ClassFolder, ...]:
    """The class folders of a tree: ``CLASS``, or ``train/CLASS``, ``val/CLASS`` and ``test/CLASS``.

    Folders at the top are splits if they are called so, in whatever case, and hold folders of the same classes.

    Args:
        root: the tree's, for messages.
        folders: all of them, relative to it.

    Raises:
        DataError: fewer than two classes, or folders of which it cannot be told what they are.
    """
    below: dict[str, list[str]] = {}
    for path in sorted(folders):
        top, *rest = path.split("/")
        below.setdefault(top, [])
        if len(rest) == 1:
            below[top].append(rest[0])
    _refuse_unwritable(below)
    named = [name for name in below if name.casefold() in SPLIT_FOLDERS]
    if any(len(below[name]) > 1 for name in named):
        return _of_splits(root, below, named)
    if named and len(named) == len(below):
        raise DataError(f"{root} holds splits, not classes", _REMEDY)
    if len(below) < 2:
        raise _too_few(root, below)
    return tuple(ClassFolder(name, name) for name in below)


_REMEDY = "give folders of the same classes in each split, or a CSV file with the columns path,label,split"


def _of_splits(root: Path, below: Mapping[str, list[str]], named: list[str]) -> tuple[ClassFolder, ...]:
    splits = {name: SPLIT_FOLDERS[name.casefold()] for name in named}
    strays = [name for name in below if name not in splits]
    shown = f"{root} holds the splits {enumerated(named)}" if len(named) > 1 else f"{root} holds the split {named[0]}"
    if strays:
        away = f"take {enumerated(strays)} away, or give one split's folder alone"
        raise DataError(f"{shown}, and beside them {enumerated(strays)}: it is not clear what is meant", away)
    twice = [name for name in named if sum(split == splits[name] for split in splits.values()) > 1]
    if twice:
        raise DataError(f"{shown}, of which {enumerated(twice)} both mean {splits[twice[0]]}", "take one of them away")
    train = next((name for name in named if splits[name] == "train"), None)
    if train is None:
        raise DataError(f"{shown} and no train", _REMEDY)
    classes = set(below[train])
    for name in named:
        extra = [inner for inner in below[name] if inner not in classes]
        if extra:
            what = f"{root / name} holds the folders {enumerated(extra)}, which {root / train} does not"
            raise DataError(what, _REMEDY)
        if not below[name]:
            raise DataError(f"{root / name} holds no class folder, and {root / train} does", _REMEDY)
    _refuse_unwritable(classes)
    return tuple(ClassFolder(f"{name}/{inner}", inner, splits[name]) for name in named for inner in below[name])


def _refuse_unwritable(names: Iterable[str]) -> None:
    unwritable = next((name for name in names if not writable_name(name)), None)
    if unwritable is not None:
        raise DataError(f"the class folder {unwritable!a} holds a line break or is no UTF-8", unwritable_remedy())


def _too_few(root: Path, below: Mapping[str, list[str]]) -> DataError:
    remedy = "give a folder with at least two folders, one for each class"
    if not below:
        return DataError(f"{root} holds no class folder", remedy)
    ((only, inner),) = below.items()
    if len(inner) > 1:
        remedy += f"; did you mean {root / only}?"
    return DataError(f"{root} holds only the class '{only}'", remedy)
