"""An exact bound on the true difference, for the few discordant pairs where the score bound is too bold.

With few discordant pairs Tango's test rejects too often: at a true loss of exactly 1 point and no gains, 268 images
without a single loss pass it, which happens in 6.8 % of samples, not 5 %. The bound here is too high in at most
``alpha`` of samples. It is the exact unconditional bound in the sense of Buehler (1957), with the score bound as the
statistic that orders the possible tables, as Kabaila and Lloyd (1997) recommend:

    low = the greatest D such that  sup over q of  P_{D,q}(score bound >= the one observed)  <=  alpha

where q = P(gained) and P(lost) = q - D. The supremum runs over a confidence interval of q rather than over all of
[0, 1], and the chance that q lies outside is added to the probability (Berger and Boos 1994), so the guarantee stays.

References:
    R. J. Buehler (1957), Journal of the American Statistical Association 52, 482-493.
    P. Kabaila and C. J. Lloyd (1997), Australian Journal of Statistics 39, 193-204.
    R. L. Berger and D. D. Boos (1994), Journal of the American Statistical Association 89, 1012-1016.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edgetl.certify.binomial import binomial_cdf, binomial_pmf
from edgetl.certify.score import bisect, critical_value, score_lower_bound, score_statistic

MOST_DISCORDANT = 200
"""Beyond this many discordant pairs the score bound is used alone: its size is then 5.03 % at most for alpha 5 %."""

_OUTSIDE_SHARE = 1 / 500
_CUT_SHARE = 1 / 1000
_GRID = 48
_BAND = 1e-7


@dataclass(frozen=True)
class Tail:
    """P(a table at least as favourable as the one observed), as a function of the true difference.

    Attributes:
        n: images.
        alpha: one-sided level that orders the tables.
        score_low: score bound of the observed table.
        low: lower end of the confidence interval of P(gained).
        high: its upper end.
        outside: chance that P(gained) lies outside that interval, and what the windows cut off.
        gained: float64 [g], the numbers of gained images that matter.
        most_lost: float64 [g], for each of them the most losses that are as favourable as what was observed; -1: none.
    """

    n: int
    alpha: float
    score_low: float
    low: float
    high: float
    outside: float
    gained: npt.NDArray[np.float64]
    most_lost: npt.NDArray[np.float64]

    def probability(self, difference: float) -> float:
        """The greatest probability over the nuisance rate P(gained); grows with ``difference``."""
        low, high = max(self.low, difference), min(self.high, (1 + difference) / 2)
        if low > high:
            return self.outside
        rates = np.linspace(low, high, _GRID)[:, None]
        lost_given_not_gained = np.clip((rates - difference) / (1 - rates), 0.0, 1.0)
        at_most = binomial_cdf(self.most_lost, self.n - self.gained, lost_given_not_gained)
        chances = binomial_pmf(self.gained, self.n, rates)
        return float((chances * at_most).sum(axis=1).max()) + self.outside


def tail(lost: int, gained: int, n: int, alpha: float) -> Tail:
    """Prepare the tail probability of one observed table."""
    score_low = score_lower_bound(lost, gained, n, alpha)
    outside = alpha * _OUTSIDE_SHARE
    low, high = _rate_interval(gained, n, outside)
    counts = _window(n, low, high, outside * _CUT_SHARE)
    return Tail(
        n=n,
        alpha=alpha,
        score_low=score_low,
        low=low,
        high=high,
        outside=outside * (1 + 2 * _CUT_SHARE),
        gained=counts,
        most_lost=_most_lost(counts, n, score_low, alpha),
    )


def cautious_lower_bound(lost: int, gained: int, n: int, alpha: float) -> float:
    """The lesser of the score bound and the exact unconditional bound, one-sided at ``alpha``.

    Args:
        lost: images that only the reference gets right.
        gained: images that only the deployed model gets right.
        n: images.
        alpha: one-sided level, in (0, 0.5).
    """
    if lost + gained > MOST_DISCORDANT or lost == n:
        return score_lower_bound(lost, gained, n, alpha)
    prepared = tail(lost, gained, n, alpha)
    if prepared.probability(prepared.score_low) <= alpha:
        return prepared.score_low
    return _solve(prepared, (gained - lost) / n)


def _solve(prepared: Tail, observed: float) -> float:
    """The difference at which the tail probability is alpha, from just below."""
    critical = critical_value(prepared.alpha)

    # On the normal scale the tail probability is almost a straight line. Aimed half a band below alpha, so that
    # whatever lies within the band is at most alpha.
    def excess(difference: float) -> float:
        quantile = NormalDist().inv_cdf(min(prepared.probability(difference), 1 - 1e-15))
        return quantile + critical + _BAND / 2

    high = prepared.score_low
    at_high = excess(high)
    step = 1.1 * at_high * (observed - high) / critical
    low = max(high - step, -1.0)
    while (at_low := excess(low)) > 0:
        high, at_high, step = low, at_low, 2 * step
        low = max(high - step, -1.0)
    return _false_position(excess, (low, at_low), (high, at_high))


def _false_position(excess: Callable[[float], float], low: tuple[float, float], high: tuple[float, float]) -> float:
    """Illinois's method; each end is (place, excess there), and the lower one, which is not in excess, is returned."""
    streak = 0
    for _ in range(100):
        if low[1] >= -_BAND / 2:
            break
        # An end that stays twice in a row is weighted down, or the other one would only creep towards the root.
        fall = low[1] / 2 ** max(-streak - 1, 0)
        rise = high[1] / 2 ** max(streak - 1, 0)
        middle = low[0] - (high[0] - low[0]) * fall / (rise - fall)
        value = excess(middle)
        if value <= _BAND / 2:
            low, streak = (middle, value), max(streak, 0) + 1
        else:
            high, streak = (middle, value), min(streak, 0) - 1
    return low[0]


