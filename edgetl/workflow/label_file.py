"""The labels of a few samples as a CSV file, ``path,label``: what is asked of whoever labels, and what they answered.

A cell without a label is one that nobody gave yet. Several labels of a sample stand as ``a|b``, and ``|`` says that it
has none of them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.base.errors import DataError, UnknownNameError
from edgetl.base.storage import write_bytes
from edgetl.base.wording import counted, printable
from edgetl.certify.unlabelled import Unlabelled

HEADER = ("path", "label")
#: What says that a sample has none of several labels.
NONE = "|"


def write_label_file(file: Path, found: Unlabelled, rows: Sequence[int]) -> None:
    """Write a line for each of some samples, with the label that it has.

    Raises:
        EdgetlError: the folder is read-only or the disk is full.
    """
    stream = io.StringIO()
    written = csv.writer(stream)
    written.writerows([HEADER, *((found.paths[row], label_cell(found, row)) for row in rows)])
    write_bytes(file, stream.getvalue().encode())


def label_cell(found: Unlabelled, row: int) -> str:
    """A sample's label as its cell has it; "" without one."""
    if not found.known[row]:
        return ""
    if found.labels.ndim == 1:
        return found.class_names[int(found.labels[row])]
    return NONE.join(found.class_names[index] for index in np.flatnonzero(found.labels[row])) or NONE


def has_labels(file: Path) -> bool:
    """Whether anybody wrote a label into a file that may be one of these."""
    if not file.is_file():
        return False
    return any(label for _, _, label in _rows(file))


def read_label_file(file: Path, found: Unlabelled) -> dict[int, Any]:
    """Labels of samples on which two models differ, by their positions.

    Args:
        file: with the columns path and label; others are left alone.
        found: the samples; a label of one to which both models give the same answer says nothing, and is left out.

    Raises:
        DataError: no such file or columns, a path that is none of the samples or stands there twice, a sample on which
            the models differ that is not there, or a class that the model does not have.
    """
    places = {path: row for row, path in enumerate(found.paths)}
    labels: dict[int, Any] = {}
    seen: set[int] = set()
    for line, path, cell in _rows(file):
        row = places.get(path, places.get(path.strip()))
        if row is None:
            what = f"{file}, line {line}: {path!a:.100} is none of the samples that were compared"
            raise DataError(what, "give the folder that to_label.csv was written for: --images FOLDER")
        if row in seen:
            raise DataError(f"{file}, line {line}: {path!a:.100} stands there twice", "keep one line of it")
        seen.add(row)
        if cell and not found.agreed[row]:
            labels[row] = _label(f"{file}, line {line}", cell, found)
    asked = set(np.flatnonzero(~found.agreed).tolist())
    if missing := sorted(asked - seen):
        what = (
            f"{file} lacks {counted(len(missing), 'sample')} of the {len(asked)} on which the models differ "
            f"(first: {printable(found.paths[missing[0]])})"
        )
        raise DataError(what, "leave a label empty that nobody knows, and its line where it is")
    return labels


def _rows(file: Path) -> list[tuple[int, str, str]]:
    """Line, path and label of each row."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            columns = [name.strip().casefold() for name in next(reader, [])]
            rows = [(reader.line_num, cells) for cells in reader if any(cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} is not a CSV file ({error})", "give what to_label.html saved") from error
    if any(columns.count(name) != 1 for name in HEADER):
        raise DataError(f"{file} has the columns {', '.join(columns) or 'none'}", "it needs path and label, each once")
    path, label = (columns.index(name) for name in HEADER)
    short = next((line for line, cells in rows if len(cells) <= path or not cells[path].strip()), None)
    if short is not None:
        raise DataError(f"{file}, line {short}: there is no path", "give each label the path of its sample")
    return [(line, cells[path], cells[label].strip() if len(cells) > label else "") for line, cells in rows]


def _label(where: str, cell: str, found: Unlabelled) -> Any:
    """A cell as a class index, or as the indicators of several."""
    places = {name: index for index, name in enumerate(found.class_names)}
    one = found.labels.ndim == 1
    names = (cell,) if one else tuple(filter(None, map(str.strip, cell.split(NONE))))
    unknown = next((name for name in names if name not in places), None)
    if unknown is not None:
        near = UnknownNameError("class", unknown, found.class_names)
        raise DataError(f"{where}: {near.what}", near.remedy)
    if one:
        return places[cell]
    marked = np.zeros(len(places), bool)
    marked[[places[name] for name in names]] = True
    return marked
