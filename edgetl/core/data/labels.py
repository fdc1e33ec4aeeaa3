"""What a sample's label is: one class, several classes, or a number."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: A class index, the sorted indexes of several classes, or a value.
Label = int | tuple[int, ...] | float


@dataclass(frozen=True)
class LabelKind:
    """How labels of one kind are written and used.

    Attributes:
        name: as in ``splits.json``.
        column: of a CSV file.
        array: labels and the number of classes → one array: int64 (n,), uint8 (n, classes) or float64 (n,).
        stratum: what splits keep the shares of.
    """

    name: str
    column: str
    array: Callable[[Sequence[Any], int], npt.NDArray[Any]]
    stratum: Callable[[Any], Hashable]


def _indexes(labels: Sequence[int], classes: int) -> npt.NDArray[np.int64]:
    return np.array(labels, dtype=np.int64)


def _indicators(labels: Sequence[Sequence[int]], classes: int) -> npt.NDArray[np.uint8]:
    marked = np.zeros((len(labels), classes), np.uint8)
    for row, present in enumerate(labels):
        marked[row, list(present)] = 1
    return marked


def _values(labels: Sequence[float], classes: int) -> npt.NDArray[np.float64]:
    return np.array(labels, dtype=np.float64)


#: One class a sample, any number of classes a sample, a number a sample.
LABEL_KINDS: Mapping[str, LabelKind] = {
    kind.name: kind
    for kind in (
        LabelKind("class", "label", _indexes, lambda label: label),
        LabelKind("classes", "labels", _indicators, lambda label: label),
        LabelKind("number", "target", _values, lambda label: 0),
    )
}
