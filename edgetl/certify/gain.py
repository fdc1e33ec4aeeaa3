"""How much of what the transfer gave did the deployed model keep, and did the transfer help at all?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.certify.bootstrap import REPLICATES, bounds, times_unseen
from edgetl.certify.paired import Indexes, PairedCounts, noninferiority
from edgetl.core.certificate_parts import TransferGain

BaselineKind = Literal["scratch", "probe"]
Helped = Literal["better", "not shown", "worse"]

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
    kind: str, baseline: Indexes, reference: Indexes, deployed: Indexes, labels: Indexes, alpha: float = 0.05
) -> TransferGain:
    """Measure the gain of the transfer over a baseline, and the part of it that the deployed model retains.

    Args:
        kind: the baseline's.
        baseline: class indexes [n] predicted by it.
        reference: class indexes [n] predicted by the trained model.
        deployed: class indexes [n] predicted by the deployed model.
        labels: true class indexes [n].
        alpha: one-sided level of every bound.
    """
    counts = PairedCounts.from_predictions(baseline, reference, labels)
    test = noninferiority(counts, 0.0, alpha)
    helped: Helped = "better" if test.ci_low > 0 else "worse" if test.ci_high < 0 else "not shown"
    retained, low, high = None, None, None
    if helped == "better":
        retained = float((np.sum(deployed == labels) - np.sum(baseline == labels)) / (counts.gained - counts.lost))
        low, high = _retained_bounds(baseline == labels, reference == labels, deployed == labels, alpha)
        low, high = (None if low is None else min(low, retained)), (None if high is None else max(high, retained))
    return TransferGain(
        kind=cast(BaselineKind, kind),
        baseline_accuracy=counts.reference_accuracy,
        retained=retained,
        ci_low=low,
        ci_high=high,
        gap=0.0 - test.difference,
        gap_ci_low=-test.ci_high,
        gap_ci_high=-test.ci_low,
        helped=helped,
    )


def _retained_bounds(
    baseline: npt.NDArray[np.bool_], reference: npt.NDArray[np.bool_], deployed: npt.NDArray[np.bool_], alpha: float
) -> tuple[float | None, float | None]:
    """Bootstrap bounds, from the counts of the 8 patterns of right and wrong.

    The unseen image (see :mod:`edgetl.certify.bootstrap`) is one that only the deployed model gets wrong, or right.
    """
    patterns = np.bincount(baseline + 2 * reference + 4 * deployed, minlength=8)
    n, rng = len(baseline), np.random.default_rng(0)
    drawn = rng.multinomial(n, patterns / n, size=REPLICATES)
    baseline_right, reference_right, deployed_right = (
        drawn[:, (np.arange(8) >> bit) & 1 == 1].sum(axis=1) for bit in range(3)
    )
    unseen = times_unseen(REPLICATES, rng)
    gain = reference_right - baseline_right
    # Without a gain the ratio could be anything, on either side.
    lost = _ratio(deployed_right - baseline_right - unseen, gain, -np.inf)
    won = _ratio(deployed_right - baseline_right + unseen, gain, np.inf)
    low, high = bounds(lost, won, alpha)
    return (low if np.isfinite(low) else None), (high if np.isfinite(high) else None)


def _ratio(above: npt.NDArray[np.float64], below: npt.NDArray[np.int64], otherwise: float) -> npt.NDArray[np.float64]:
    return np.asarray(np.where(below > 0, above / np.maximum(below, 1), otherwise))
