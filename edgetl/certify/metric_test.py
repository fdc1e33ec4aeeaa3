"""One test for every metric: is the deployed model's worse by less than the margin?

Exact where the metric is a share of right samples (:mod:`edgetl.certify.paired`), else a paired bootstrap
(:mod:`edgetl.certify.bootstrap`); where samples belong together, one of whole groups
(:mod:`edgetl.certify.group_test`). The verdicts are by the rule of :mod:`edgetl.certify.paired`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.certify import betting, bootstrap, group_test, paired
from edgetl.certify.bootstrap import REPLICATES, Draws, bounds, class_draws, metric_draws
from edgetl.certify.exact_power import MOST_IMAGES, POWER
from edgetl.certify.group_test import share_draws
from edgetl.certify.paired import (
    Indexes,
    PairedCounts,
    Verdict,
    check_margin,
    needed_at,
    noninferiority,
    verdict_of,
)
from edgetl.certify.score import critical_value
from edgetl.core.certificate_parts import Score
from edgetl.tasks import Evidence, Metric, Unit


@dataclass(frozen=True)
class MetricTest:
    """Outcome of the non-inferiority test of one metric; a negative difference is a loss.

    Attributes:
        verdict: by the rule of :mod:`edgetl.certify.paired`.
        reference_score: the metric of the reference.
        deployed_score: the metric of the deployed model.
        difference: the gain observed, in the metric's unit.
        ci_low: one-sided 1 - alpha lower bound of the true difference.
        ci_high: one-sided 1 - alpha upper bound.
        p_value: one-sided, of "the true loss is at least the margin".
        n_needed: samples for a pass with probability 0.8; None with margin 0.
        assumed_difference: the true difference that ``n_needed`` assumes: 0, or the one observed.
        margin: greatest acceptable loss.
        alpha: one-sided level.
        method: the interval's, in words.
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
    method: str

    def record(self, unit: Unit) -> Score:
        """As a certificate has it."""
        return Score(
            reference=self.reference_score,
            deployed=self.deployed_score,
            difference=self.difference,
            ci_low=self.ci_low,
            ci_high=self.ci_high,
            verdict=self.verdict,
            margin=self.margin,
            unit=unit,
        )


@dataclass(frozen=True)
class Limits:
    """Attributes: the greatest acceptable loss; the one-sided level of bounds; that at which a loss is no chance."""

    margin: float
    alpha: float
    chance: float


def paired_test(
    metric: Metric,
    reference: Evidence,
    deployed: Evidence,
    margin: float,
    alpha: float = 0.05,
    replicates: int = REPLICATES,
    groups: Indexes | None = None,
    chance: float | None = None,
    sequential: bool = False,
) -> MetricTest:
    """Test that a metric worsens by less than ``margin`` from the reference to the deployed model.

    Args:
        metric: of a task.
        reference, deployed: the task's evidence of the two models on the same samples.
        margin: greatest acceptable loss, in the metric's unit: 0 <= margin < 1, or any number from 0 up where the unit
            is the labels'.
        alpha: one-sided level, 0 < alpha < 0.5.
        replicates: how often the samples are drawn, where they are.
        groups: of each sample, from 0 up, int64 [n]; None: every sample is independent of all others.
        chance: level at which a loss is more than chance; ``alpha`` when None.
        sequential: whether it may be read after every new batch of samples (:mod:`edgetl.certify.betting`).

    Raises:
        CertifyError: margin or alpha is out of range, samples or a metric that no such test is for, or a metric that is
            not defined on these samples.
    """
    check_limits(metric, margin, alpha)
    limits = Limits(margin, alpha, alpha if chance is None else chance)
    if sequential and (metric.right is None or metric.strata is not None or groups is not None):
        what = f"{metric.title}{'' if groups is None else ' of samples that belong together'} is judged at one reading"
        raise CertifyError(what, "leave --sequential out, or judge a share of right samples, each independent")
    if metric.right is None:
        return _bootstrapped(metric, reference, deployed, limits, replicates, groups)
    before, after = metric.right(reference), metric.right(deployed)
    if groups is not None:
        strata = None if metric.strata is None else metric.strata(reference)
        return _by_group(metric, (reference, deployed), strata, groups, limits, replicates)
    if metric.strata is None:
        counts = PairedCounts.from_right(before, after)
        return _sequential(counts, limits) if sequential else _exact(counts, limits)
    return _stratified(before, after, metric.strata(reference), limits, replicates)


def check_limits(metric: Metric, margin: float, alpha: float) -> None:
    """Check what a metric is held to.

    Raises:
        CertifyError: margin or alpha is out of range.
    """
    in_labels_unit = metric.unit == "labels"
    check_margin(0.0 if in_labels_unit else margin, alpha)
    if in_labels_unit and (not isinstance(margin, (int, float, np.number)) or not 0 <= margin < math.inf):
        raise CertifyError(
            f"margin {margin} is not a number from 0 up", f"give the greatest acceptable loss of {metric.title}"
        )


def _exact(counts: PairedCounts, limits: Limits) -> MetricTest:
    test = noninferiority(counts, limits.margin, limits.alpha, limits.chance)
    return MetricTest(
        verdict=test.verdict,
        reference_score=counts.reference_accuracy,
        deployed_score=counts.deployed_accuracy,
        difference=test.difference,
        ci_low=test.ci_low,
        ci_high=test.ci_high,
        p_value=test.p_value,
        n_needed=test.n_needed,
        assumed_difference=test.assumed_difference,
        margin=test.margin,
        alpha=test.alpha,
        method=paired.METHOD,
    )


