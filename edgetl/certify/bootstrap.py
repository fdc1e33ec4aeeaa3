"""A paired bootstrap for what has no score test: balanced accuracy, average precision, F1, the metrics of regression.

Samples are drawn again with replacement (B. Efron 1979, Annals of Statistics 7, 1-26), always with both models' answers
to them, and the difference is computed anew; its quantiles are the bounds. Two things are added, because the plain
percentile interval is far too bold where few samples decide: it has no width at all when no answer changed.

* One sample that was not seen: in every replicate a sample that counts Exp(1) times, which the deployed model loses
  (for the lower bound) or gains (for the upper one). Without any change seen that gives the rule of three,
  -log(alpha) / n. Where samples weigh differently it is one of the heaviest, as in the gamma interval for weighted sums
  of counts of M. P. Fay and E. J. Feuer (1997), Statistics in Medicine 16, 791-801. Each metric says what it is
  (``Metric.unseen``).
* One sample fewer is drawn than there are, which makes the variance unbiased (P. J. McCarthy and C. B. Snowden 1985,
  Vital and Health Statistics 2/95); it matters where classes have few samples.

Where samples belong together, whole groups are drawn, and the one that was not seen is as large as the largest.

``benchmarks/size_simulation.py`` measures how often a true loss of the margin passes, with and without them. Everything
is seeded: equal input gives equal bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.certify.groups import group_sums
from edgetl.certify.paired import Indexes
from edgetl.tasks import Evidence, Metric, Sums

Floats = npt.NDArray[np.float64]
Draws = tuple[Floats, Floats]

REPLICATES = 2000
METHOD = f"paired bootstrap, percentiles of {REPLICATES:,} replicates with one unseen sample (Fay and Feuer 1997)"
MOST_UNITS = 2000
"""Of more samples than this as many random groups of equal size are drawn, so that the time does not grow with n."""

_BLOCK = 250
_CELLS = 2_000_000


def class_draws(lost: Indexes, gained: Indexes, sizes: Indexes, replicates: int) -> Draws:
    """Replicates of the mean over the classes of (gained - lost) / samples, at its worst and at its best.

    Samples are drawn within their classes, from each class's table of lost, gained and unchanged ones, so the time does
    not grow with the number of samples. The unseen sample belongs to the smallest class: with few samples in a class
    its share is not known well, however many the others have.

    Args:
        lost, gained: samples of each class that only the reference, or only the deployed model, gets right, int64 [k].
        sizes: samples of each class, at least 1, int64 [k].
        replicates: how often the samples are drawn.

    Returns:
        two float64 [replicates].
    """
    rng = np.random.default_rng(0)
    drawn = _table_draws(lost, gained, sizes, replicates, rng)
    unseen = times_unseen(replicates, rng) / (len(sizes) * sizes.min())
    return drawn - unseen, drawn + unseen


def _table_draws(lost: Indexes, gained: Indexes, sizes: Indexes, replicates: int, rng: np.random.Generator) -> Floats:
    """Replicates of the mean over the classes of (gained - lost) / samples, float64 [replicates]."""
    total = np.zeros(replicates)
    changed = np.flatnonzero(lost + gained)
    if not len(changed):
        return total
    step = max(1, _CELLS // replicates)
    for chosen in (changed[start : start + step] for start in range(0, len(changed), step)):
        n = sizes[chosen]
        drawn = np.maximum(n - 1, 1)
        changes = rng.binomial(drawn, (lost + gained)[chosen] / n, size=(replicates, len(chosen)))
        gains = rng.binomial(changes, gained[chosen] / (lost + gained)[chosen])
        total += ((2 * gains - changes) / drawn).sum(axis=1)
    return total / len(sizes)


def metric_draws(
    metric: Metric, reference: Evidence, deployed: Evidence, replicates: int, groups: Indexes | None = None
) -> Draws:
    """Replicates of the gain in a metric, with the unseen sample at its worst and at its best.

    Args:
        metric: one that has ``unseen``.
        reference, deployed: evidence of the same samples.
        replicates: how often they are drawn.
        groups: of each sample, from 0 up, int64 [n], which are drawn whole; None: sample by sample.

    Returns:
        two float64 [replicates].
    """
    if metric.unseen is None:
        raise ValueError(f"the {metric.title} has no unseen sample, so it is not for a bootstrap")
    worst = metric.unseen(reference, deployed)
    gained, lost = metric.unseen(deployed, reference)
    pairs = worst, (lost, gained)
    if metric.sums is not None:
        return _sum_draws(metric, metric.sums, (reference, deployed), pairs, replicates, groups)
    return _weight_draws(metric, (reference, deployed), pairs, replicates, groups)


Pair = tuple[Evidence, Evidence]


def _sum_draws(
    metric: Metric, sums: Sums, models: Pair, unseen: tuple[Pair, Pair], replicates: int, groups: Indexes | None
) -> Draws:
    rng = np.random.default_rng(0)
    parts = [sums.of(evidence) for evidence in models]
    columns = parts[0].shape[1]
    moments = np.concatenate(parts, axis=1)
    drawn = resampled_sums(moments if groups is None else group_sums(moments, groups), replicates, rng)
    times = times_unseen(replicates, rng)[:, None] * _largest(groups)

    def gain(rows: Pair) -> Floats:
        before, after = (times * sums.of(row) for row in rows)
        return metric.gain(sums.score(drawn[:, :columns] + before), sums.score(drawn[:, columns:] + after))

    return gain(unseen[0]), gain(unseen[1])


def _largest(groups: Indexes | None) -> int:
    """Samples of the largest group."""
    return 1 if groups is None else int(np.bincount(groups).max())


def _weight_draws(
    metric: Metric, models: Pair, unseen: tuple[Pair, Pair], replicates: int, groups: Indexes | None
) -> Draws:
    """The same where a metric is not made of sums: in blocks of replicates, so that memory does not grow with n."""
    rng = np.random.default_rng(0)
    n = len(next(iter(models[0].values())))
    count = n if groups is None else int(groups.max()) + 1
    times = times_unseen(replicates, rng) * _largest(groups)
    worst, best = ([_with(e, row) for e, row in zip(models, rows, strict=True)] for rows in unseen)
    low, high = [], []
    for start, drawn in _drawn_counts(count, replicates, max(1, _CELLS // n), rng):
        counts = drawn if groups is None else drawn[:, groups]
        # Counts are small whole numbers, which half the bytes hold, as they do their sums.
        weights = np.column_stack([counts, times[start : start + len(counts)]]).astype(np.float32)
        low.append(metric.gain(metric.score(worst[0], weights), metric.score(worst[1], weights)))
        high.append(metric.gain(metric.score(best[0], weights), metric.score(best[1], weights)))
    return np.concatenate(low), np.concatenate(high)


def _with(evidence: Evidence, row: Evidence) -> dict[str, npt.NDArray[Any]]:
    """Evidence with the unseen sample at its end; only what the metric reads, which is what the row has."""
    return {name: np.concatenate([evidence[name], values]) for name, values in row.items()}


def resampled_sums(moments: Floats, replicates: int, rng: np.random.Generator) -> Floats:
    """Sums over samples drawn with replacement, one fewer than there are.

    Args:
        moments: float64 [n, k]. Beyond ``MOST_UNITS`` rows they are first summed in random groups of equal size (but
            for one), which are then drawn whole: the variance and the skewness of a sum over groups are those of a sum
            over samples.
        replicates: how often to draw.
        rng: source of the draws.

    Returns:
        float64 [replicates, k].
    """
    if len(moments) > MOST_UNITS:
        starts = np.linspace(0, len(moments), MOST_UNITS, endpoint=False).astype(np.int64)
        moments = np.add.reduceat(moments[rng.permutation(len(moments))], starts)
    return np.concatenate([counts @ moments for _, counts in _drawn_counts(len(moments), replicates, _BLOCK, rng)])


def _drawn_counts(n: int, replicates: int, block: int, rng: np.random.Generator) -> Iterator[tuple[int, Indexes]]:
    """How often each of n samples is drawn when one fewer is: a block's first replicate, and its int64 [rows, n]."""
    for start in range(0, replicates, block):
        rows = min(block, replicates - start)
        drawn = rng.integers(0, n, size=(rows, max(n - 1, 1))) + n * np.arange(rows)[:, None]
        yield start, np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)


def times_unseen(replicates: int, rng: np.random.Generator) -> Floats:
    """How often the unseen sample counts in each replicate: Exp(1), at evenly spaced chances in random order."""
    return np.asarray(-np.log((rng.permutation(replicates) + 0.5) / replicates))


def bounds(low: Floats, high: Floats, alpha: float) -> tuple[float, float]:
    """The alpha quantile of ``low`` and the 1 - alpha quantile of ``high``, each on its cautious side."""
    return float(np.quantile(low, alpha, method="lower")), float(np.quantile(high, 1 - alpha, method="higher"))
