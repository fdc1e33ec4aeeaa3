"""A paired bootstrap for what has no score test: balanced accuracy, and the metrics of regression.

Images are drawn again with replacement (B. Efron 1979, Annals of Statistics 7, 1-26), always with both models' answers
to them, and the difference is computed anew; its quantiles are the bounds. Two things are added, because the plain
percentile interval is far too bold where few images decide: it has no width at all when no image changed.

* One image that was not seen: in every replicate an image that counts Exp(1) times, which the deployed model loses (for
  the lower bound) or gains (for the upper one). Without any change seen that gives the rule of three, -log(alpha) / n.
  Where images weigh differently it is one of the heaviest, as in the gamma interval for weighted sums of counts of
  M. P. Fay and E. J. Feuer (1997), Statistics in Medicine 16, 791-801.
* One image fewer is drawn than there are, which makes the variance unbiased (P. J. McCarthy and C. B. Snowden 1985,
  Vital and Health Statistics 2/95); it matters where classes have few images.

``benchmarks/size_simulation.py`` measures how often a true loss of the margin passes, with and without them. Everything
is seeded: equal input gives equal bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError, UnknownNameError
from edgetl.certify.paired import MOST_IMAGES, POWER, Indexes, Verdict, check_margin, verdict_of
from edgetl.certify.score import critical_value

REGRESSION = ("mae", "rmse", "r2")
Floats = npt.NDArray[np.float64]
Difference = Callable[[Floats], Floats]

REPLICATES = 2000
METHOD = f"paired bootstrap, percentiles of {REPLICATES:,} replicates with one unseen image (Fay and Feuer 1997)"
MOST_UNITS = 2000
"""More images than this are drawn in as many random groups of equal size, so that the time does not grow with n."""

_BLOCK = 250
_CELLS = 2_000_000


@dataclass(frozen=True)
class BootstrapTest:
    """Outcome of a bootstrapped non-inferiority test; a negative difference is a loss.

    Attributes:
        verdict: by the rule of :mod:`edgetl.certify.paired`.
        reference_score: the metric of the reference.
        deployed_score: the metric of the deployed model.
        difference: the gain observed, in the metric's unit.
        ci_low: one-sided 1 - alpha lower bound of the true difference.
        ci_high: one-sided 1 - alpha upper bound.
        p_value: share of the replicates that lose at least the margin.
        n_needed: images for a pass with probability 0.8, by scaling the interval's width; None with margin 0.
        assumed_difference: the true difference that ``n_needed`` assumes: 0, or the one observed.
        margin: greatest acceptable loss.
        alpha: one-sided level.
    """

    verdict: Verdict
    reference_score: float
    deployed_score: float
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    n_needed: int | None
    assumed_difference: float
    margin: float
    alpha: float


def balanced_accuracy_test(
    reference: Indexes,
    deployed: Indexes,
    labels: Indexes,
    margin: float = 0.01,
    alpha: float = 0.05,
    replicates: int = REPLICATES,
) -> BootstrapTest:
    """Test that the mean recall over the classes that have images falls by less than ``margin``.

    Images are drawn within their classes, from each class's table of lost, gained and unchanged ones, so the time does
    not grow with the number of images. The unseen image belongs to the smallest class: with few images in a class its
    recall is not known well, however many the others have.

    Args:
        reference: predicted class indexes [n].
        deployed: predicted class indexes [n].
        labels: true class indexes [n].
        margin: greatest acceptable loss as a fraction, 0 <= margin < 1.
        alpha: one-sided level, 0 < alpha < 0.5.
        replicates: how often the images are drawn.

    Raises:
        CertifyError: margin or alpha is out of range.
    """
    check_margin(margin, alpha)
    before, after = reference == labels, deployed == labels
    sizes = np.bincount(labels)
    present = sizes > 0
    right, kept, lost, gained = (
        np.bincount(labels[chosen], minlength=len(sizes))[present]
        for chosen in (before, after, before & ~after, ~before & after)
    )
    sizes = sizes[present]
    rng = np.random.default_rng(0)
    draws = _class_draws(lost, gained, sizes, replicates, rng)
    unseen = times_unseen(replicates, rng) / (len(sizes) * sizes.min())
    scores = float(np.mean(right / sizes)), float(np.mean(kept / sizes))
    return _test(
        scores, float(np.mean((gained - lost) / sizes)), (draws - unseen, draws + unseen), len(labels), margin, alpha
    )


def _class_draws(lost: Indexes, gained: Indexes, sizes: Indexes, replicates: int, rng: np.random.Generator) -> Floats:
    """Replicates of the mean over the classes of (gained - lost) / images, float64 [replicates]."""
    total = np.zeros(replicates)
    changed = np.flatnonzero(lost + gained)
    if not len(changed):
        return total
    step = max(1, _CELLS // replicates)
    for chosen in (changed[start : start + step] for start in range(0, len(changed), step)):
        n = sizes[chosen]
        drawn = np.maximum(n - 1, 1)
        changes = rng.binomial(drawn, (lost + gained)[chosen] / n, size=(replicates, len(chosen)))
        gains = rng.binomial(changes, gained[chosen] / (lost + gained)[chosen])
        total += ((2 * gains - changes) / drawn).sum(axis=1)
    return total / len(sizes)


def score_test(
    reference: Floats,
    deployed: Floats,
    labels: Floats,
    metric: str,
    margin: float,
    alpha: float = 0.05,
    replicates: int = REPLICATES,
) -> BootstrapTest:
    """Test that a regression metric worsens by less than ``margin``.

    No bound on a mean holds for every distribution, since one image in a million may be off by anything. What is
    assumed of the unseen image: the deployed model is off by one standard deviation of the labels, as one that knows
    nothing is, or by the greatest change seen, if that is more; the reference is right.

    Args:
        reference: predicted values, float64 [n].
        deployed: predicted values, float64 [n].
        labels: true values, float64 [n].
        metric: mae or rmse (in the labels' unit; a rise is a loss), or r2.
        margin: greatest acceptable loss, in the metric's unit, 0 or more.
        alpha: one-sided level, 0 < alpha < 0.5.
        replicates: how often the images are drawn.

    Raises:
        CertifyError: margin or alpha is out of range, or r2 is asked for where all labels are equal.
        UnknownNameError: no metric of that name.
    """
    if metric not in REGRESSION:
        raise UnknownNameError("metric", metric, REGRESSION)
    check_margin(margin if metric == "r2" else 0.0, alpha)
    if not isinstance(margin, (int, float, np.number)) or not 0 <= margin < math.inf:
        raise CertifyError(
            f"margin {margin} is not a number from 0 up", f"give the greatest acceptable loss of {metric}"
        )
    centre = labels - labels.mean()
    if metric == "r2" and not centre.any():
        raise CertifyError("R² is not defined: all labels are equal", "use mae or rmse")
    before, after = np.abs(reference - labels), np.abs(deployed - labels)
    differences = DIFFERENCES[metric]
    rng = np.random.default_rng(0)
    sums = resampled_sums(_moments(before, after, centre), replicates, rng)
    times = times_unseen(replicates, rng)[:, None]
    worse, better = _unseen(before, after, centre)
    draws = differences(sums + times * worse), differences(sums + times * better)
    observed = _moments(before, after, centre).sum(axis=0, keepdims=True)
    scores = float(SCORES[metric](observed, 0)[0]), float(SCORES[metric](observed, 1)[0])
    return _test(scores, float(differences(observed)[0]), draws, len(labels), margin, alpha)


def _moments(before: Floats, after: Floats, centre: Floats) -> Floats:
    """What the metrics are made of: images, |error| and error² of both models, label, label²; float64 [n, 7]."""
    return np.stack([np.ones_like(centre), before, after, before**2, after**2, centre, centre**2], axis=1)


def _unseen(before: Floats, after: Floats, centre: Floats) -> tuple[Floats, Floats]:
    """Moments of the image that was not seen: one that the deployed model loses, and one that it gains."""
    spread = float(centre.std())
    # Each moment has a worst image of its own.
    absolute = max(spread, float(np.abs(after - before).max()))
    square = max(spread**2, float(np.abs(after**2 - before**2).max()))
    worse = np.array([[1.0, 0.0, absolute, 0.0, square, 0.0, spread**2]])
    better = np.array([[1.0, absolute, 0.0, square, 0.0, 0.0, spread**2]])
    return worse, better


def _mae(sums: Floats, model: int) -> Floats:
    return np.asarray(sums[:, 1 + model] / sums[:, 0])


def _rmse(sums: Floats, model: int) -> Floats:
    return np.sqrt(sums[:, 3 + model] / sums[:, 0])


def _r2(sums: Floats, model: int) -> Floats:
    # A replicate in which all labels are equal says nothing; the worst is assumed of it.
    spread = np.maximum(sums[:, 6] - sums[:, 5] ** 2 / sums[:, 0], 1e-12 * np.maximum(sums[:, 6], 1e-300))
    return np.asarray(1 - sums[:, 3 + model] / spread)


#: metric → its value for the reference (0) or the deployed model (1), from sums of moments [replicates, 7]
SCORES: dict[str, Callable[[Floats, int], Floats]] = {"mae": _mae, "rmse": _rmse, "r2": _r2}
DIFFERENCES: dict[str, Difference] = {
    "mae": lambda sums: _mae(sums, 0) - _mae(sums, 1),
    "rmse": lambda sums: _rmse(sums, 0) - _rmse(sums, 1),
    "r2": lambda sums: _r2(sums, 1) - _r2(sums, 0),
}


def resampled_sums(moments: Floats, replicates: int, rng: np.random.Generator) -> Floats:
    """Sums over images drawn with replacement, one fewer than there are.

    Args:
        moments: float64 [n, k]. Beyond ``MOST_UNITS`` rows they are first summed in random groups of equal size (but
            for one), which are then drawn whole: the variance and the skewness of a sum over groups are those of a sum
            over images.
        replicates: how often to draw.
        rng: source of the draws.

    Returns:
        float64 [replicates, k].
    """
    if len(moments) > MOST_UNITS:
        starts = np.linspace(0, len(moments), MOST_UNITS, endpoint=False).astype(np.int64)
        moments = np.add.reduceat(moments[rng.permutation(len(moments))], starts)
    n, sums = len(moments), []
    for start in range(0, replicates, _BLOCK):
        rows = min(_BLOCK, replicates - start)
        drawn = rng.integers(0, n, size=(rows, max(n - 1, 1))) + n * np.arange(rows)[:, None]
        sums.append(np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n) @ moments)
    return np.concatenate(sums)


def times_unseen(replicates: int, rng: np.random.Generator) -> Floats:
    """How often the unseen image counts in each replicate: Exp(1), at evenly spaced chances in random order."""
    return np.asarray(-np.log((rng.permutation(replicates) + 0.5) / replicates))


def bounds(low: Floats, high: Floats, alpha: float) -> tuple[float, float]:
    """The alpha quantile of ``low`` and the 1 - alpha quantile of ``high``, each on its cautious side."""
    return float(np.quantile(low, alpha, method="lower")), float(np.quantile(high, 1 - alpha, method="higher"))


def _test(
    scores: tuple[float, float], difference: float, draws: tuple[Floats, Floats], n: int, margin: float, alpha: float
) -> BootstrapTest:
    ci_low, ci_high = bounds(*draws, alpha)
    ci_low, ci_high = min(ci_low, difference), max(ci_high, difference)
    verdict = verdict_of(difference, (ci_low, ci_high), margin, ci_high < 0)
    n_needed, assumed = _n_needed(difference, ci_low, n, margin, alpha, verdict)
    return BootstrapTest(
        verdict=verdict,
        reference_score=scores[0],
        deployed_score=scores[1],
        difference=difference,
        ci_low=ci_low,
        ci_high=ci_high,
        p_value=float((1 + np.sum(draws[0] <= -margin)) / (1 + len(draws[0]))),
        n_needed=n_needed,
        assumed_difference=assumed,
        margin=float(margin),
        alpha=float(alpha),
    )


def _n_needed(
    difference: float, ci_low: float, n: int, margin: float, alpha: float, verdict: Verdict
) -> tuple[int | None, float]:
    """Images needed if the interval shrinks with the square root of n, and the true difference that is assumed."""
    if margin == 0:
        return None, 0.0
    error = (difference - ci_low) / critical_value(alpha)
    reach = (critical_value(alpha) + NormalDist().inv_cdf(POWER)) * error

    def needed(assumed: float) -> int:
        return math.ceil(max(min(n * min(reach / max(margin + assumed, 1e-300), 1e9) ** 2, MOST_IMAGES), 1))

    if verdict != "underpowered" or needed(0.0) > n:
        return needed(0.0), 0.0
    assumed = min(difference, 0.0)
    return max(needed(assumed), n + 1), assumed