def _sequential(counts: PairedCounts, limits: Limits) -> MetricTest:
    lost, gained, n, alpha, margin = counts.lost, counts.gained, counts.n, limits.alpha, limits.margin
    interval = betting.lower_bound(lost, gained, n, alpha), -betting.lower_bound(gained, lost, n, alpha)
    beyond = float(betting.loss_p(lost, gained)) < limits.chance
    verdict = verdict_of(counts.difference, interval, margin, beyond)
    needed, assumed = needed_at(counts, margin, alpha, verdict, betting.samples_needed)
    return MetricTest(
        verdict=verdict,
        reference_score=counts.reference_accuracy,
        deployed_score=counts.deployed_accuracy,
        difference=counts.difference,
        ci_low=interval[0],
        ci_high=interval[1],
        p_value=betting.margin_p(lost, gained, n, margin),
        n_needed=needed,
        assumed_difference=assumed,
        margin=float(margin),
        alpha=float(alpha),
        method=betting.METHOD,
    )


def _stratified(
    before: npt.NDArray[np.bool_],
    after: npt.NDArray[np.bool_],
    classes: Indexes,
    limits: Limits,
    replicates: int,
) -> MetricTest:
    sizes = np.bincount(classes)
    present = sizes > 0
    right, kept, lost, gained = (
        np.bincount(classes[chosen], minlength=len(sizes))[present]
        for chosen in (before, after, before & ~after, ~before & after)
    )
    sizes = sizes[present]
    scores = float(np.mean(right / sizes)), float(np.mean(kept / sizes))
    difference = float(np.mean((gained - lost) / sizes))
    return _judged(scores, difference, class_draws(lost, gained, sizes, replicates), len(classes), limits)


def _by_group(
    metric: Metric,
    models: tuple[Evidence, Evidence],
    strata: Indexes | None,
    groups: Indexes,
    limits: Limits,
    replicates: int,
) -> MetricTest:
    """The test of a share of right samples that belong together."""
    assert metric.right is not None, f"{metric.title} is no share of right samples"
    before, after = (metric.right(model).astype(np.int64) for model in models)
    difference, draws = share_draws(after - before, strata, groups, replicates)
    scores = metric.of(models[0]), metric.of(models[1])
    return _judged(scores, difference, draws, len(groups), limits, group_test.METHOD)


def _bootstrapped(
    metric: Metric,
    reference: Evidence,
    deployed: Evidence,
    limits: Limits,
    replicates: int,
    groups: Indexes | None,
) -> MetricTest:
    scores = metric.of(reference), metric.of(deployed)
    if not np.isfinite(scores).all():
        raise CertifyError(f"{metric.title} is not defined on these samples", metric.defined)
    difference = float(metric.gain(*(np.array([score]) for score in scores))[0])
    draws = metric_draws(metric, reference, deployed, replicates, groups)
    method = bootstrap.METHOD if groups is None else group_test.METHOD
    return _judged(scores, difference, draws, len(next(iter(reference.values()))), limits, method)


def _judged(
    scores: tuple[float, float],
    difference: float,
    draws: Draws,
    n: int,
    limits: Limits,
    method: str = bootstrap.METHOD,
) -> MetricTest:
    margin, alpha = limits.margin, limits.alpha
    ci_low, ci_high = bounds(*draws, alpha)
    ci_low, ci_high = min(ci_low, difference), max(ci_high, difference)
    verdict = verdict_of(difference, (ci_low, ci_high), margin, bounds(*draws, limits.chance)[1] < 0)
    n_needed, assumed = _n_needed(difference, (ci_low, _seen_low(draws, alpha)), n, margin, alpha, verdict)
    return MetricTest(
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
        method=method,
    )


def _seen_low(draws: Draws, alpha: float) -> float:
    """The lower bound that the samples seen would give alone: the unseen one moves both ends alike."""
    return float(np.quantile((draws[0] + draws[1]) / 2, alpha))


def _n_needed(
    difference: float, low: tuple[float, float], n: int, margin: float, alpha: float, verdict: Verdict
) -> tuple[int | None, float]:
    """Samples needed, and the true difference that is assumed.

    The spread of the samples seen shrinks with the square root of n, what the unseen one takes with n itself.

    Args:
        low: the lower bound, and the one that the samples seen would give alone.
    """
    if margin == 0:
        return None, 0.0
    critical = critical_value(alpha)
    seen = max(difference - low[1], 0.0) * (1 + NormalDist().inv_cdf(POWER) / critical) * math.sqrt(n)
    unseen = max(low[1] - low[0], 0.0) * n

    def needed(assumed: float) -> int:
        # seen / sqrt(m) + unseen / m = margin + assumed, solved for 1 / sqrt(m).
        room = max(margin + assumed, 1e-300)
        root = (seen + math.sqrt(seen**2 + 4 * unseen * room)) / (2 * room)
        return math.ceil(max(min(min(root, 1e9) ** 2, MOST_IMAGES), 1))

    if verdict != "underpowered" or needed(0.0) > n:
        return needed(0.0), 0.0
    assumed = min(difference, 0.0)
    return max(needed(assumed), n + 1), assumed
