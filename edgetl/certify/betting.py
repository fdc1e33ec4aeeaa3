"""A test that may be read after every new batch of samples, as often as one likes.

A gambler starts with a capital of 1 and bets, sample by sample, that the deployed model loses less than D. As long as
it truly loses D or more no bet is better than fair, so the capital ever reaches 1 / alpha with probability alpha at
most (J. Ville 1939), however often somebody looks and whenever he stops. The differences that are not refuted so are a
confidence sequence for a bounded mean (I. Waudby-Smith and A. Ramdas 2024, "Estimating means of bounded random
variables by betting", Journal of the Royal Statistical Society B 86, 1-27, where this is the grid Kelly strategy): the
capital is divided among :data:`STAKES`, each of which stays what it is, so that it depends on how many samples were
lost and gained and not on their order.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from edgetl.certify.exact_power import MOST_IMAGES, POWER, chance_of
from edgetl.certify.score import bisect

Floats = npt.NDArray[np.float64]

#: Shares of the capital that a lost sample may take. Fewer cost less where one of them is right.
STAKES = (0.03, 0.08, 0.2, 0.4, 0.65, 0.9)
METHOD = "betting confidence sequence, which may be read any number of times (Waudby-Smith and Ramdas 2024)"
#: Beyond so many samples a pass is not planned for: tables grow with them.
_MOST_PLANNED = 200_000


def log_capital(lost: npt.ArrayLike, gained: npt.ArrayLike, n: npt.ArrayLike, difference: float) -> Floats:
    """Logarithm of the capital of who bets that the true difference is above ``difference``, elementwise.

    Args:
        lost, gained: samples that only the reference, or only the deployed model, gets right.
        n: samples.
        difference: deployed minus reference, above -1 and below 1.
    """
    lost, gained, n = (np.asarray(values, np.float64)[..., None] for values in (lost, gained, n))
    stakes = np.array(STAKES)
    # A sample multiplies the capital by 1 + stake (d - D) / (1 + D), and leaves 1 - stake of it where d is -1.
    same, gain = (stakes * (step - difference) / (1 + difference) for step in (0.0, 1.0))
    ends = lost * np.log1p(-stakes) + gained * np.log1p(gain) + (n - lost - gained) * np.log1p(same)
    top = ends.max(axis=-1, keepdims=True)
    return np.asarray(top[..., 0] + np.log(np.exp(ends - top).mean(axis=-1)))


def lower_bound(lost: int, gained: int, n: int, alpha: float) -> float:
    """The lower end of the confidence sequence after these samples, one-sided at ``alpha``."""

    def refuted(difference: float) -> bool:
        return difference <= -1 or float(log_capital(lost, gained, n, difference)) >= -math.log(alpha)

    return bisect(refuted, -1.0, (gained - lost) / n)


def loss_p(lost: npt.ArrayLike, gained: npt.ArrayLike) -> Floats:
    """A p-value of "no more is lost than gained" that holds at every look: 1 / capital of who bets on a loss."""
    lost, gained = np.asarray(lost), np.asarray(gained)
    return np.asarray(np.minimum(np.exp(-log_capital(gained, lost, lost + gained, 0.0)), 1.0))


def margin_p(lost: int, gained: int, n: int, margin: float) -> float:
    """The same of "the true loss is at least the margin"."""
    return min(math.exp(-float(log_capital(lost, gained, n, -margin))), 1.0)


@lru_cache(256)
def samples_needed(discordance: float, margin: float, alpha: float, difference: float = 0.0) -> int:
    """Samples after which the test has passed with probability 0.8.

    Args:
        discordance: share of samples that exactly one of the two models gets right.
        margin: greatest acceptable loss, 0 < margin < 1.
        alpha: one-sided level.
        difference: the true one; at -margin or below no number of samples is enough.
    """

    def chance(n: int) -> float:
        return chance_of(n, discordance, difference, lambda lost, gained: _passes(lost, gained, n, margin, alpha))

    low, high = 0, 64
    while chance(high) < POWER:
        low, high = high, high * 2
        if high > _MOST_PLANNED:
            return MOST_IMAGES
    while high - low > max(low // 100, 1):
        middle = (low + high) // 2
        low, high = (low, middle) if chance(middle) >= POWER else (middle, high)
    return high


def _passes(lost: Floats, gained: Floats, n: int, margin: float, alpha: float) -> npt.NDArray[np.bool_]:
    return np.asarray(log_capital(lost, gained, n, -margin) >= -math.log(alpha))