def _rate_interval(count: int, n: int, outside: float) -> tuple[float, float]:
    """Interval that misses the true rate with probability at most ``outside`` (Chernoff's bound, Hoeffding 1963)."""
    observed, least = count / n, math.log(2 / outside) / n

    def too_low(rate: float) -> bool:
        return _divergence(observed, rate) > least

    def not_too_high(rate: float) -> bool:
        return _divergence(observed, rate) <= least

    low = bisect(too_low, 1e-300, observed) if count else 1e-300
    high = bisect(not_too_high, observed, 1.0) if count < n else 1.0
    return low, min(high, 1 - 1e-12)


def _divergence(observed: float, rate: float) -> float:
    """Kullback-Leibler divergence between two Bernoulli distributions, in nats."""
    first = observed * math.log(observed / rate) if observed > 0 else 0.0
    second = (1 - observed) * (math.log1p(-observed) - math.log1p(-rate)) if observed < 1 else 0.0
    return first + second


def _window(n: int, low: float, high: float, cut: float) -> npt.NDArray[np.float64]:
    """All counts but those that, at either end, have a probability below ``cut`` under every rate in the interval."""
    counts = np.arange(n + 1, dtype=np.float64)
    observed = counts / n
    nearest = np.clip(observed, low, high)
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = np.where(observed > 0, observed * np.log(observed / nearest), 0.0) + np.where(
            observed < 1, (1 - observed) * (np.log1p(-observed) - np.log1p(-nearest)), 0.0
        )
    return counts[n * divergence <= -math.log(cut)]


def _most_lost(gained: npt.NDArray[np.float64], n: int, score_low: float, alpha: float) -> npt.NDArray[np.float64]:
    """For each number of gained images the greatest number of losses whose score bound is at least ``score_low``."""
    # Ties with the observed table belong to the region; 1e-9 is well above the rounding of the statistic.
    critical = critical_value(alpha) - 1e-9
    low, high = np.full_like(gained, -1.0), n - gained + 1
    while np.any(high - low > 1):
        middle = np.floor((low + high) / 2)
        # The statistic falls with every loss, so halving finds the edge.
        favourable = score_statistic(np.maximum(middle, 0), gained, n, score_low) >= critical
        moving = high - low > 1
        low = np.where(moving & favourable, middle, low)
        high = np.where(moving & ~favourable, middle, high)
    return low
