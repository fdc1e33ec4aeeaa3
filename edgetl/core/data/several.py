"""Labels of several tasks at once: each sample has a label of each task, or of some of them.

Such a kind of label is named by its tasks, ``colour:class+age:number``; its classes are ``colour: red``, so that no two
tasks share one. A label is a tuple with an entry for each task, None where nobody gave it.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.core.data.labels import LABEL_KINDS, Label, LabelKind

JOIN, OF = "+", ":"
#: Between the name of a task and that of one of its classes.
CLASS_OF = ": "
#: What a task may be called: names of graph outputs, of files and of options are made of it.
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}")


@dataclass(frozen=True)
class Part:
    """One of several tasks.

    Attributes:
        name: as its column of the data names it.
        kind: of its labels, a key of :data:`LABEL_KINDS`.
        classes: their own names; none where its labels are numbers.
        labels: its columns in the labels' array.
        outputs: its columns among the numbers that a network gives for a sample.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    labels: slice
    outputs: slice

    @property
    def columns(self) -> int:
        """Of the labels' array."""
        return int(self.labels.stop - self.labels.start)

    @property
    def width(self) -> int:
        """Numbers that a network gives for a sample."""
        return int(self.outputs.stop - self.outputs.start)

    def known(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Which samples have a label of this task: bool (n,); ``labels`` is (n, columns), NaN where there is none."""
        return np.asarray(~np.isnan(labels[:, self.labels.start]))

    def own(self, labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Labels of the samples that have one, as its kind's array holds them."""
        values = labels[self.known(labels), self.labels]
        kinds = {"class": np.int64, "classes": np.uint8}
        found = values.astype(kinds[self.kind]) if self.kind in kinds else values
        return found if self.kind == "classes" else found[:, 0]


def joined(kinds: Mapping[str, str]) -> str:
    """The name of a kind of label, or of a task, that is made of several: name → its own."""
    return JOIN.join(f"{name}{OF}{kind}" for name, kind in kinds.items())


def taken_apart(name: str) -> dict[str, str]:
    """What :func:`joined` joined; nothing of what was not."""
    pairs = [entry.partition(OF) for entry in name.split(JOIN)]
    fine = all(NAME.fullmatch(task) and kind for task, _, kind in pairs)
    return {task: kind for task, _, kind in pairs} if fine and len({task for task, _, _ in pairs}) == len(pairs) else {}


def own_classes(name: str, classes: Sequence[str]) -> tuple[str, ...]:
    """The classes of one task, by their own names."""
    return tuple(c.removeprefix(f"{name}{CLASS_OF}") for c in classes if c.startswith(f"{name}{CLASS_OF}"))


def parts_of(kind: str, classes: Sequence[str]) -> tuple[Part, ...]:
    """The tasks of a kind of label, given the classes of all.

    Raises:
        KeyError: a task's kind of label is unknown.
    """
    found: list[Part] = []
    label = output = 0
    for name, own in taken_apart(kind).items():
        named = own_classes(name, classes)
        columns = len(named) if LABEL_KINDS[own].several else 1
        width = len(named) or 1
        found.append(Part(name, own, named, slice(label, label + columns), slice(output, output + width)))
        label, output = label + columns, output + width
    return tuple(found)


def label_kind(name: str) -> LabelKind:
    """A kind of label by its name, that of one task or of several.

    Raises:
        KeyError: there is none of that name.
    """
    return LABEL_KINDS[name] if name in LABEL_KINDS else _several(name)


@lru_cache(64)
def _several(name: str) -> LabelKind:
    kinds = {task: LABEL_KINDS[kind] for task, kind in taken_apart(name).items()}
    if not kinds:
        raise KeyError(name)
    return LabelKind(
        name=name,
        column=", ".join(f"{kind.column}{OF}{task}" for task, kind in kinds.items()),
        fewest=0,
        parse=_not_in_a_cell,
        label=lambda parsed, indexes: tuple(parsed),
        restore=lambda value, classes: _restored(kinds, value, classes),
        array=lambda labels, classes: _packed(name, labels, classes),
        shown=lambda label, classes: _shown(kinds, label, classes),
        strata=None,
        marks=lambda labels: _marks(kinds, labels),
        summary=lambda labels, classes: _summary(kinds, labels, classes),
    )


def together(labels: Sequence[Label], kind: str) -> Label | None:
    """The one label that copies of a sample have between them; None where they contradict each other.

    Of several tasks, what one copy leaves open another one may say.
    """
    if kind in LABEL_KINDS:
        return labels[0] if len(set(labels)) == 1 else None
    entries = [{own for own in each if own is not None} for each in zip(*map(_entries, labels), strict=True)]
    if any(len(found) > 1 for found in entries):
        return None
    return tuple(next(iter(found), None) for found in entries)


def _entries(label: Label) -> tuple[Any, ...]:
    assert isinstance(label, tuple), f"{label!r} is of one task"
    return label


def _not_in_a_cell(cell: str) -> tuple[str, ...]:
    raise ValueError("a column for each task")


def _restored(kinds: Mapping[str, LabelKind], value: Any, classes: Sequence[str]) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)) or len(value) != len(kinds):
        raise TypeError(f"the label {value!r:.60} is none of {len(kinds)} tasks")
    pairs = zip(kinds.items(), value, strict=True)
    return tuple(None if v is None else kind.restore(v, own_classes(task, classes)) for (task, kind), v in pairs)


def _packed(name: str, labels: Sequence[Any], classes: Sequence[str]) -> npt.NDArray[np.float64]:
    parts = parts_of(name, classes)
    array = np.full((len(labels), sum(part.columns for part in parts)), np.nan)
    for place, part in enumerate(parts):
        rows = [row for row, label in enumerate(labels) if label[place] is not None]
        own = LABEL_KINDS[part.kind].array([labels[row][place] for row in rows], part.classes)
        array[rows, part.labels] = own.reshape(len(rows), part.columns)
    return array


def _shown(kinds: Mapping[str, LabelKind], label: Sequence[Any], classes: Sequence[str]) -> str:
    told = [
        f"{task} {kind.shown(own, own_classes(task, classes))}"
        for (task, kind), own in zip(kinds.items(), label, strict=True)
        if own is not None
    ]
    return ", ".join(told) or "nothing"


def _marks(kinds: Mapping[str, LabelKind], labels: Sequence[Sequence[Any]]) -> list[tuple[int, ...]]:
    """What splits keep the shares of: each class of each task, and the bins of its numbers, counted through."""
    numbers: dict[Hashable, int] = {}
    marks: list[list[int]] = [[] for _ in labels]
    for place, (task, kind) in enumerate(kinds.items()):
        rows = [row for row, label in enumerate(labels) if label[place] is not None]
        own = [labels[row][place] for row in rows]
        strata: Sequence[Sequence[Hashable]] = [(s,) for s in kind.strata(own)] if kind.strata else own
        for row, found in zip(rows, strata, strict=True):
            marks[row] += [numbers.setdefault((task, one), len(numbers)) for one in found]
    return [tuple(sorted(own)) for own in marks]


def _summary(kinds: Mapping[str, LabelKind], labels: Sequence[Any], classes: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for place, (task, kind) in enumerate(kinds.items()):
        own = [label[place] for label in labels if label[place] is not None]
        found |= {f"{task}{CLASS_OF}{key}": n for key, n in kind.summary(own, own_classes(task, classes)).items()}
    return found
