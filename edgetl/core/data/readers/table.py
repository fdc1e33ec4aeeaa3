"""A CSV file that names a file in each row: the columns ``path``, a label, and ``split`` and ``group`` if there are
such: what has one group belongs together."""

from __future__ import annotations

import os.path
from collections.abc import Sequence
from pathlib import Path

from edgetl.base.errors import DataError
from edgetl.core.data.readers.base import Listing, Reader
from edgetl.core.data.readers.columns import WANTED, Table, labels_of, read_table, splits_of
from edgetl.core.data.readers.folder import SNIFFED, commonest_suffix
from edgetl.core.data.samples import Sample, Skipped
from edgetl.core.data.walk import shown_name


def _read(path: Path, into: Path) -> Listing:
    table = read_table(path)
    kind = table.kind
    if "path" not in table.columns:
        raise DataError(f"{path} has the columns {', '.join(table.columns)}", f"it needs {WANTED}")
    classes, labels = labels_of(table)
    splits = splits_of(path, (row.get("split") for row in table.rows), table.lines)
    root, paths = _placed(path.parent, _paths(table))
    groups = [row.get("group", "") for row in table.rows]
    rows = zip(paths, labels, splits, groups, strict=True)
    samples = [Sample(name, label, "", "", split, group) for name, label, split, group in rows]
    once = tuple(dict.fromkeys(samples))
    repeated = () if len(once) == len(samples) else _repeated(samples)
    return Listing(root, classes, once, kind.name, skipped=repeated)


def _paths(table: Table) -> list[str]:
    """The files as the rows name them, with forward slashes.

    Raises:
        DataError: a row names none.
    """
    found = []
    for line, row in zip(table.lines, table.rows, strict=True):
        name = row["path"]
        if not name:
            raise DataError(f"{table.path}, line {line}: there is no path", "give the file, relative to the table")
        # Windows writes backslashes; elsewhere they may be part of a name.
        if "\\" in name and not (table.path.parent / name).exists():
            name = name.replace("\\", "/")
        found.append(name)
    return found


def _placed(folder: Path, names: Sequence[str]) -> tuple[Path, list[str]]:
    """The root, and paths below it: the table's folder, or what the files have in common where some lie elsewhere."""
    plain = [os.path.normpath(name) for name in names]
    if not any(name.startswith(("/", "..")) or os.path.isabs(name) for name in plain):  # noqa: PTH117
        return folder, [Path(name).as_posix() for name in plain]
    whole = [os.path.normpath(folder.absolute() / name) for name in plain]
    root = Path(os.path.commonpath([os.path.dirname(name) for name in whole]))  # noqa: PTH120
    return root, [Path(name).relative_to(root).as_posix() for name in whole]


def _repeated(samples: Sequence[Sample]) -> tuple[Skipped, ...]:
    seen: set[Sample] = set()
    again = [sample for sample in samples if sample in seen or seen.add(sample)]  # type: ignore[func-returns-value]
    return tuple(Skipped(shown_name(sample.path), "another row says the same") for sample in again)


def _sniff(path: Path) -> tuple[str, str]:
    table = read_table(path, SNIFFED)
    return commonest_suffix([row.get("path", "") for row in table.rows]), table.kind.name


READER = Reader(
    name="table",
    about="a CSV file with the columns path and label, labels (a|b) or target (a number)",
    takes=lambda source: Path(source).is_file(),
    sniff=_sniff,
    read=_read,
)
