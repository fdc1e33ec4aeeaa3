"""Tango's score test for the difference of two paired proportions.

Source: T. Tango (1998), "Equivalence test and confidence interval for the difference in proportions for the
paired-sample design", Statistics in Medicine 17(8), 891-908, equations 24 to 26.

Every difference in this package is deployed minus reference, a fraction: -0.01 is a loss of one point. Every
alpha is one-sided, so an interval made of two bounds at ``alpha`` is a two-sided 1 - 2 alpha interval.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def critical_value(alpha: float) -> float:
    """Standard normal quantile at 1 - ``alpha``."""
    return -NormalDist().inv_cdf(alpha)


def restricted_gained(lost: Floats, gained: Floats, n: Floats | float, loss: Floats) -> Floats:
    """Maximum-likelihood estimate of P(gained) when P(lost) - P(gained) is known to be ``loss`` >= 0.

    The larger root of 2 n q^2 + b q - gained loss (1 - loss) = 0 with
    b = (2 n - lost + gained) loss - lost - gained. Of the two forms of that root the one without cancellation
    is taken.
    """
    b = (2 * n - lost + gained) * loss - (lost + gained)
    product = gained * loss * (1 - loss)
    root = np.sqrt(b * b + 8 * n * product)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(b > 0, 2 * product / (b + root), (root - b) / (4 * n))


def score_statistic(lost: npt.ArrayLike, gained: npt.ArrayLike, n: npt.ArrayLike, difference: npt.ArrayLike) -> Floats:
    """Tango's Z, elementwise with broadcasting: how far the data lie above a true ``difference``.

    Approximately standard normal when ``difference`` is true; falls as ``difference`` or ``lost`` grow and rises with
    ``gained``. At ``difference`` 0 it is McNemar's (gained - lost) / sqrt(gained + lost), and 0 where nothing differs.

    Args:
        lost: images that only the reference gets right.
        gained: images that only the deployed model gets right.
        n: images.
        difference: hypothetical true difference, in [-1, 1].
    """
    lost, gained, n, difference = (np.asarray(v, dtype=np.float64) for v in (lost, gained, n, difference))
    # A gain is a loss with the two models exchanged; only losses are then ever computed.
    is_loss = difference <= 0
    fewer, more = np.where(is_loss, gained, lost), np.where(is_loss, lost, gained)
    loss = np.abs(difference)
    variance = n * (2 * restricted_gained(more, fewer, n, loss) + loss * (1 - loss))
    distance = fewer - more + n * loss
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(distance == 0, 0.0, distance / np.sqrt(variance))
    return np.where(is_loss, z, -z)


def score_interval(lost: int, gained: int, n: int, alpha: float) -> tuple[float, float]:
    """Tango's score interval for the true difference, deployed minus reference.

    Both bounds are one-sided at ``alpha``; together they are the two-sided 1 - 2 ``alpha`` interval. Defined for every
    table, also without any discordance, where the bounds are +-z^2 / (n + z^2). Found by bisection to the last bit.
    Each bound is given on its cautious side.
    """
    return score_lower_bound(lost, gained, n, alpha), -score_lower_bound(gained, lost, n, alpha)


def score_lower_bound(lost: int, gained: int, n: int, alpha: float) -> float:
    """The lower bound of :func:`score_interval`: the greatest difference that the score test still rejects."""
    critical = critical_value(alpha)

    def rejected(difference: float) -> bool:
        return float(score_statistic(lost, gained, n, difference)) > critical

    return bisect(rejected, -1.0, (gained - lost) / n)


def bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The greatest float from ``low`` for which ``holds``, where it holds below some point and not above it."""
    while True:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            return low
        if holds(middle):
            low = middle
        else:
            high = middle
