"""Is the comparison itself to be trusted? What the accuracies alone say about the reference and the deployed model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from edgetl.certify.certificate import images, percent, points
from edgetl.certify.gain import BASELINES, TransferGain
from edgetl.certify.paired import NonInferiority, PairedCounts
from edgetl.core.findings import Finding

Reproduced = tuple[float, float, int]

STATISTICAL = {"statistical": True}
"""Marks what is found from predictions alone, and so is found again whenever they are judged again."""
FLOAT_NOISE = 0.005
"""Share of the images whose prediction may change from one machine's arithmetic to another's."""
LEAST_SUSPICIOUS = 0.02
"""Compression that is proven to add more than this much accuracy (and more than the margin) is not believed."""
FAR_BELOW = 0.15
UNLIKELY = 1e-4


def reference_findings(reproduced: Reproduced | None) -> tuple[Finding, ...]:
    """Whether the reference still gives the metric that its training recorded.

    Args:
        reproduced: validation accuracy as training recorded it, the same measured again from the weights, both 0 to 1,
            and the number of images; None where it was not measured.

    Returns:
        A fatal finding if more than 0.5 % of the images and more than one are right in one and wrong in the other.
    """
    if reproduced is None:
        return ()
    recorded, measured, n = reproduced
    apart = abs(recorded - measured)
    if apart <= FLOAT_NOISE or round(apart * n) <= 1:
        return ()
    what = (
        f"Training recorded a validation accuracy of {percent(recorded)}; on the same {images(n)} the reference's "
        f"weights now give {percent(measured)}."
    )
    return (
        Finding(
            "reference-not-reproduced", what, (), {"recorded": recorded, "measured": measured, "n": n, **STATISTICAL}
        ),
    )


def gain_findings(test: NonInferiority) -> tuple[Finding, ...]:
    """A warning if the deployed model is proven better than its reference by more than the margin and 2 points."""
    least = max(test.margin, LEAST_SUSPICIOUS)
    if test.ci_low <= least:
        return ()
    what = (
        f"The deployed model is {points(test.difference, signed=False)} better than the reference, and with "
        f"{percent(1 - test.alpha, 0)} confidence more than {points(test.ci_low, signed=False)}: its labels, its "
        f"preprocessing or its weights may be wrong on the reference's side."
    )
    return (
        Finding("suspicious-gain", what, (), {"difference": test.difference, "ci_low": test.ci_low, **STATISTICAL}),
    )


def transfer_findings(gain: TransferGain | None, reference_accuracy: float) -> tuple[Finding, ...]:
    """A warning if the reference is proven worse than its baseline."""
    if gain is None or gain.helped != "worse":
        return ()
    what = (
        f"The reference is right on {percent(reference_accuracy)} of the images and {BASELINES[gain.kind]} on "
        f"{percent(gain.baseline_accuracy)}: the transfer cost {points(gain.gap, signed=False)}."
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


def far_below(counts: PairedCounts, reproduced: Reproduced | None) -> list[str]:
    """A note if the reference does far worse on the certify images than training's validation promised."""
    if reproduced is None:
        return []
    recorded, _, n = reproduced
    drop = recorded - counts.reference_accuracy
    if drop <= FAR_BELOW or two_sample_p(round(recorded * n), n, counts.both_right + counts.lost, counts.n) >= UNLIKELY:
        return []
    return [
        f"The reference is right on {percent(counts.reference_accuracy)} of the certify images, but on "
        f"{percent(recorded)} of the {n:,} of validation: the two are not alike, or training fitted validation."
    ]


def two_sample_p(first: int, n_first: int, second: int, n_second: int) -> float:
    """One-sided score test (pooled variance) that the second of two independent shares is lower; p."""
    pooled = (first + second) / (n_first + n_second)
    deviation = math.sqrt(pooled * (1 - pooled) * (1 / n_first + 1 / n_second))
    if deviation == 0:
        return 1.0
    return NormalDist().cdf(-(first / n_first - second / n_second) / deviation)
