"""A CSV file that names a file in each row: the columns ``path``, a label, and ``split`` if there is one."""

from __future__ import annotations

from pathlib import Path

from edgetl.base.errors import DataError
from edgetl.core.data.readers.base import Listing, Reader
from edgetl.core.data.readers.columns import WANTED, labels_of, read_table, splits_of
from edgetl.core.data.readers.folder import SNIFFED, commonest_suffix
from edgetl.core.data.samples import Sample


def _read(path: Path, into: Path) -> Listing:
    table = read_table(path)
    kind = table.kind
    if "path" not in table.columns:
        raise DataError(f"{path} has the columns {', '.join(table.columns)}", f"it needs {WANTED}")
    classes, labels = labels_of(table)
    splits = splits_of(path, [row.get("split") for row in table.rows])
    listed = []
    for line, (row, label, split) in enumerate(zip(table.rows, labels, splits, strict=True), 2):
        if not row["path"]:
            raise DataError(f"{path}, line {line}: there is no path", "give the file, relative to the table")
        listed.append(Sample(row["path"], label, "", "", split))
    return Listing(path.parent, classes, tuple(listed), kind.name)


def _sniff(path: Path) -> tuple[str, str]:
    table = read_table(path, SNIFFED)
    return commonest_suffix([row.get("path") or "" for row in table.rows]), table.kind.name


READER = Reader(
    name="table",
    about="a CSV file with the columns path and label, labels (a|b) or target (a number)",
    takes=lambda source: Path(source).is_file(),
    sniff=_sniff,
    read=_read,
)
