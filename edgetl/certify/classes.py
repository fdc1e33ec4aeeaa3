"""What happened to each class or label: recall before and after, and which losses are more than chance.

Each class has an exact one-sided McNemar test of "no more samples of this class were lost than gained". The p-values of
all classes that have samples are adjusted together by Holm's method (S. Holm 1979, Scandinavian Journal of Statistics
6, 65-70), so that the chance of any false alarm among them is at most alpha. Where samples belong together, the exact
sign-flip test of groups takes the place of McNemar's (:func:`edgetl.certify.group_test.sign_flip_loss`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgetl.certify.betting import loss_p
from edgetl.certify.binomial import mcnemar_loss
from edgetl.certify.group_test import sign_flip_loss
from edgetl.certify.paired import Indexes
from edgetl.core.certificate_parts import ClassRecord
from edgetl.tasks import ClassCounts, classification


@dataclass(frozen=True)
class ClassOutcome:
    """One class.

    Attributes:
        name: its name.
        n: samples of this class.
        lost: samples of it that only the reference gets right.
        gained: samples of it that only the deployed model gets right.
        reference_recall: share that the reference gets right; None without samples.
        deployed_recall: share that the deployed model gets right; None without samples.
        difference: deployed minus reference recall; None without samples.
        p_value: exact one-sided McNemar p of a loss; 1.0 without samples.
        adjusted_p: the same after Holm's adjustment over all classes that have samples.
    """

    name: str
    n: int
    lost: int
    gained: int
    reference_recall: float | None
    deployed_recall: float | None
    difference: float | None
    p_value: float
    adjusted_p: float

    def collapsed(self, margin: float, alpha: float) -> bool:
        """Whether the loss is more than chance (adjusted p < ``alpha``) and at least ``margin``."""
        return self.adjusted_p < alpha and self.difference is not None and self.difference <= -margin

    def record(self, margin: float, alpha: float) -> ClassRecord:
        """As a certificate has it."""
        return ClassRecord(
            n=self.n,
            reference_recall=self.reference_recall,
            deployed_recall=self.deployed_recall,
            difference=self.difference,
            lost=self.lost,
            gained=self.gained,
            p_value=self.p_value,
            adjusted_p=self.adjusted_p,
            collapsed=self.collapsed(margin, alpha),
        )


def class_outcomes(
    reference: Indexes, deployed: Indexes, labels: Indexes, names: Sequence[str]
) -> tuple[ClassOutcome, ...]:
    """Compare the recall of every class, in the order of ``names``.

    Args:
        reference: predicted class indexes [n].
        deployed: predicted class indexes [n].
        labels: true class indexes [n], each below ``len(names)``.
        names: a name for every class index.
    """
    before, after = (classification.evidence({"class": values}, labels) for values in (reference, deployed))
    return outcomes(classification.by_class(before, after, len(names)), names)


def outcomes(
    counts: ClassCounts, names: Sequence[str], groups: Indexes | None = None, sequential: bool = False
) -> tuple[ClassOutcome, ...]:
    """The same from what two models did to the samples of each class, which may belong together, or be read again."""
    single = loss_p if sequential else mcnemar_loss
    p_values = single(counts.lost, counts.gained) if groups is None else _by_group(counts, groups)
    present = counts.samples > 0
    adjusted = np.ones(len(names))
    adjusted[present] = holm(p_values[present])
    found = []
    for i, name in enumerate(names):
        n, lost, gained = int(counts.samples[i]), int(counts.lost[i]), int(counts.gained[i])
        found.append(
            ClassOutcome(
                name=name,
                n=n,
                lost=lost,
                gained=gained,
                reference_recall=int(counts.reference[i]) / n if n else None,
                deployed_recall=int(counts.deployed[i]) / n if n else None,
                difference=(gained - lost) / n if n else None,
                p_value=float(p_values[i]),
                adjusted_p=float(adjusted[i]),
            )
        )
    return tuple(found)


def _by_group(counts: ClassCounts, groups: Indexes) -> npt.NDArray[np.float64]:
    """One-sided p of a loss of each class, float64 [classes]."""
    p_values = np.ones(len(counts.samples))
    for label in np.unique(counts.flips.label).tolist():
        own = counts.flips.label == label
        change = np.bincount(groups[counts.flips.sample[own]], counts.flips.change[own])
        p_values[label] = sign_flip_loss(change.astype(np.int64))
    return p_values


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Holm's step-down adjusted p-values, float64 [k], in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def balanced_accuracy(recalls: Sequence[float | None]) -> float:
    """Mean recall over the classes that have samples, 0 to 1."""
    present = [recall for recall in recalls if recall is not None]
    return sum(present) / len(present)
