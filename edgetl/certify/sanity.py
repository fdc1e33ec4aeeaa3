"""Is the comparison itself to be trusted? What the accuracies alone say about the reference and the deployed model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from edgetl.base.wording import amount, count, counted, figure, percent
from edgetl.certify.gain import BASELINES
from edgetl.certify.metric_test import MetricTest
from edgetl.certify.paired import PairedCounts
from edgetl.core.certificate_parts import TransferGain
from edgetl.core.findings import Finding
from edgetl.tasks import Metric

Reproduced = tuple[float, float, int]

STATISTICAL = {"statistical": True}
"""Marks what is found from predictions alone, and so is found again whenever they are judged again."""
FLOAT_NOISE = 0.005
"""Share of the images whose prediction may change from one machine's arithmetic to another's."""
LEAST_SUSPICIOUS = 0.02
"""Compression that is proven to add more than this much accuracy (and more than the margin) is not believed."""
FAR_BELOW = 0.15
SHARE = "share"
UNLIKELY = 1e-4


def reference_findings(reproduced: Reproduced | None, metric: Metric, sample: str) -> tuple[Finding, ...]:
    """Whether the reference still gives the metric that its training recorded.

    Args:
        reproduced: validation metric as training recorded it, the same measured again from the weights, and the number
            of samples; None where it was not measured.
        metric: which it is.
        sample: what a sample is called.

    Returns:
        A fatal finding if more than 0.5 % of the samples and more than one are right in one and wrong in the other, or,
        for a metric that is no share, if the two are more than 0.5 % apart.
    """
    if reproduced is None:
        return ()
    recorded, measured, n = reproduced
    apart, scale = abs(recorded - measured), 1.0 if metric.unit == SHARE else abs(recorded)
    if apart <= FLOAT_NOISE * scale or (metric.unit == SHARE and round(apart * n) <= 1):
        return ()
    what = (
        f"Training recorded a validation {metric.title} of {figure(recorded, metric.unit)}; on the same "
        f"{counted(n, sample)} the reference's weights now give {figure(measured, metric.unit)}."
    )
    return (
        Finding(
            "reference-not-reproduced", what, (), {"recorded": recorded, "measured": measured, "n": n, **STATISTICAL}
        ),
    )


def gain_findings(test: MetricTest, metric: Metric) -> tuple[Finding, ...]:
    """A warning if the deployed model is proven better than its reference by more than the margin and 2 points."""
    least = max(test.margin, LEAST_SUSPICIOUS)
    if metric.unit != SHARE or test.ci_low <= least:
        return ()
    what = (
        f"The deployed model is {amount(test.difference, SHARE)} better than the reference, and with "
        f"{percent(1 - test.alpha, 0)} confidence more than {amount(test.ci_low, SHARE)}: its labels, its "
        f"preprocessing or its weights may be wrong on the reference's side."
    )
    return (
        Finding("suspicious-gain", what, (), {"difference": test.difference, "ci_low": test.ci_low, **STATISTICAL}),
    )


def transfer_findings(gain: TransferGain | None, reference_accuracy: float, sample: str) -> tuple[Finding, ...]:
    """A warning if the reference is proven worse than its baseline."""
    if gain is None or gain.helped != "worse":
        return ()
    what = (
        f"The reference is right on {percent(reference_accuracy)} of the {sample}s and {BASELINES[gain.kind]} on "
        f"{percent(gain.baseline_accuracy)}: the transfer cost {amount(gain.gap, SHARE)}."
    )
    return (Finding("negative-transfer", what, (), {"gap": gain.gap, "gap_ci_low": gain.gap_ci_low, **STATISTICAL}),)


def together(given: Sequence[Finding], found: Sequence[Finding], tested: Sequence[str]) -> tuple[Finding, ...]:
    """All findings, the fatal ones first.

    Args:
        given: the caller's, perhaps those of an earlier certificate.
        found: those found here.
        tested: kinds that were tested here anew, so that what an earlier certificate said of them is outdated.
    """
    kept = [finding for finding in given if finding.kind not in tested]
    return tuple(sorted([*kept, *found], key=lambda finding: finding.severity != "fatal"))


def far_below(counts: PairedCounts, reproduced: Reproduced | None, sample: str) -> list[str]:
    """A note if the reference does far worse on the certify images than training's validation promised."""
    if reproduced is None:
        return []
    recorded, _, n = reproduced
    drop = recorded - counts.reference_accuracy
    if drop <= FAR_BELOW or two_sample_p(round(recorded * n), n, counts.both_right + counts.lost, counts.n) >= UNLIKELY:
        return []
    return [
        f"The reference is right on {percent(counts.reference_accuracy)} of the certify {sample}s, but on "
        f"{percent(recorded)} of the {count(n)} of validation: the two are not alike, or training fitted validation."
    ]


def two_sample_p(first: int, n_first: int, second: int, n_second: int) -> float:
    """One-sided score test (pooled variance) that the second of two independent shares is lower; p."""
    pooled = (first + second) / (n_first + n_second)
    deviation = math.sqrt(pooled * (1 - pooled) * (1 / n_first + 1 / n_second))
    if deviation == 0:
        return 1.0
    return NormalDist().cdf(-(first / n_first - second / n_second) / deviation)
