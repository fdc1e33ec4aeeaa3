"""Percentiles and means of timings with intervals that allow for their dependence in time.

Successive timings resemble each other: clocks, caches and neighbours change slowly. Resampling them one by one
would promise too narrow an interval, so blocks of successive samples are resampled (circular block bootstrap,
Politis & Romano 1992).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edgetl.core.bench import Estimate

RESAMPLES = 1000
#: Work spent on one interval, in samples drawn: 100,000 samples of a fast model are resampled fewer times, which
#: costs a few per cent of the interval's ends.
_DRAWN, _FEWEST = 10_000_000, 300
#: Samples drawn in one go: fewer calls of numpy for short series, little memory for long ones.
_TOGETHER = 200_000
CONFIDENCE = 0.95

Samples = Sequence[float] | npt.NDArray[np.float64]
_Values = npt.NDArray[np.float64]
_Counts = npt.NDArray[np.int64]


def samples_needed(q: float) -> int:
    """The fewest samples from which the quantile ``q`` can be told with 95 % confidence.

    A distribution-free interval for a quantile lies between two order statistics; its upper end exists only if
    the largest sample exceeds the quantile with probability 97.5 %, that is, if ``q ** n <= 0.025``, and likewise
    at the lower end (David & Nagaraja, Order Statistics, 3rd ed., 7.1). p50: 6, p90: 36, p99: 368.
    """
    tail = (1 - CONFIDENCE) / 2
    return math.ceil(math.log(tail) / math.log(max(q, 1 - q)))


def block_length(series: Samples) -> int:
    """How many successive samples to keep together, for the circular block bootstrap of the series' mean.

    The automatic choice of Politis & White (2004) as corrected by Patton, Politis & White (2009): from the
    autocovariances up to the lag after which none is significant, by a flat-top window.
    """
    n = len(series)
    found = _autocovariance(series)
    if found is None:
        return 1
    covariance, last = found
    last = max(last, min(2, len(covariance) - 1))
    k = np.arange(1, last + 1)
    window = np.minimum(1, 2 * (1 - k / last)) * covariance[1 : last + 1]
    bend, spectrum = 2 * float((window * k).sum()), covariance[0] + 2 * float(window.sum())
    if not spectrum:
        return 1
    length = (1.5 * (bend / spectrum) ** 2 * n) ** (1 / 3)
    return max(1, round(min(float(length), math.ceil(min(3 * math.sqrt(n), n / 3)))))


def _autocovariance(series: Samples) -> tuple[_Values, int] | None:
    """Autocovariances from lag 0 on, and twice the lag after which none is significant, 0 if none is at all.

    None where nothing can be told.
    """
    values = np.asarray(series, np.float64)
    n = len(values)
    centred = values - values.mean() if n else values
    if n < 9 or not centred.any():
        return None
    streak = max(5, int(math.log10(n)))
    lags = min(math.ceil(math.sqrt(n)) + streak, n - 1)
    covariance = np.array([centred[k:] @ centred[: n - k] for k in range(lags + 1)]) / n
    significant = np.abs(covariance[1:]) >= 2 * math.sqrt(math.log10(n) / n) * covariance[0]
    quiet = np.lib.stride_tricks.sliding_window_view(~significant, min(streak, lags)).all(axis=1)
    if not quiet.any():
        return covariance, lags
    first = int(quiet.argmax())
    return covariance, min(2 * (first + 1), lags) if first else 0


def effective_samples(samples: Samples, q: float) -> float:
    """How many independent samples tell as much of the quantile ``q`` as these, which are in order of time.

    n times the variance of "is this sample below it?" over its spectrum at 0, by the flat-top window of
    :func:`block_length`; n where no autocorrelation is significant.
    """
    n = len(samples)
    if not n:
        return 0.0
    below = _below(samples, q)
    # Of values that come several times, the quantile may be the greatest: then which ones reach it is what varies.
    found = _autocovariance((np.asarray(samples) < np.quantile(samples, q)).astype(float) if below.all() else below)
    if found is None or not found[1]:
        return float(n)
    covariance, last = found
    k = np.arange(1, last + 1)
    spectrum = covariance[0] + 2 * float((np.minimum(1, 2 * (1 - k / last)) * covariance[1 : last + 1]).sum())
    return n * min(1.0, float(covariance[0]) / max(spectrum, 1e-300)) if spectrum > 0 else float(n)


def _below(samples: Samples, q: float) -> _Values:
    return (np.asarray(samples) <= np.quantile(samples, q)).astype(np.float64)


def percentile(samples: Samples, q: float, *, seed: int = 0) -> Estimate | None:
    """The quantile ``q`` (0 to 1) of ``samples``, which are in order of time, with its interval.

    Returns:
        None when there are fewer than :func:`samples_needed` samples, or they tell no more than fewer independent ones.
    """
    values = np.asarray(samples, np.float64)
    if len(values) < samples_needed(q) or effective_samples(values, q) < samples_needed(q):
        return None
    value = float(np.quantile(values, q))
    draw = _quantile_of(values, q)
    return _estimate(value, map(draw, _resamples(len(values), quantile_block(values, q), seed)))


def quantile_block(values: Samples, q: float) -> int:
    """The block length for a quantile: it is the mean of "is this sample below it?", to first order."""
    return block_length(_below(values, q))


def mean(samples: Samples, *, seed: int = 0) -> Estimate:
    """The mean of ``samples``, which are in order of time, with its interval."""
    values = np.asarray(samples, np.float64)
    n = len(values)
    draws = (counts.astype(np.float64) @ values / n for counts in _resamples(n, block_length(values), seed))
    return _estimate(float(values.mean()), draws)


def speedup(baseline: Samples, candidate: Samples, *, seed: int = 0) -> Estimate:
    """Median of ``baseline`` over median of ``candidate``: 2 means that the candidate takes half the time.

    The samples are pairs measured in turn; blocks of whole pairs are resampled, so that disturbances that hit both
    cancel.

    Raises:
        ValueError: the two have different lengths, so they are no pairs.
    """
    slow, fast = np.asarray(baseline, np.float64), np.asarray(candidate, np.float64)
    if len(slow) != len(fast):
        raise ValueError("a paired speed-up needs as many samples of one as of the other")
    above, below = _quantile_of(slow, 0.5), _quantile_of(fast, 0.5)
    block = max(quantile_block(slow, 0.5), quantile_block(fast, 0.5))
    draws = (above(counts) / below(counts) for counts in _resamples(len(slow), block, seed))
    return _estimate(float(np.median(slow) / np.median(fast)), draws)


def _resamples(n: int, block: int, seed: int) -> Iterator[_Counts]:
    """How often each of ``n`` samples is drawn: arrays of (some resamples, n), until there were enough of them."""
    rng = np.random.default_rng(seed)
    blocks, wanted = math.ceil(n / block), max(_FEWEST, min(RESAMPLES, _DRAWN // max(n, 1)))
    lengths = np.full(blocks, block)
    lengths[-1] = n - block * (blocks - 1)
    together = max(1, _TOGETHER // n)
    for done in range(0, wanted, together):
        rows = min(together, wanted - done)
        # Blocks go round from the last sample to the first: count on twice the circle, then fold it.
        first = rng.integers(n, size=(rows, blocks)) + np.arange(0, rows * 2 * n, 2 * n)[:, None]
        edges = np.bincount(first.ravel(), minlength=rows * 2 * n + 1)
        edges -= np.bincount((first + lengths).ravel(), minlength=rows * 2 * n + 1)
        yield np.cumsum(edges[:-1].reshape(rows, 2 * n), axis=1).reshape(rows, 2, n).sum(axis=1)


def _quantile_of(values: _Values, q: float) -> Callable[[_Counts], _Values]:
    """The (linearly interpolated) quantile of each resample, given how often each value was drawn in it."""
    order = np.argsort(values, kind="stable")
    ordered, n = values[order], len(values)
    lower = math.floor((n - 1) * q)
    rest = (n - 1) * q - lower

    def quantile(counts: _Counts) -> _Values:
        drawn = np.cumsum(counts[:, order], axis=1)
        low, high = (ordered[(drawn > rank).argmax(axis=1)] for rank in (lower, min(lower + 1, n - 1)))
        return np.asarray(low + rest * (high - low), np.float64)

    return quantile


def _estimate(value: float, draws: Iterable[_Values]) -> Estimate:
    low, high = np.quantile(np.concatenate(list(draws)), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high))
