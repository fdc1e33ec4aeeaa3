"""What compression did to the probabilities: divergence, calibration, and thresholds set on the trained model.

Everything comes from a few numbers for each image, so that a certificate can be made again without the logits, and from
one number for each rung of the ladder. Logits are read in blocks of rows; memory beyond them does not grow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.certify.bootstrap import REPLICATES, bounds, resampled_sums
from edgetl.certify.groups import group_sums
from edgetl.certify.paired import Indexes
from edgetl.core.certificate_parts import Probabilities, Threshold
from edgetl.tasks.logits import finite, log_softmax, row_blocks

Floats = npt.NDArray[np.float64]
PerImage = npt.NDArray[np.float32]

COLUMNS = (
    "reference_confidence", "deployed_confidence", "reference_nll", "deployed_nll",
    "reference_brier", "deployed_brier", "kl",
)  # fmt: skip
"""What is kept for each image, in this order: probability of the top label, -log of the true label's (nats), squared
distance of the probabilities to the one-hot label (0 to 2), and KL(reference || deployed) in nats."""

BINS = 15
KEPT = 0.9


@dataclass(frozen=True)
class Step:
    """How far a rung's logits are from those of the rung above it.

    Attributes:
        logit_distance: mean over the images of the L2 distance between the two centred logits (less their mean),
            divided by the L2 norm of the centred logits above.
        kl: mean KL(above || below) in nats.
    """

    logit_distance: float
    kl: float


@dataclass(frozen=True, eq=False)
class LogitEvidence:
    """What logits say, in few enough numbers to be kept.

    Attributes:
        per_image: float32 [n, 7], the columns of :data:`COLUMNS`; None unless reference and deployed gave logits.
        steps: by name, each rung (and "deployed") whose logits are known together with those of the one above it.

    Raises:
        CertifyError: ``per_image`` has another shape or holds numbers that are not finite.
    """

    per_image: PerImage | None = None
    steps: Mapping[str, Step] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = self.per_image
        if values is not None and (np.ndim(values) != 2 or values.shape[1] != len(COLUMNS)):
            raise CertifyError(f"per_image has the shape {np.shape(values)} instead of (samples, {len(COLUMNS)})")
        figures = [number for step in self.steps.values() for number in (step.logit_distance, step.kl)]
        if not np.isfinite(figures).all() or (values is not None and not np.isfinite(values).all()):
            raise CertifyError("what was kept of the logits is not finite")


def logit_evidence(logits: Mapping[str, npt.ArrayLike], labels: Indexes, order: Sequence[str]) -> LogitEvidence:
    """Reduce logits to what the certificate needs of them.

    Args:
        logits: by name of the model, float [n, classes], float16 included; any may be missing.
        labels: true class indexes [n].
        order: names of all models, from "reference" down to "deployed".

    Raises:
        CertifyError: a name is not in ``order``, shapes differ, logits are NaN, or a label has no column.
    """
    known = {name: _checked(values, name, len(labels)) for name, values in logits.items()}
    unknown = [name for name in known if name not in order]
    if unknown:
        raise CertifyError(f"logits are given for '{unknown[0]}', which is no rung", f"choose from {', '.join(order)}")
    if len({values.shape for values in known.values()}) > 1:
        shapes = ", ".join(f"{name} {values.shape}" for name, values in known.items())
        raise CertifyError(f"the logits have different shapes ({shapes})", "give one column for each class")
    if known and int(labels.max()) >= next(iter(known.values())).shape[1]:
        raise CertifyError(f"label {int(labels.max())} has no column in the logits")
    steps = {
        below: _step(known[above], known[below])
        for above, below in pairwise(order)
        if above in known and below in known
    }
    if "reference" not in known or "deployed" not in known:
        return LogitEvidence(None, steps)
    return LogitEvidence(_per_image(known["reference"], known["deployed"], labels), steps)


def _checked(values: npt.ArrayLike, name: str, n: int) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 2 or len(array) != n or array.dtype.kind not in "fiu":
        raise CertifyError(
            f"the logits of {name} are {array.dtype} of the shape {array.shape}", f"give floats ({n} samples, classes)"
        )
    if np.isnan(array).any():
        raise CertifyError(
            f"the logits of {name} contain NaN", "the model is numerically broken: try another precision"
        )
    return array


def _per_image(reference: npt.NDArray[Any], deployed: npt.NDArray[Any], labels: Indexes) -> PerImage:
    out = np.empty((len(labels), len(COLUMNS)), np.float32)
    for rows in row_blocks(*reference.shape):
        p, q = log_softmax(reference[rows]), log_softmax(deployed[rows])
        at = np.arange(len(p)), labels[rows]
        for model, logs in enumerate((p, q)):
            shares, true = np.exp(logs), logs[at]
            out[rows, model] = shares.max(axis=1)
            out[rows, 2 + model] = -true
            out[rows, 4 + model] = (shares**2).sum(axis=1) - 2 * np.exp(true) + 1
        out[rows, 6] = np.maximum(_kl(p, q), 0.0)
    return out


def _kl(p: Floats, q: Floats) -> Floats:
    """KL(p || q) of rows of log-probabilities, in nats."""
    return np.asarray((np.exp(p) * (p - q)).sum(axis=1))


def _step(above: npt.NDArray[Any], below: npt.NDArray[Any]) -> Step:
    distance = divergence = 0.0
    for rows in row_blocks(*above.shape):
        upper, lower = finite(above[rows]), finite(below[rows])
        divergence += float(np.maximum(_kl(log_softmax(upper), log_softmax(lower)), 0.0).sum())
        upper -= upper.mean(axis=1, keepdims=True)
        lower -= lower.mean(axis=1, keepdims=True)
        norm, moved = np.linalg.norm(upper, axis=1), np.linalg.norm(lower - upper, axis=1)
        # Logits that are all equal have no direction: as good as unmoved, or moved by all there is.
        distance += float(np.where(norm > 0, moved / np.where(norm > 0, norm, 1.0), moved > 0).sum())
    return Step(distance / len(above), divergence / len(above))


def probability_shift(
    per_image: PerImage,
    reference: Indexes,
    deployed: Indexes,
    labels: Indexes,
    alpha: float = 0.05,
    groups: Indexes | None = None,
) -> Probabilities:
    """What happened to the probabilities between reference and deployed model; intervals are by group."""
    # A copy with contiguous columns in double precision: sums of 50,000 single-precision numbers lose digits.
    columns = dict(zip(COLUMNS, per_image.T.astype(np.float64), strict=True))
    before, after = reference == labels, deployed == labels
    change = columns["deployed_brier"] - columns["reference_brier"]
    moments = np.stack([np.ones_like(change), change], axis=1)
    moments = moments if groups is None else group_sums(moments, groups)
    sums = resampled_sums(moments, REPLICATES, np.random.default_rng(0))
    means = sums[:, 1] / sums[:, 0]
    low, high = bounds(means, means, alpha)
    return Probabilities(
        kl=float(columns["kl"].mean()),
        agreement=float(np.mean(reference == deployed)),
        reference_ece=expected_calibration_error(columns["reference_confidence"], before),
        deployed_ece=expected_calibration_error(columns["deployed_confidence"], after),
        reference_brier=float(columns["reference_brier"].mean()),
        deployed_brier=float(columns["deployed_brier"].mean()),
        brier_difference=float(change.mean()),
        brier_ci_low=low,
        brier_ci_high=high,
        reference_nll=float(columns["reference_nll"].mean()),
        deployed_nll=float(columns["deployed_nll"].mean()),
        threshold=threshold_shift(columns["reference_confidence"], columns["deployed_confidence"], before, after),
    )


def expected_calibration_error(confidence: Floats, right: npt.NDArray[np.bool_]) -> float:
    """Mean over the images of |accuracy - confidence| of their bin; bins of equal width, closed on the right.

    Args:
        confidence: probability of the predicted class, float64 [n].
        right: whether it is the true one, bool [n].
    """
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    excess = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(excess).sum() / len(confidence))


def threshold_shift(
    reference: Floats, deployed: Floats, before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]
) -> Threshold:
    """What becomes of a confidence threshold that was chosen on the trained model so that it keeps 90 % of the images.

    Args:
        reference: confidence of the trained model, float64 [n].
        deployed: that of the deployed model, float64 [n].
        before: whether the trained model is right, bool [n].
        after: whether the deployed model is right, bool [n].
    """
    least = math.ceil(KEPT * len(reference)) - 1
    unchanged, own = (float(np.sort(confidence)[::-1][least]) for confidence in (reference, deployed))
    keeps, still = reference >= unchanged, deployed >= unchanged
    return Threshold(
        kept=KEPT,
        reference=unchanged,
        deployed=own,
        shift=own - unchanged,
        deployed_kept=float(still.mean()),
        reference_accuracy=float(before[keeps].mean()),
        deployed_accuracy=float(after[still].mean()) if still.any() else None,
    )
