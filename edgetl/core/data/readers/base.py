"""What every reader of labelled data says of itself, and what it gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgetl.base.errors import DataError
from edgetl.base.storage import new_folder
from edgetl.core.data.samples import CLASS, Sample, Skipped


@dataclass(frozen=True)
class Listing:
    """Labelled files that nobody has looked into yet.

    Attributes:
        root: the folder that the samples' paths start from.
        classes: names, in the order of the labels' indexes; none where labels are numbers.
        samples: without hashes, and with a split where the data name one.
        label_kind: key into :data:`edgetl.core.data.labels.LABEL_KINDS`.
        mirror_safe: whether a mirrored sample still has its label.
        skipped: files beside them that are no samples, and folders that were not read.
        ignored: how many files and folders of systems and programs, by name.
        lenient: whether a copy of a sample in another split is left out, rather than refused: where a split is a
            folder, nobody chose it row by row.
    """

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    label_kind: str = CLASS
    mirror_safe: bool = True
    skipped: tuple[Skipped, ...] = ()
    ignored: Mapping[str, int] = field(default_factory=dict)
    lenient: bool = False


@dataclass(frozen=True)
class Reader:
    """One format of labelled data.

    Attributes:
        name: of the format.
        about: one line: what the source looks like.
        takes: whether a source, a path or a name, is of this format; looks no further than a file's first line.
        sniff: the commonest suffix of its samples, with the dot, and the kind of label; raises DataError.
        read: the source, and a folder for the files that the reader writes where the source holds no files → the
            listing; raises DataError.
        writes: whether it writes the samples' files itself.
    """

    name: str
    about: str
    takes: Callable[[str | Path], bool]
    sniff: Callable[[Path], tuple[str, str]]
    read: Callable[[Path, Path], Listing]
    writes: bool = False


def write_samples(folder: Path, files: Mapping[str, bytes]) -> None:
    """Leave exactly these files, named by number, in a folder; what is there already stays untouched.

    Raises:
        DataError: the folder holds something else.
    """
    if folder.is_dir():
        there = sorted(folder.iterdir())
        foreign = [file.name for file in there if not re.fullmatch(r"\d+\.\w+", file.name)]
        if foreign:
            raise DataError(f"{folder} holds {foreign[0]}, which is none of the samples", "choose another folder")
        if {file.name: file.read_bytes() for file in there} == dict(files):
            return
    with new_folder(folder) as root:
        for name, content in files.items():
            (root / name).write_bytes(content)


def numbered(count: int, suffix: str) -> list[str]:
    """Names of so many files that sort as they are counted, from 0."""
    width = max(5, len(str(count - 1)))
    return [f"{index:0{width}d}{suffix}" for index in range(count)]
