"""A folder with a folder for each class, or with one for each split that holds those: of images, .txt, .npy or .npz."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from edgetl.base.errors import DataError
from edgetl.core.data.layout import ClassFolder, class_folders
from edgetl.core.data.readers.base import Listing, Reader
from edgetl.core.data.samples import CLASS, Sample, Skipped
from edgetl.core.data.walk import Tree, shown_name, walk

#: Files looked at to tell what a folder holds.
SNIFFED = 1000


def read(root: Path, into: Path) -> Listing:
    """The files of a folder of class folders, unread.

    Raises:
        DataError: fewer than two classes, an empty one, or folders of which it cannot be told what they are.
    """
    tree = walk(root)
    folders = class_folders(root, tree.folders)
    names = {name: index for index, name in enumerate(sorted({folder.name for folder in folders}))}
    owners = {folder.path: folder for folder in folders}
    samples, strays, used = [], [], set()
    for path in tree.files:
        folder = _owner(path, owners)
        if folder is None:
            strays.append(Skipped(shown_name(path), "it lies in no class folder"))
        else:
            used.add(folder)
            samples.append(Sample(path, names[folder.name], "", "", folder.split))
    _refuse_empty(root, (folder for folder in folders if folder not in used), tree)
    left_out = tuple(strays) + tree.skipped
    split = any(folder.split for folder in folders)
    return Listing(root, tuple(names), tuple(samples), skipped=left_out, ignored=tree.ignored, lenient=split)


def _owner(path: str, owners: dict[str, ClassFolder]) -> ClassFolder | None:
    parts = path.split("/")
    return next((owners[head] for n in (1, 2) if (head := "/".join(parts[:n])) in owners and len(parts) > n), None)


def _refuse_empty(root: Path, folders: Iterable[ClassFolder], tree: Tree) -> None:
    """Of folders that hold no file, refuse the first that must not be: val and test may lack a class."""
    for folder in folders:
        if folder.split in ("", "train"):
            below = (left_out for left_out in tree.skipped if (left_out.path + "/").startswith(folder.path + "/"))
            why = next((f": {left_out.path}: {left_out.reason}" for left_out in below), "")
            raise DataError(f"the class folder {root / folder.path} is empty{why}", "add samples or remove the folder")


def _sniff(root: Path) -> tuple[str, str]:
    return commonest_suffix([path for path in walk(root, SNIFFED).files if "/" in path]), CLASS


def commonest_suffix(names: list[str]) -> str:
    """The suffix of most file names, in lower case, with the dot; "" without names."""
    counted = Counter(Path(name).suffix.lower() for name in names)
    return counted.most_common(1)[0][0] if counted else ""


READER = Reader(
    name="folder",
    about="a folder with a folder for each class, or with train, val and test that hold those",
    takes=lambda source: Path(source).is_dir(),
    sniff=_sniff,
    read=read,
)
