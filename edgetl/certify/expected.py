"""The loss to be expected of a classifier whose few samples hold too few flips to count."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.floating[Any]]


def expected_difference(reference: Logits, found: Logits, labels: npt.NDArray[np.int64]) -> float:
    """Difference of two accuracies to be expected if the noise of each image had fallen on any other alike; -1 to 1.

    On few images the flips that happen to occur say little: one image more or less is a point of accuracy. An image's
    margin is its true logit minus the greatest other one. What compression does to margins is a common factor, which
    flips nothing, and a rest; every image's margin is paired with every image's rest, and the sign counted (a
    two-sample U statistic, Hoeffding 1948). On 137 attempts with 133 or 179 search images it foretold the loss on
    certify images with a correlation of 0.88, counting flips with 0.63 (``benchmarks/search_estimators.py``).

    Args:
        reference, found: logits, float32 (n, classes).
        labels: true class indexes, int64 (n,).

    Returns:
        NaN where an answer is no number.
    """
    before, after = _margins(reference, labels), _margins(found, labels)
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return float("nan")
    factor = float(before @ after) / max(float(before @ before), 1e-12)
    rest = np.sort(after - factor * before)
    right = 1 - np.searchsorted(rest, -factor * before, side="right") / len(rest)
    return float(right.mean() - (before > 0).mean())


def _margins(logits: Logits, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    others = logits.astype(np.float64)
    rows = np.arange(len(labels))
    true = others[rows, labels].copy()
    others[rows, labels] = -np.inf
    return np.asarray(true - others.max(axis=1))
