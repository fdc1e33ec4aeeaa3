"""Paired counts, and the non-inferiority test on them.

Verdicts, for a margin m (the greatest acceptable loss) and a one-sided level alpha:

    pass          the lower bound of the difference is above -m: a loss of m or more is ruled out
    fail          a loss of m or more is proven (the upper bound is below -m), or was observed and is more than chance
    underpowered  neither: too few images to rule out a loss of m, or to tell the one observed from chance

More than chance means an exact McNemar p below alpha, as for classes and for the rungs of the ladder: a model without
a loss fails with probability alpha at most, however few the images are. Where a class that collapsed fails a model,
too, each of the two has half of alpha, so that the promise holds of both together. "Not significantly different" is
never a pass. With margin 0 a pass means that the deployed model is proven better; no number of images can be expected
to show that of an equal one, so ``n_needed`` is None there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.certify.binomial import mcnemar_loss
from edgetl.certify.exact_power import images_needed
from edgetl.certify.score import score_interval, score_statistic
from edgetl.certify.unconditional import MOST_DISCORDANT, cautious_lower_bound, tail

METHOD = "Tango 1998 score interval, or the exact unconditional bound where that is more cautious"
Verdict = Literal["pass", "fail", "underpowered"]
Indexes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairedCounts:
    """Images by who got them right.

    Attributes:
        both_right: reference and deployed model both right.
        lost: reference right, deployed model wrong.
        gained: reference wrong, deployed model right.
        both_wrong: neither right.

    Raises:
        CertifyError: a count is negative or not an integer, or there is no image at all.
    """

    both_right: int
    lost: int
    gained: int
    both_wrong: int

    def __post_init__(self) -> None:
        counts = (self.both_right, self.lost, self.gained, self.both_wrong)
        if any(isinstance(c, bool) or not isinstance(c, int) or c < 0 for c in counts):
            raise CertifyError(f"paired counts {counts} are not whole numbers from 0 up")
        if not sum(counts):
            raise CertifyError("there are no samples to compare", "give at least one")

    @classmethod
    def from_predictions(cls, reference: npt.ArrayLike, deployed: npt.ArrayLike, labels: npt.ArrayLike) -> PairedCounts:
        """Count from three arrays of class indexes [n] (see :func:`paired_indexes`)."""
        labels, reference, deployed = paired_indexes(labels=labels, reference=reference, deployed=deployed)
        return cls.from_right(reference == labels, deployed == labels)

    @classmethod
    def from_right(cls, before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> PairedCounts:
        """Count from whether the reference and the deployed model are right on each image, bool [n]."""
        right, lost, gained = (int(np.sum(x)) for x in (before & after, before & ~after, ~before & after))
        return cls(right, lost, gained, len(before) - right - lost - gained)

    @property
    def n(self) -> int:
        """Images."""
        return self.both_right + self.lost + self.gained + self.both_wrong

    @property
    def reference_accuracy(self) -> float:
        """Share of images that the reference gets right, 0 to 1."""
        return (self.both_right + self.lost) / self.n

    @property
    def deployed_accuracy(self) -> float:
        """Share of images that the deployed model gets right, 0 to 1."""
        return (self.both_right + self.gained) / self.n

    @property
    def difference(self) -> float:
        """Deployed minus reference accuracy, -1 to 1."""
        return (self.gained - self.lost) / self.n

    @property
    def discordance(self) -> float:
        """Share of images that exactly one of the two gets right, 0 to 1."""
        return (self.gained + self.lost) / self.n


@dataclass(frozen=True)
class NonInferiority:
    """Outcome of :func:`noninferiority`; every difference is deployed minus reference, as a fraction.

    Attributes:
        verdict: see the module's head.
        difference: the difference observed.
        ci_low: one-sided 1 - alpha lower bound of the true difference.
        ci_high: one-sided 1 - alpha upper bound.
        score_low: Tango's lower bound, from which ``ci_low`` departs downwards only.
        score_high: Tango's upper bound, from which ``ci_high`` departs upwards only.
        p_value: one-sided, of "the true loss is at least the margin".
        n_needed: images for a pass with probability 0.8 at the observed discordance (see :func:`images_needed`);
            None with margin 0. Always above the number of images where the verdict is underpowered.
        assumed_difference: the true difference that ``n_needed`` assumes: 0, or, where the images would have been
            enough for that, the one observed.
        margin: greatest acceptable loss.
        alpha: one-sided level.
    """

    verdict: Verdict
    difference: float
    ci_low: float
    ci_high: float
    score_low: float
    score_high: float
    p_value: float
    n_needed: int | None
    assumed_difference: float
    margin: float
    alpha: float


def noninferiority(
    counts: PairedCounts, margin: float = 0.01, alpha: float = 0.05, chance: float | None = None
) -> NonInferiority:
    """Test that the deployed model loses less than ``margin`` against the reference, on the same images.

    The bounds are Tango's (1998) score bounds; with at most 200 discordant images each is replaced by the exact
    unconditional bound where that one is more cautious (see :mod:`edgetl.certify.unconditional`), so that a model with
    a true loss of ``margin`` passes with probability at most ``alpha`` (5.03 % at worst beyond 200).

    Args:
        counts: the paired counts.
        margin: greatest acceptable loss as a fraction, 0 <= margin < 1.
        alpha: one-sided level, 0 < alpha < 0.5.
        chance: level at which a loss is more than chance; ``alpha`` when None.

    Raises:
        CertifyError: margin or alpha is out of range.
    """
    check_margin(margin, alpha)
    lost, gained, n = counts.lost, counts.gained, counts.n
    score_low, score_high = score_interval(lost, gained, n, alpha)
    ci_low = cautious_lower_bound(lost, gained, n, alpha)
    ci_high = -cautious_lower_bound(gained, lost, n, alpha)
    difference = counts.difference
    beyond = float(mcnemar_loss(lost, gained)) < (alpha if chance is None else chance)
    verdict = verdict_of(difference, (ci_low, ci_high), margin, beyond)
    n_needed, assumed = needed_at(counts, margin, alpha, verdict)
    return NonInferiority(
        verdict=verdict,
        difference=difference,
        ci_low=ci_low,
        ci_high=ci_high,
        score_low=score_low,
        score_high=score_high,
        p_value=_p_value(lost, gained, n, margin, alpha),
        n_needed=n_needed,
        assumed_difference=assumed,
        margin=float(margin),
        alpha=float(alpha),
    )


def verdict_of(difference: float, bounds: tuple[float, float], margin: float, beyond_chance: bool) -> Verdict:
    """The verdict by the rule at the module's head.

    Args:
        difference: the difference observed.
        bounds: one-sided lower and upper bound of the true one.
        margin: greatest acceptable loss.
        beyond_chance: whether a model without a loss would hardly have lost so much.
    """
    low, high = bounds
    if low > -margin:
        return "pass"
    return "fail" if high < -margin or (beyond_chance and difference <= -margin) else "underpowered"


def needed_at(
    counts: PairedCounts,
    margin: float,
    alpha: float,
    verdict: Verdict,
    needed_for: Callable[..., int] = images_needed,
) -> tuple[int | None, float]:
    """Images needed at the observed discordance, and the true difference that this number assumes.

    Args:
        counts: what was observed.
        margin, alpha, verdict: of the test.
        needed_for: of a test: discordance, margin, alpha and ``difference=`` → images.
    """
    if margin == 0:
        return None, 0.0
    # None seen is not none there: the 95 % upper bound of a rate seen 0 times in n ("rule of three").
    discordance = counts.discordance or 1 - alpha ** (1 / counts.n)
    needed = needed_for(discordance, margin, alpha)
    if verdict != "underpowered" or needed > counts.n:
        return needed, 0.0
    # There were enough images for a model without a loss: what is missing is due to the loss that was observed.
    observed = min(counts.difference, 0.0)
    return max(needed_for(discordance, margin, alpha, difference=observed), counts.n + 1), observed


def _p_value(lost: int, gained: int, n: int, margin: float, alpha: float) -> float:
    score = NormalDist().cdf(-float(score_statistic(lost, gained, n, -margin)))
    if lost + gained > MOST_DISCORDANT or lost == n:
        return score
    return min(max(score, tail(lost, gained, n, alpha).probability(-margin)), 1.0)


def paired_indexes(**arrays: npt.ArrayLike) -> tuple[Indexes, ...]:
    """Check named arrays of class indexes and return them as int64 [n], in the order given.

    Raises:
        CertifyError: an array is not one-dimensional, empty, not of an integer type (NaN included) or holds negative
            numbers, or the lengths differ.
    """
    checked = tuple(_class_indexes(values, name) for name, values in arrays.items())
    if len({len(values) for values in checked}) > 1:
        lengths = ", ".join(f"{name} {len(values)}" for name, values in zip(arrays, checked, strict=True))
        raise CertifyError(f"the arrays have different lengths ({lengths})", "give one entry for each sample")
    return checked


def _class_indexes(values: npt.ArrayLike, name: str) -> Indexes:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise CertifyError(f"{name} is not an array of class indexes ({error})") from error
    if array.ndim != 1:
        remedy = "take the argmax of the scores first" if array.ndim == 2 else "give one index for each sample"
        raise CertifyError(f"{name} has {array.ndim} dimensions instead of 1", remedy)
    if not len(array):
        raise CertifyError(f"{name} is empty", "give at least one sample")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise CertifyError(f"{name} contains NaN", "give a class index for each sample")
    if array.dtype.kind not in "iu":
        raise CertifyError(f"{name} holds {array.dtype} instead of integers", "give class indexes from 0 up")
    if int(array.min()) < 0:
        raise CertifyError(f"{name} holds the negative index {int(array.min())}", "give class indexes from 0 up")
    if int(array.max()) >= 2**31:
        raise CertifyError(f"{name} holds {int(array.max())}, which is no class index")
    return array.astype(np.int64)


def check_margin(margin: float, alpha: float = 0.05) -> None:
    """Raise CertifyError unless 0 <= ``margin`` < 1 and 0 < ``alpha`` < 0.5."""
    if not _is_number(margin) or not 0 <= margin < 1:
        raise CertifyError(
            f"margin {margin} is not in the range from 0 up to, but not including, 1",
            "give the greatest acceptable loss as a fraction, such as 0.01 for one point",
        )
    if not _is_number(alpha) or not 0 < alpha < 0.5:
        raise CertifyError(f"alpha {alpha} is not between 0 and 0.5", "use 0.05 unless you have a reason")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
