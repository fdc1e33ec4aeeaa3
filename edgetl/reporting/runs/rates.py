"""Precision and recall of each class or label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgetl.base.wording import count, percent, printable
from edgetl.reporting.views import TableView

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rate:
    """One class or label.

    Attributes:
        name: of it.
        true: samples that have it.
        answered: samples that were given it.
        right: samples that have it and were given it.
    """

    name: str
    true: int
    answered: int
    right: int

    @property
    def precision(self) -> float | None:
        """The share of its answers that are right; None without an answer."""
        return self.right / self.answered if self.answered else None

    @property
    def recall(self) -> float | None:
        """The share of its samples that were found; None without a sample."""
        return self.right / self.true if self.true else None

    @property
    def f1(self) -> float | None:
        """Their harmonic mean; None where it was neither there nor answered."""
        either = self.true + self.answered
        return 2 * self.right / either if either else None


def rates(names: Sequence[str], true: Integers, answered: Integers, right: Integers) -> list[Rate]:
    """From counts, int64 [k]."""
    counts = zip(names, true.tolist(), answered.tolist(), right.tolist(), strict=True)
    return [Rate(*row) for row in counts]


def table(what: str, rows: Sequence[Rate]) -> TableView:
    """All of them; ``what`` is the heading, Class or Label."""
    return TableView(
        (what, "True", "Answered", "Precision", "Recall", "F1"),
        tuple(
            (
                printable(row.name),
                count(row.true),
                count(row.answered),
                percent(row.precision, 1),
                percent(row.recall, 1),
                percent(row.f1, 1),
            )
            for row in rows
        ),
    )
