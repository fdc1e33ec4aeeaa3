"""What a sample's label is: one class, several classes, or a number."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: A class index, the sorted indexes of several classes, a value, or of several tasks one of these each, or None.
Label = int | float | tuple[Any, ...]
#: Numbers are put into this many bins at most, of this many samples at least, whose shares the splits keep.
BINS, FEWEST_IN_BIN = 10, 20


@dataclass(frozen=True)
class LabelKind:
    """How labels of one kind are written and used.

    Attributes:
        name: as in ``splits.json``.
        column: of a CSV file.
        fewest: classes that a data set must have.
        parse: a cell of that column → names of classes, or a number; raises ValueError, saying what it should hold.
        label: what ``parse`` gave and the classes' indexes → a label.
        restore: a JSON value and the classes' names → a label; raises TypeError or ValueError.
        array: labels and the classes' names → one array: int64 (n,), uint8 (n, classes) or float64 (n,).
        shown: a label and the classes' names → what a person reads.
        strata: labels → for each what splits keep the shares of; None where that is several things, kept one by one.
        marks: labels → the numbers of those; None with ``strata``.
        summary: labels and the classes' names → how many samples of each class, or the figures of numbers.
    """

    name: str
    column: str
    fewest: int
    parse: Callable[[str], tuple[str, ...] | float]
    label: Callable[[Any, Mapping[str, int]], Label]
    restore: Callable[[Any, Sequence[str]], Label]
    array: Callable[[Sequence[Any], Sequence[str]], npt.NDArray[Any]]
    shown: Callable[[Any, Sequence[str]], str]
    strata: Callable[[Sequence[Any]], Sequence[Hashable]] | None
    summary: Callable[[Sequence[Any], Sequence[str]], dict[str, float]]
    marks: Callable[[Sequence[Any]], Sequence[Sequence[int]]] | None = None

    @property
    def several(self) -> bool:
        """Whether a sample may have any number of classes."""
        return self.marks is not None


def _name(cell: str) -> tuple[str, ...]:
    if not cell.strip():
        raise ValueError("a class")
    return (cell.strip(),)


def _names(cell: str) -> tuple[str, ...]:
    return tuple(sorted({name.strip() for name in re.split(r"[|;]", cell) if name.strip()}))


def _number(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError as error:
        raise ValueError("a number") from error
    if not math.isfinite(value):
        raise ValueError("a finite number")
    return value


def _index(value: Any, classes: Sequence[str]) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"the label {value!r} is no index of a class")
    if not 0 <= value < len(classes):
        raise ValueError(f"the label {value} is the index of none of {len(classes)} classes")
    return value


def _several(value: Any, classes: Sequence[str]) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"the label {value!r} is no list of classes")
    found = tuple(_index(entry, classes) for entry in value)
    if list(found) != sorted(set(found)):
        raise ValueError(f"the label {value!r} is not in order")
    return found


def _value(value: Any, classes: Sequence[str]) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError(f"the label {value!r} is no number")
    return float(value)


def _indexes(labels: Sequence[int], classes: Sequence[str]) -> npt.NDArray[np.int64]:
    return np.array(labels, dtype=np.int64)


def _indicators(labels: Sequence[Sequence[int]], classes: Sequence[str]) -> npt.NDArray[np.uint8]:
    marked = np.zeros((len(labels), len(classes)), np.uint8)
    for row, present in enumerate(labels):
        marked[row, list(present)] = 1
    return marked


def _values(labels: Sequence[float], classes: Sequence[str]) -> npt.NDArray[np.float64]:
    return np.array(labels, dtype=np.float64)


def _bins(labels: Sequence[float]) -> list[int]:
    """Quantile bins; equal values share one, whatever order they come in."""
    count = max(1, min(BINS, len(labels) // FEWEST_IN_BIN))
    edges = np.unique(np.quantile(labels, np.arange(1, count) / count)) if labels else np.zeros(0)
    return [int(place) for place in np.searchsorted(edges, labels, side="right")]


def _counts(labels: Sequence[int], classes: Sequence[str]) -> dict[str, float]:
    counted = Counter(labels)
    return {name: counted[index] for index, name in enumerate(classes)}


def _counts_each(labels: Sequence[Sequence[int]], classes: Sequence[str]) -> dict[str, float]:
    return _counts([index for label in labels for index in label], classes)


def _figures(labels: Sequence[float], classes: Sequence[str]) -> dict[str, float]:
    """Of an empty split, n alone; sd is the sample's own, 0 for one value."""
    if not labels:
        return {"n": 0}
    values = np.array(labels, np.float64)
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    figures = {"mean": float(values.mean()), "sd": spread, "min": float(values.min()), "max": float(values.max())}
    return {"n": len(values), **figures}


def renumbered(label: Label, names: Sequence[str], order: Sequence[str]) -> Label:
    """A label whose indexes are of the classes ``names``, with those that the same classes have in ``order``."""
    if isinstance(label, float):
        return label
    if isinstance(label, tuple):
        return tuple(sorted(order.index(names[index]) for index in label))
    return order.index(names[label])


#: One class a sample, any number of classes a sample, a number a sample.
LABEL_KINDS: Mapping[str, LabelKind] = {
    kind.name: kind
    for kind in (
        LabelKind(
            name="class",
            column="label",
            fewest=2,
            parse=_name,
            label=lambda names, indexes: indexes[names[0]],
            restore=_index,
            array=_indexes,
            shown=lambda label, classes: classes[label],
            strata=lambda labels: labels,
            summary=_counts,
        ),
        LabelKind(
            name="classes",
            column="labels",
            fewest=1,
            parse=_names,
            label=lambda names, indexes: tuple(sorted(indexes[name] for name in names)),
            restore=_several,
            array=_indicators,
            shown=lambda label, classes: "|".join(classes[index] for index in label) or "none",
            strata=None,
            marks=lambda labels: labels,
            summary=_counts_each,
        ),
        LabelKind(
            name="number",
            column="target",
            fewest=0,
            parse=_number,
            label=lambda value, indexes: float(value),
            restore=_value,
            array=_values,
            shown=lambda label, classes: f"{label:g}",
            strata=_bins,
            summary=_figures,
        ),
    )
}
