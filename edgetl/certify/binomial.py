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
    """P(X <= k) for X ~ Binomial(n, p), elementwise with broadcasting.

    ``k`` below 0 gives 0 and ``k`` at or above ``n`` gives 1; ``p`` is in [0, 1]. Uses
    P(X <= k) = 1 - I_p(k + 1, n - k), with the regularised incomplete beta function I.
    """
    k, n, p = (np.asarray(value, dtype=np.float64) for value in (k, n, p))
    # Clamped so that the formula is defined everywhere; the ends are put right below.
    inside = np.clip(k, 0, np.maximum(n - 1, 0))
    size = np.maximum(n, 1)
    upper = 1 - incomplete_beta(inside + 1, size - inside, np.clip(p, 0, 1))
    return np.asarray(np.where(k < 0, 0.0, np.where(k >= n, 1.0, upper)))


def incomplete_beta(a: npt.ArrayLike, b: npt.ArrayLike, x: npt.ArrayLike) -> Floats:
    """Regularised incomplete beta function I_x(a, b), elementwise with broadcasting; a, b > 0, x in [0, 1]."""
    a, b, x = (np.asarray(value, dtype=np.float64) for value in (a, b, x))
    scale = log_gamma(a + b) - log_gamma(a) - log_gamma(b)
    with np.errstate(divide="ignore", invalid="ignore"):
        front = np.exp(scale + a * np.log(x) + b * np.log1p(-x))
    # The continued fraction converges fast on one side of the mean only; the other side is its mirror image.
    mirrored = x > (a + 1) / (a + b + 2)
    near_a, near_b = np.where(mirrored, b, a), np.where(mirrored, a, b)
    tail = front * _continued_fraction(near_a, near_b, np.where(mirrored, 1 - x, x)) / near_a
    value = np.where(mirrored, 1 - tail, tail)
    return np.asarray(np.where(x <= 0, 0.0, np.where(x >= 1, 1.0, np.clip(value, 0.0, 1.0))))


def _continued_fraction(a: Floats, b: Floats, x: Floats) -> Floats:
    """Lentz's evaluation of the continued fraction of the incomplete beta function (DLMF 8.17.22)."""
    c = np.ones_like(x)
    d = 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / _away_from_zero(1 + even * d)
        c = _away_from_zero(1 + even / c)
        value = value * d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / _away_from_zero(1 + odd * d)
        c = _away_from_zero(1 + odd / c)
        change = d * c
        value = value * change
        if np.all(np.abs(change - 1) < _CONVERGED):
            break
    return value


def _away_from_zero(value: Floats) -> Floats:
    return np.asarray(np.where(np.abs(value) < _TINY, _TINY, value))
