"""Binomial probabilities in numpy alone, because a device has no scipy.

Accuracy: relative errors near 1e-9 for n up to 10^6, which is far below anything a verdict can depend on.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)
_SHIFT = 10
_CONVERGED = 1e-13
_MOST_TERMS = 100_000
_TINY = 1e-300


def log_gamma(x: npt.ArrayLike) -> Floats:
    """Natural logarithm of the gamma function for ``x`` > 0, elementwise (Stirling's series at ``x`` + 10)."""
    x = np.asarray(x, dtype=np.float64)
    y = x + _SHIFT
    series = np.zeros_like(y)
    for power, coefficient in enumerate(_STIRLING):
        series += coefficient / y ** (2 * power + 1)
    product = np.ones_like(y)
    for step in range(_SHIFT):
        product *= x + step
    return np.asarray((y - 0.5) * np.log(y) - y + 0.5 * np.log(2 * np.pi) + series - np.log(product))


def binomial_pmf(k: npt.ArrayLike, n: npt.ArrayLike, p: npt.ArrayLike) -> Floats:
    """P(X = k) for X ~ Binomial(n, p), elementwise with broadcasting; 0 <= k <= n, 0 < p < 1."""
    k, n, p = (np.asarray(value, dtype=np.float64) for value in (k, n, p))
    coefficient = log_gamma(n + 1) - log_gamma(k + 1) - log_gamma(n - k + 1)
    return np.asarray(np.exp(coefficient + k * np.log(p) + (n - k) * np.log1p(-p)))


def binomial_cdf(k: npt.ArrayLike, n: npt.ArrayLike, p: npt.ArrayLike) -> Floats:
    """P(X <= k) for X ~ Binomial(n, p), elementwise with broadcasting; small values keep their relative accuracy.

    ``k`` below 0 gives 0 and ``k`` at or above ``n`` gives 1; ``p`` is in [0, 1]. Uses
    P(X <= k) = 1 - I_p(k + 1, n - k), with I the regularised incomplete beta function.
    """
    k, n, p = (np.asarray(value, dtype=np.float64) for value in (k, n, p))
    # Clamped so that the formula is defined everywhere; the ends are put right below.
    inside = np.clip(k, 0, np.maximum(n - 1, 0))
    a, b = inside + 1, np.maximum(n, 1) - inside
    scale = log_gamma(a + b) - log_gamma(a) - log_gamma(b)
    with np.errstate(divide="ignore", invalid="ignore"):
        front = np.exp(scale + a * np.log(p) + b * np.log1p(-p))
    # The continued fraction converges fast on one side of the mean only; the other side is its mirror image.
    mirrored = p > (a + 1) / (a + b + 2)
    near, far = np.where(mirrored, b, a), np.where(mirrored, a, b)
    tail = front * _continued_fraction(near, far, np.where(mirrored, 1 - p, p)) / near
    value = np.clip(np.where(mirrored, tail, 1 - tail), 0.0, 1.0)
    value = np.where(p <= 0, 1.0, np.where(p >= 1, 0.0, value))
    return np.asarray(np.where(k < 0, 0.0, np.where(k >= n, 1.0, value)))


def _continued_fraction(a: Floats, b: Floats, x: Floats) -> Floats:
    """Lentz's evaluation of the continued fraction of the incomplete beta function (DLMF 8.17.22)."""
    c = np.ones_like(x)
    d = 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = d
    # A fraction that has converged is left alone: further terms would only add rounding.
    open_ = np.ones(np.shape(value), dtype=bool)
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / _away_from_zero(1 + even * d)
        c = _away_from_zero(1 + even / c)
        value = np.where(open_, value * d * c, value)
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / _away_from_zero(1 + odd * d)
        c = _away_from_zero(1 + odd / c)
        change = d * c
        value = np.where(open_, value * change, value)
        open_ &= np.abs(change - 1) >= _CONVERGED
        if not open_.any():
            break
    return value


def _away_from_zero(value: Floats) -> Floats:
    return np.asarray(np.where(np.abs(value) < _TINY, _TINY, value))


def mcnemar_loss(lost: npt.ArrayLike, gained: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Exact one-sided McNemar p of more losses than gains: P(X >= lost) for X ~ Binomial(lost + gained, 1/2)."""
    lost, gained = np.asarray(lost), np.asarray(gained)
    # The same by symmetry of the binomial at 1/2, and accurate for the smallest p.
    return binomial_cdf(gained, lost + gained, 0.5)
