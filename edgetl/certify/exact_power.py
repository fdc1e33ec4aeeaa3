"""The power of the paired test, from all tables that can occur: what ``n_needed`` promises.

The usual formula is off where few images decide: 71 % instead of 80 % at a discordance of 0.5 % and a margin of 2 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edgetl.certify.binomial import log_gamma
from edgetl.certify.score import critical_value, restricted_gained, score_statistic

Floats = npt.NDArray[np.float64]

MOST_EXPECTED = 150
"""With more discordant images than this to be expected, the formula is right to half a point."""
_DEVIATIONS = 5.0
_RATES = 32
#: Halvings by which tables are ordered: to a millionth of a difference.
_HALVINGS = 20


POWER = 0.8
"""The chance of a pass, for a deployed model with no true loss, that ``n_needed`` aims at."""

STEP = 1.02
"""By how much more images are tried at a time."""

MOST_IMAGES = 10**15
"""As many images as nobody has; what a margin next to 0 asks for."""


def images_needed(
    discordance: float, margin: float, alpha: float = 0.05, power: float = POWER, difference: float = 0.0
) -> int:
    """Images for which the test passes with probability ``power`` when the true difference is ``difference``.

    The usual formula for paired proportions, ((z_alpha s0 + z_power s1) / (margin + difference))^2, with the variance
    of one image under the alternative, s1^2 = discordance - difference^2, and under the null hypothesis,
    s0^2 = discordance. A discordance below twice the margin cannot be what the null hypothesis expects, since a true
    loss needs lost images; there s0^2 is Tango's restricted estimate, up to twice the margin. Never fewer images than
    it takes to pass without a single loss, and never more than ``MOST_IMAGES``.
    Where few images decide, more are added until the exact power is reached.

    Args:
        discordance: share of images that exactly one of the two models gets right, 0 to 1.
        margin: greatest acceptable loss, 0 < margin < 1.
        alpha: one-sided level.
        power: chance of a pass.
        difference: true difference; at -margin or below no number of images is enough.
    """
    lost, gained = np.asarray((discordance - difference) / 2), np.asarray((discordance + difference) / 2)
    expected = restricted_gained(lost, gained, 1.0, np.asarray(margin))
    restricted = float(2 * expected + margin * (1 - margin))
    null = math.sqrt(max(discordance, min(restricted, 2 * margin)))
    alternative = math.sqrt(max(discordance - difference**2, 0.0))
    z = critical_value(alpha) * null + NormalDist().inv_cdf(power) * alternative
    least = math.log(alpha) / math.log1p(-margin)
    room = margin + difference
    enough = min(z / room, math.sqrt(MOST_IMAGES)) if room > 0 else math.sqrt(MOST_IMAGES)
    needed = math.ceil(min(max(enough**2, least), MOST_IMAGES))
    while needed * discordance <= MOST_EXPECTED and power_of(needed, discordance, margin, alpha, difference) < power:
        needed = math.ceil(needed * STEP)
    return needed


@lru_cache(256)
def power_of(n: int, discordance: float, margin: float, alpha: float, difference: float) -> float:
    """The chance of a pass with ``n`` images.

    A table passes if no more than ``alpha`` of all samples with a true loss of the margin, whatever the share of gained
    images, are as favourable: the exact unconditional test of :mod:`edgetl.certify.unconditional`, with the supremum
    over all rates that are likely here.

    Args:
        n: images.
        discordance: share of images that exactly one of the two models gets right.
        margin: greatest acceptable loss, 0 < margin < 1.
        alpha: one-sided level.
        difference: the true one.
    """
    rates = (discordance - difference) / 2, (discordance + difference) / 2
    high = _edge(n, max(rates[1], 1 / n))
    worst = min(high / n, (1 - margin) / 2)
    gained, lost = (
        values.ravel() for values in np.mgrid[: high + 1, : _edge(n, worst + margin) + 1].astype(np.float64)
    )
    possible = gained + lost <= n
    gained, lost = gained[possible], lost[possible]
    low = _score_low(lost, gained, n, alpha)
    # Ties belong together: the most favourable first, each with all that are as favourable.
    order = np.argsort(-low, kind="stable")
    last = np.searchsorted(-low[order], -low + 1e-6, side="right")
    ways = _ways(lost, gained, n)
    sorted_ = ways[order], lost[order], gained[order]
    size = np.zeros(len(low) + 1)
    for rate in np.linspace(1e-9, worst, _RATES):
        np.maximum(size[1:], np.cumsum(_chances(*sorted_, n, (rate + margin, rate))), out=size[1:])
    passes = (size[last] <= alpha) & (low > -margin)
    return float(_chances(ways, lost, gained, n, rates)[passes].sum())


def chance_of(
    n: int,
    discordance: float,
    difference: float,
    holds: Callable[[Floats, Floats], npt.NDArray[np.bool_]],
) -> float:
    """The chance of a table of lost and gained images for which ``holds`` says so.

    Args:
        n: images.
        discordance, difference: as of :func:`power_of`.
        holds: numbers of lost and of gained images, float64 [tables] each → bool [tables].
    """
    rates = (discordance - difference) / 2, (discordance + difference) / 2
    edges = [_edge(n, max(rate, 1 / n)) + 1 for rate in rates]
    lost, gained = (values.ravel() for values in np.mgrid[: edges[0], : edges[1]].astype(np.float64))
    possible = gained + lost <= n
    lost, gained = lost[possible], gained[possible]
    return float(_chances(_ways(lost, gained, n), lost, gained, n, rates)[holds(lost, gained)].sum())


def _edge(n: int, rate: float) -> int:
    """A count that is hardly ever exceeded."""
    return min(n, math.ceil(n * rate + _DEVIATIONS * math.sqrt(n * rate) + _DEVIATIONS))


def _score_low(lost: Floats, gained: Floats, n: int, alpha: float) -> Floats:
    """Tango's lower bound of each table, by halving."""
    critical = critical_value(alpha)
    low, high = np.full_like(lost, -1.0), (gained - lost) / n
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        rejected = score_statistic(lost, gained, n, middle) > critical
        low, high = np.where(rejected, middle, low), np.where(rejected, high, middle)
    return low


def _ways(lost: Floats, gained: Floats, n: int) -> Floats:
    """Logarithms of the trinomial coefficients of tables."""
    steps = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, max(lost.max(), gained.max()) + 1)))])
    top = log_gamma(np.arange(n, n - (lost + gained).max() - 1, -1) + 1.0)
    ways = top[0] - top[(lost + gained).astype(np.int64)] - steps[lost.astype(np.int64)]
    return np.asarray(ways - steps[gained.astype(np.int64)])


def _chances(ways: Floats, lost: Floats, gained: Floats, n: int, rates: tuple[float, float]) -> Floats:
    """Trinomial probabilities of tables, whose images are lost or gained with these rates."""
    first, second = (max(rate, 1e-300) for rate in rates)
    rest = math.log(max(1 - first - second, 1e-300))
    terms = lost * (math.log(first) - rest) + gained * (math.log(second) - rest) + n * rest
    return np.asarray(np.exp(ways + terms))
