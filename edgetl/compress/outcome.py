"""What an attempt to compress a model came to, and whether that is good enough."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Losses of a share of right answers below this cannot be told from 0 on a search split.
RESOLUTION = 0.0025
#: A loss that is greater by chance once in so many is no loss.
CHANCE = 10
#: Search samples below which only losses beyond chance call for repair.
LEAST_SAMPLES = 100


@dataclass(frozen=True)
class Outcome:
    """What an attempt does on the search split, against the trained model.

    Attributes:
        n: samples.
        score: the attempt's, in the metric of the task.
        difference: how much better it is than the trained model's; negative is a loss, whichever scores are better.
        expected_difference: the same if each sample's noise had fallen on any other alike, where that can be told.
        lost, gained: samples that only the trained model, or only the attempt, gets right; 0 where none is right or
            wrong.
        divergence: of the attempt's outputs from the trained model's, as the task measures it.
        collapsed: classes whose recall fell by more than chance.
        integer_macs: share of multiply-accumulates executed in integers; None where the runtime does not tell.
        ms: milliseconds a sample, one thread; None where this machine cannot execute it natively.
        resolution: losses below this cannot be told from 0, in the metric's unit.
        error: standard error of the difference, where no answer is right or wrong; None where the flips tell.
    """

    n: int
    score: float
    difference: float
    expected_difference: float
    lost: int
    gained: int
    divergence: float
    collapsed: tuple[str, ...]
    integer_macs: float | None
    ms: float | None
    resolution: float = RESOLUTION
    error: float | None = None

    def broken(self, margin: float) -> bool:
        """A class collapsed, answers that are no numbers, or a loss of the margin that is more than chance.

        On few samples a handful of flips makes a point of accuracy: a loss counts if one so great would happen by
        chance less than once in :data:`CHANCE`.
        """
        lost = self.difference <= -max(margin, self.resolution) and self.p_value < 1 / CHANCE
        return lost or bool(self.collapsed) or not math.isfinite(self.expected_difference)

    def good(self, margin: float) -> bool:
        """Not broken and, from :data:`LEAST_SAMPLES` on, an expected loss of less than half the margin.

        Half, because a certificate cannot pass a model that loses the margin, and seldom one that loses nearly so much.
        """
        kept = self.expected_difference > -max(margin / 2, self.resolution) or self.n < LEAST_SAMPLES
        return kept and not self.broken(margin)

    @property
    def p_value(self) -> float:
        """Of no loss: P(X >= lost) for X ~ Binomial(lost + gained, 1/2) (exact McNemar test), or a normal tail."""
        if self.error is not None:
            return math.erfc(-self.difference / (math.sqrt(2) * max(self.error, 1e-30))) / 2
        flips = self.lost + self.gained
        return float(sum(math.comb(flips, k) for k in range(self.lost, flips + 1)) / 2**flips)
