"""Percentiles that admit what the samples cannot tell, paired speed-ups, and trends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgetl.core.bench import Estimate
from edgetl.runtime.intervals import effective_samples, mean, percentile, quantile_block, samples_needed, speedup

__all__ = [
    "Estimate",
    "Trend",
    "effective_samples",
    "mean",
    "percentile",
    "quantile_block",
    "samples_needed",
    "speedup",
    "trend",
]

#: Successive samples resemble each other; medians of so many long blocks hardly do, and a stray sample cannot move one.
TREND_BLOCKS = 20
#: Fewer samples a block would leave single inferences in charge.
_LEAST_PER_BLOCK = 5


@dataclass(frozen=True)
class Trend:
    """How latency moved over a run.

    Attributes:
        change: from the first block to the last by the Theil-Sen slope, as a share of the median.
        p: of Mann and Kendall's test, two-sided, of no trend.
    """

    change: float
    p: float


def trend(samples: Sequence[float]) -> Trend | None:
    """Is there a trend in ``samples``, which are in order of time? None where they are too few to tell.

    Theil-Sen slope (Sen 1968) and Mann-Kendall test (Kendall 1975, with his correction for ties) over the medians of
    :data:`TREND_BLOCKS` blocks.
    """
    if len(samples) < TREND_BLOCKS * _LEAST_PER_BLOCK:
        return None
    medians = np.array([np.median(block) for block in np.array_split(np.asarray(samples, np.float64), TREND_BLOCKS)])
    early, late = np.triu_indices(len(medians), 1)
    steps = medians[late] - medians[early]
    slope = float(np.median(steps / (late - early)))
    score = int(np.sign(steps).sum())
    n = len(medians)
    _, ties = np.unique(medians, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    z = (abs(score) - 1) / math.sqrt(variance) if score and variance > 0 else 0.0
    return Trend(slope * (n - 1) / float(np.median(medians)), math.erfc(z / math.sqrt(2)))
