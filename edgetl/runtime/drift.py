"""Do samples still look like those that were certified? A test that may be looked at after every sample.

For each characteristic a new sample gets a conformal p-value: its rank among the certified samples and all that came
since, ties broken at random. As long as all of them are exchangeable, these are independent and uniform (Vovk,
Gammerman and Shafer 2022, "Algorithmic Learning in a Random World", chapter 8). Bets against that multiply to a
martingale: bet after bet of the shape 1 + e * phi(p), with phi the first two Legendre polynomials on [0, 1], so that a
shift to either side, and to or from the middle, is seen; a share of the capital moves between the bets at each step
(the "simple jumper" of Vovk et al. 2021, "Retrain or not retrain"). Martingales that begin after 0, 1, 2, 4, 8 …
samples are added up with weights whose sum is 1, so that what was lost while nothing had changed weighs little when
something does; those of all characteristics are averaged. The outcome is a nonnegative martingale that begins at 1: it
ever reaches 1 / alpha with a probability of alpha at most (Ville 1939), however often it is looked at.

So that memory is bounded, the test begins anew with the certified samples alone after ``SEGMENT`` samples, and the
k-th segment is held to alpha / 2^k: over all of them the probability of a false alarm is alpha at most.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.core.sketch import Sketch

Floats = npt.NDArray[np.float64]
#: Samples after which the test begins anew.
SEGMENT = 16_384
#: Martingales of one segment: they begin after 0, 1, 2, 4, … samples.
_STARTS = np.array([0, *(1 << np.arange(SEGMENT.bit_length() - 1))])
#: That of the j-th: 1 / ((j + 1) (j + 2)), whose sum is below 1; the rest is never bet.
_WEIGHTS = 1 / ((np.arange(len(_STARTS)) + 1) * (np.arange(len(_STARTS)) + 2))
#: Factors of the first and of the second polynomial, a bet a row; none of them makes a payoff negative.
_BETS = np.array([(0, 0), (0.5, 0), (-0.5, 0), (0.95, 0), (-0.95, 0), (0, 0.95), (0, 1.9), (0, -0.9)])
#: Share of the capital that is dealt out anew at each step.
_JUMP = 0.01
#: Far above any threshold: capital is not multiplied beyond it.
_ENOUGH = 1e200


@dataclass(frozen=True)
class Departure:
    """How a characteristic of what was seen compares with the certified samples.

    Attributes:
        name: which it is.
        evidence: of its own martingale; 1 at first, large where it departs.
        certified, seen: medians; ``seen`` of this segment's samples.
    """

    name: str
    evidence: float
    certified: float
    seen: float


@dataclass
class DriftTest:
    """The test's state; :meth:`add` a sample at a time, in the order in which they come.

    Attributes:
        sketch: what was certified.
        alpha: the probability of a false alarm ever, 0 < alpha < 0.5.
        seed: of the random ties.
        n: samples seen.
        alarm_at: the number of the sample that raised the alarm, from 1; None so far. It stays.
    """

    sketch: Sketch
    alpha: float = 0.01
    seed: int = 0
    n: int = 0
    alarm_at: int | None = None
    _pools: dict[str, list[float]] = field(default_factory=dict, repr=False)
    _capital: Floats = field(default_factory=lambda: np.ones(0), repr=False)
    _seen: dict[str, list[float]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise CertifyError(f"alpha {self.alpha} is out of range", "give a number above 0 and below 0.5")
        self._rng = np.random.default_rng(self.seed)
        self._begin()

    def _begin(self) -> None:
        self._pools = {name: list(values) for name, values in self.sketch.values.items()}
        self._seen = {name: [] for name in self.sketch.values}
        # (characteristics, starts, bets); a martingale that has not begun yet is worth 1.
        self._capital = np.full((len(self._pools), len(_STARTS), len(_BETS)), 1 / len(_BETS))

    @property
    def threshold(self) -> float:
        """What the evidence of this segment has to reach."""
        return float(2 ** (1 + max(self.n - 1, 0) // SEGMENT) / self.alpha)

    @property
    def evidence(self) -> float:
        """Of all characteristics together: about 1 or less while nothing has changed."""
        return float(self._each().mean())

    def _each(self) -> Floats:
        return np.asarray(self._capital.sum(axis=2) @ _WEIGHTS + 1 - _WEIGHTS.sum())

    def add(self, values: Mapping[str, float]) -> bool:
        """See one sample more; whether there is an alarm by now.

        Args:
            values: of each characteristic of the sketch; others are passed over.

        Raises:
            CertifyError: one is missing.
        """
        missing = next((name for name in self._pools if name not in values), None)
        if missing is not None:
            what = f"a sample has no '{missing}', which the sketch has"
            raise CertifyError(what, "give its input and its outputs, as they were certified")
        if self.alarm_at is not None:
            self.n += 1
            return True
        if self.n and self.n % SEGMENT == 0:
            self._begin()
        ranks = np.array([self._rank(name, float(values[name])) for name in self._pools])
        self._bet(ranks, self.n % SEGMENT)
        self.n += 1
        if self.evidence >= self.threshold:
            self.alarm_at = self.n
        return self.alarm_at is not None

    def _rank(self, name: str, value: float) -> float:
        """The p-value: the share of pool and sample that is larger, with a random share of what is equal."""
        pool = self._pools[name]
        low, high = bisect.bisect_left(pool, value), bisect.bisect_right(pool, value)
        share = (len(pool) - high + self._rng.random() * (high - low + 1)) / (len(pool) + 1)
        pool.insert(high, value)
        self._seen[name].append(value)
        return share

    def _bet(self, ranks: Floats, position: int) -> None:
        first, second = 2 * ranks - 1, 6 * ranks**2 - 6 * ranks + 1
        payoff = 1 + np.outer(first, _BETS[:, 0]) + np.outer(second, _BETS[:, 1])
        begun = position >= _STARTS
        capital = self._capital[:, begun]
        dealt = (1 - _JUMP) * capital + _JUMP * capital.mean(axis=2, keepdims=True)
        self._capital[:, begun] = np.minimum(dealt * payoff[:, None, :], _ENOUGH)

    def departures(self) -> list[Departure]:
        """Of each characteristic, what departs most first; nothing before the first sample."""
        if not self.n:
            return []
        each = self._each()
        found = [
            Departure(name, float(each[i]), float(np.median(values)), float(np.median(self._seen[name])))
            for i, (name, values) in enumerate(self.sketch.values.items())
        ]
        return sorted(found, key=lambda departure: -departure.evidence)
