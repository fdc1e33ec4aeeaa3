"""A CSV file with the columns ``path,label[,split]``."""

from __future__ import annotations

import csv
from pathlib import Path

from edgetl.base.errors import DataError
from edgetl.core.data.samples import SPLITS, Sample
from edgetl.core.data.splits import SPLIT_ALIASES


def from_table(path: Path) -> tuple[Path, tuple[str, ...], list[Sample]]:
    """Root, class names and unread samples of a CSV file.

    Raises:
        DataError: no CSV, columns that are missing, or a bad row; the message names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            rows, columns = list(reader), reader.fieldnames or []
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file ({error})", "give the columns path,label[,split]") from error
    if not {"path", "label"} <= set(columns):
        raise DataError(f"{path} has the columns {', '.join(columns) or 'none'}", "it needs path,label[,split]")
    classes = tuple(sorted({row["label"] for row in rows if row["label"]}))
    if len(classes) < 2:
        raise DataError(f"{path} names {len(classes)} class", "a classifier needs at least two")
    listed = []
    for line, row in enumerate(rows, 2):
        name = (row.get("split") or "").strip().lower()
        split = SPLIT_ALIASES.get(name, name)
        if not row["path"] or not row["label"] or (split and split not in SPLITS):
            raise DataError(f"{path}, line {line}: bad path, label or split", f"splits are {', '.join(SPLITS)}")
        listed.append(Sample(row["path"], classes.index(row["label"]), "", "", split))
    return path.parent, classes, listed
