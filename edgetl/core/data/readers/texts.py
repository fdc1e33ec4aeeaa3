"""A CSV file that holds a text in each row: the columns ``text``, a label, and ``split`` and ``group`` if there
are such: what has one group belongs together."""

from __future__ import annotations

from pathlib import Path

from edgetl.base.errors import DataError
from edgetl.core.data.readers.base import Listing, Reader, numbered, write_samples
from edgetl.core.data.readers.columns import has_column, labels_of, read_table, splits_of
from edgetl.core.data.samples import Sample

#: The folder, below the one given for them, and the suffix of the files that are written; their numbers are the rows',
#: counted from 0.
FOLDER, SUFFIX = "texts", ".txt"


def _read(path: Path, into: Path) -> Listing:
    table = read_table(path)
    if "path" in table.columns:
        raise DataError(f"{path} has both the columns path and text", "remove or rename one")
    classes, labels = labels_of(table)
    splits = splits_of(path, (row.get("split") for row in table.rows), table.lines)
    names = numbered(len(table.rows), SUFFIX)
    texts = [row["text"].encode(errors="replace") for row in table.rows]
    write_samples(into / FOLDER, dict(zip(names, texts, strict=True)))
    groups = [row.get("group", "") for row in table.rows]
    rows = zip(names, labels, splits, groups, strict=True)
    listed = tuple(Sample(f"{FOLDER}/{name}", label, "", "", split, group) for name, label, split, group in rows)
    return Listing(into, classes, listed, table.kind.name)


READER = Reader(
    name="texts",
    about="a CSV file with the columns text and label, labels (a|b) or target (a number)",
    takes=lambda source: has_column(source, "text"),
    sniff=lambda path: (SUFFIX, read_table(path, 1).kind.name),
    read=_read,
    writes=True,
)
