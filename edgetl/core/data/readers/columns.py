"""A CSV file's rows, and the labels and splits in its columns."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from edgetl.base.errors import DataError
from edgetl.core.data.labels import LABEL_KINDS, Label, LabelKind
from edgetl.core.data.samples import SPLITS
from edgetl.core.data.several import CLASS_OF, NAME, OF, joined, label_kind
from edgetl.core.data.splits import SPLIT_ALIASES

#: How a CSV file should look.
WANTED = (
    "path or text; then label (a class), labels (several, as in a|b) or target (a number), or for several tasks"
    " label:NAME and the like for each; split and group if you like"
)
#: Columns that mean something.
KNOWN = frozenset({"path", "text", "split", "group", *(kind.column for kind in LABEL_KINDS.values())})


@dataclass(frozen=True)
class Table:
    """A CSV file that was read.

    Attributes:
        path: of the file.
        columns: their names, in lower case, without blanks around them.
        rows: column → cell, without blanks around it but for a text, "" where a row is too short; rows without any
            content are none.
        lines: of the rows in the file, from 1; the last one of each, where a cell is of several lines.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]
    lines: tuple[int, ...]

    @property
    def tasks(self) -> dict[str, LabelKind]:
        """The tasks of its columns ``label:NAME``, ``labels:NAME`` and ``target:NAME``, with their kinds of label."""
        pairs = [column.partition(OF) for column in self.columns]
        found = {kind.column: kind for kind in LABEL_KINDS.values()}
        return {name: found[column] for column, of, name in pairs if of and column in found}

    @property
    def kind(self) -> LabelKind:
        """The kind of label that its columns hold.

        Raises:
            DataError: none of them, or several, or a task's column that names none, or one that was there already.
        """
        if self.tasks and not any(kind.column in self.columns for kind in LABEL_KINDS.values()):
            return _kind_of_tasks(self)
        found = [kind for kind in LABEL_KINDS.values() if kind.column in self.columns]
        if len(found) != 1:
            raise DataError(f"{self.path} has the columns {', '.join(self.columns) or 'none'}", f"it needs {WANTED}")
        return found[0]


def _kind_of_tasks(table: Table) -> LabelKind:
    columns = [column for column in table.columns if column.partition(OF)[2] in table.tasks]
    bad = next((name for name in table.tasks if not NAME.fullmatch(name)), None)
    if bad is not None:
        what = f"{table.path} has a column for a task '{bad:.40}'"
        raise DataError(what, "call it by up to 31 letters, digits, _ and -")
    if len(columns) > len(table.tasks):
        raise DataError(f"{table.path} has two columns for one task", f"its columns are {', '.join(columns)}")
    return label_kind(joined({name: kind.name for name, kind in table.tasks.items()}))


def read_table(path: Path, rows: int | None = None) -> Table:
    """Read a CSV file, or its first rows.

    Raises:
        DataError: it is none.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            columns = [(name or "").strip().casefold() for name in reader.fieldnames or ()]
            twice = next((name for name in columns if name in KNOWN and columns.count(name) > 1), None)
            if twice is not None:
                raise DataError(f"{path} has two columns {twice}", "remove or rename one")
            reader.fieldnames = columns
            cells = ((reader.line_num, {name: _cell(name, row[name]) for name in columns}) for row in reader)
            held = list(islice(((line, row) for line, row in cells if any(row.values())), rows))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file ({error})", f"give one with the columns {WANTED}") from error
    return Table(path, tuple(columns), tuple(row for _, row in held), tuple(line for line, _ in held))


def _cell(column: str, content: str | None) -> str:
    # Blanks are part of a text, and its input decides about them.
    return (content or "") if column == "text" else (content or "").strip()


def has_column(source: str | Path, column: str) -> bool:
    """Whether a source is a CSV file with this column."""
    path = Path(source)
    try:
        return path.is_file() and column in read_table(path, 0).columns
    except DataError:
        return False


def labels_of(table: Table) -> tuple[tuple[str, ...], list[Label]]:
    """The classes' names, sorted, and each row's label.

    Raises:
        DataError: a cell that holds none, named by its line, or too few classes.
    """
    if table.kind.name not in LABEL_KINDS:
        return _labels_of_tasks(table)
    return _labels_in(table, table.kind, table.kind.column, range(len(table.rows)))


def _labels_of_tasks(table: Table) -> tuple[tuple[str, ...], list[Label]]:
    """The same of several tasks, of which a row may leave some out."""
    classes: list[str] = []
    labels: list[list[Label | None]] = [[None] * len(table.tasks) for _ in table.rows]
    for place, (name, kind) in enumerate(table.tasks.items()):
        column = f"{kind.column}{OF}{name}"
        known = [row for row, cells in enumerate(table.rows) if cells[column].strip()]
        own, found = _labels_in(table, kind, column, known)
        classes += [f"{name}{CLASS_OF}{c}" for c in own]
        for row, label in zip(known, found, strict=True):
            labels[row][place] = label
    return tuple(classes), [tuple(row) for row in labels]


def _labels_in(
    table: Table, kind: LabelKind, column: str, chosen: Sequence[int]
) -> tuple[tuple[str, ...], list[Label]]:
    """Classes and labels that a column holds in some rows."""
    parsed = []
    for line, row in ((table.lines[number], table.rows[number]) for number in chosen):
        try:
            parsed.append(kind.parse(row[column]))
        except ValueError as error:
            held = f"'{row[column]}' in the column {column}"
            raise DataError(f"{table.path}, line {line}: {held} is bad, it should be {error}", "correct it") from error
    named = {name for value in parsed if isinstance(value, tuple) for name in value}
    if len(named) < kind.fewest:
        shown = f"{len(named)} class" + ("es" if len(named) == 0 else "")
        where = "" if column == kind.column else f" in the column {column}"
        raise DataError(f"{table.path} names {shown}{where}", f"it needs at least {kind.fewest}")
    classes = tuple(sorted(named))
    indexes = {name: index for index, name in enumerate(classes)}
    return classes, [kind.label(value, indexes) for value in parsed]


def splits_of(path: Path, cells: Iterable[str | None], lines: Iterable[int]) -> list[str]:
    """Names of splits from what people call them; "" where there is none.

    Raises:
        DataError: another name; the message gives the line.
    """
    names = []
    for line, cell in zip(lines, cells, strict=False):
        name = (cell or "").strip().lower()
        split = SPLIT_ALIASES.get(name, name)
        if split and split not in SPLITS:
            raise DataError(f"{path}, line {line}: bad split '{cell}'", f"splits are {', '.join(SPLITS)}")
        names.append(split)
    return names
