"""What happened to each class: recall before and after, and which losses are more than chance.

Each class has an exact one-sided McNemar test of "no more images of this class were lost than gained". The p-values of
all classes that have images are adjusted together by Holm's method (S. Holm 1979, Scandinavian Journal of Statistics
6, 65-70), so that the chance of any false alarm among them is at most alpha.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgetl.certify.binomial import mcnemar_loss
from edgetl.certify.paired import Indexes


@dataclass(frozen=True)
class ClassOutcome:
    """One class.

    Attributes:
        name: its name.
        n: images of this class.
        lost: images of it that only the reference gets right.
        gained: images of it that only the deployed model gets right.
        reference_recall: share that the reference gets right; None without images.
        deployed_recall: share that the deployed model gets right; None without images.
        difference: deployed minus reference recall; None without images.
        p_value: exact one-sided McNemar p of a loss; 1.0 without images.
        adjusted_p: the same after Holm's adjustment over all classes that have images.
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


def class_outcomes(
    reference: Indexes, deployed: Indexes, labels: Indexes, names: tuple[str, ...]
) -> tuple[ClassOutcome, ...]:
    """Compare the recall of every class, in the order of ``names``.

    Args:
        reference: predicted class indexes [n].
        deployed: predicted class indexes [n].
        labels: true class indexes [n], each below ``len(names)``.
        names: a name for every class index.
    """
    before, after = reference == labels, deployed == labels
    images, right, kept, lost, gained = (
        np.bincount(labels[chosen], minlength=len(names))
        for chosen in (np.ones_like(before), before, after, before & ~after, ~before & after)
    )
    p_values = mcnemar_loss(lost, gained)
    present = images > 0
    adjusted = np.ones(len(names))
    adjusted[present] = holm(p_values[present])
    outcomes = []
    for i, name in enumerate(names):
        n = int(images[i])
        outcomes.append(
            ClassOutcome(
                name=name,
                n=n,
                lost=int(lost[i]),
                gained=int(gained[i]),
                reference_recall=int(right[i]) / n if n else None,
                deployed_recall=int(kept[i]) / n if n else None,
                difference=(int(gained[i]) - int(lost[i])) / n if n else None,
                p_value=float(p_values[i]),
                adjusted_p=float(adjusted[i]),
            )
        )
    return tuple(outcomes)


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Holm's step-down adjusted p-values, float64 [k], in the order given."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def balanced_accuracy(recalls: tuple[float | None, ...]) -> float:
    """Mean recall over the classes that have images, 0 to 1."""
    present = [recall for recall in recalls if recall is not None]
    return sum(present) / len(present)
