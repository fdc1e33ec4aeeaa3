"""How much of what the transfer gave did the deployed model keep, and did the transfer help at all?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.certify.bootstrap import REPLICATES, bounds, resampled_sums, times_unseen
from edgetl.certify.group_test import share_draws
from edgetl.certify.groups import group_sums
from edgetl.certify.paired import Indexes, PairedCounts, noninferiority
from edgetl.core.certificate_parts import TransferGain

BaselineKind = Literal["scratch", "probe"]
Helped = Literal["better", "not shown", "worse"]
Right = npt.NDArray[np.bool_]

BASELINES: Mapping[str, str] = {
    "scratch": "a model of equal budget trained from scratch",
    "probe": "a linear probe on the frozen backbone",
}


@dataclass(frozen=True, eq=False)
class Baseline:
    """What the transfer is measured against.

    Attributes:
        kind: scratch (a model trained from scratch with an equal budget) or probe (a linear probe).
        predictions: class indexes predicted for the certify images, integers [n].

    Raises:
        CertifyError: the kind is unknown.
    """

    kind: str
    predictions: npt.ArrayLike

    def __post_init__(self) -> None:
        if self.kind not in get_args(BaselineKind):
            raise CertifyError(f"baseline '{self.kind}' is unknown", f"choose one of {', '.join(BASELINES)}")


def transfer_gain(
    kind: str,
    baseline: Indexes,
    reference: Indexes,
    deployed: Indexes,
    labels: Indexes,
    alpha: float = 0.05,
    groups: Indexes | None = None,
) -> TransferGain:
    """Measure the gain of the transfer over a baseline, and the part of it that the deployed model retains.

    Args:
        kind: the baseline's.
        baseline: class indexes [n] predicted by it.
        reference: class indexes [n] predicted by the trained model.
        deployed: class indexes [n] predicted by the deployed model.
        labels: true class indexes [n].
        alpha: one-sided level of every bound.
        groups: of each sample, from 0 up, int64 [n]; None: every sample is independent of all others.
    """
    counts = PairedCounts.from_predictions(baseline, reference, labels)
    right = baseline == labels, reference == labels, deployed == labels
    gap_low, gap_high = _gain_bounds(right[0], right[1], alpha, groups)
    helped: Helped = "better" if gap_low > 0 else "worse" if gap_high < 0 else "not shown"
    retained, low, high = None, None, None
    if helped == "better":
        retained = float((np.sum(deployed == labels) - np.sum(baseline == labels)) / (counts.gained - counts.lost))
        low, high = _retained_bounds(right, alpha, groups)
        low, high = (None if low is None else min(low, retained)), (None if high is None else max(high, retained))
    return TransferGain(
        kind=cast(BaselineKind, kind),
        baseline_accuracy=counts.reference_accuracy,
        retained=retained,
        ci_low=low,
        ci_high=high,
        gap=0.0 - counts.difference,
        gap_ci_low=-gap_high,
        gap_ci_high=-gap_low,
        helped=helped,
    )


def _gain_bounds(before: Right, after: Right, alpha: float, groups: Indexes | None) -> tuple[float, float]:
    if groups is None:
        test = noninferiority(PairedCounts.from_right(before, after), 0.0, alpha)
        return test.ci_low, test.ci_high
    _, draws = share_draws(after.astype(np.int64) - before, None, groups, REPLICATES)
    return bounds(*draws, alpha)


def _retained_bounds(
    right: tuple[Right, Right, Right], alpha: float, groups: Indexes | None
) -> tuple[float | None, float | None]:
    """Bootstrap bounds, from which samples baseline, reference and deployed model get right.

    The unseen image (see :mod:`edgetl.certify.bootstrap`) is one that only the deployed model gets wrong, or right.
    """
    n, rng = len(right[0]), np.random.default_rng(0)
    if groups is None:
        baseline, reference, deployed = right
        patterns = np.bincount(baseline + 2 * reference + 4 * deployed, minlength=8)
        drawn = rng.multinomial(n, patterns / n, size=REPLICATES)
        sums = [drawn[:, (np.arange(8) >> bit) & 1 == 1].sum(axis=1) for bit in range(3)]
    else:
        sums = list(resampled_sums(group_sums(np.stack(right, axis=1).astype(np.float64), groups), REPLICATES, rng).T)
    baseline_right, reference_right, deployed_right = sums
    unseen = times_unseen(REPLICATES, rng) * (1 if groups is None else int(np.bincount(groups).max()))
    gain = reference_right - baseline_right
    # Without a gain the ratio could be anything, on either side.
    lost = _ratio(deployed_right - baseline_right - unseen, gain, -np.inf)
    won = _ratio(deployed_right - baseline_right + unseen, gain, np.inf)
    low, high = bounds(lost, won, alpha)
    return (low if np.isfinite(low) else None), (high if np.isfinite(high) else None)


def _ratio(above: npt.NDArray[Any], below: npt.NDArray[Any], otherwise: float) -> npt.NDArray[np.float64]:
    return np.asarray(np.where(below > 0, above / np.maximum(below, 1), otherwise))
