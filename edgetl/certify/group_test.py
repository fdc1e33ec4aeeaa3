"""Samples that belong together, such as the frames of one scene: what counts is the group, not the sample.

Frames of a scene flip together, so that n of them tell less than n samples do. Every bound is then a bootstrap of whole
groups (C. A. Field and A. H. Welsh 2007, "Bootstrapping clustered data", Journal of the Royal Statistical Society B 69,
369-390) with one group that was not seen, as in :mod:`edgetl.certify.bootstrap`. The score tests for clustered pairs of
N. A. Obuchowski (1998), Statistics in Medicine 17, 1495-1507, and of Z. Yang, X. Sun and J. W. Hardin (2010), the same
29, 1128-1142, have their level only where many groups differ: where a handful of groups carry the loss, a true loss of
the margin passes them in 10 % of the cases and more (``benchmarks/group_sizes.py``).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgetl.certify.binomial import binomial_pmf
from edgetl.certify.bootstrap import MOST_UNITS, REPLICATES, Draws, resampled_sums, times_unseen
from edgetl.certify.groups import group_sums
from edgetl.certify.paired import Indexes

Floats = npt.NDArray[np.float64]

METHOD = (
    f"bootstrap of whole groups, percentiles of {REPLICATES:,} replicates with one unseen group (Field and Welsh 2007; "
    "Fay and Feuer 1997)"
)


def share_draws(change: Indexes, strata: Indexes | None, groups: Indexes, replicates: int) -> tuple[float, Draws]:
    """The change of a share of right samples, or of the mean of such shares over classes, and its replicates.

    The statistic is linearized: a group counts by what its samples differ from the mean of their class. The group that
    was not seen is the heaviest one, and each of its samples is lost, or gained.

    Args:
        change: of each sample: 1 for gained, -1 for lost, 0; int64 [n].
        strata: the class of each, int64 [n]; None for one share of all.
        groups: of each, from 0 up, int64 [n].
        replicates: how often the groups are drawn.

    Returns:
        the difference observed, and two float64 [replicates]: with the unseen group at its worst and at its best.
    """
    labels = np.zeros_like(groups) if strata is None else np.unique(strata, return_inverse=True)[1]
    sizes = np.bincount(labels)
    weight = 1 / (len(sizes) * sizes[labels])
    means = np.bincount(labels, change) / sizes
    influence = group_sums(np.stack([weight * (change - means[labels]), weight], axis=1), groups)
    rng, difference = np.random.default_rng(0), float(means.mean())
    drawn = difference + _sums(influence[:, 0], replicates, rng)
    unseen = times_unseen(replicates, rng) * float(influence[:, 1].max())
    return difference, (drawn - unseen, drawn + unseen)


def _sums(values: Floats, replicates: int, rng: np.random.Generator) -> Floats:
    """Sums over groups drawn with replacement: one fewer than there are (see bootstrap), scaled to as many."""
    alike, counts = np.unique(np.round(values, 12), return_counts=True)
    count = min(len(values), MOST_UNITS)
    if len(alike) > count:
        return resampled_sums(values[:, None], replicates, rng)[:, 0] * count / (count - 1)
    # Groups that changed alike are drawn together: how often each kind comes up is all that matters.
    count = len(values)
    drawn = rng.multinomial(max(count - 1, 1), counts / count, replicates) @ alike
    return np.asarray(drawn * count / max(count - 1, 1))


def sign_flip_loss(change: npt.NDArray[np.int64]) -> float:
    """Exact one-sided p of "no more is lost than gained" for groups: McNemar's test where each is one sample.

    Under that hypothesis a group's change is as likely to be a gain as a loss of the same size (R. A. Fisher 1935, The
    Design of Experiments, section 21). The sum of all losses is a sum of binomials, one for each size, and its
    distribution is computed without drawing.

    Args:
        change: gained minus lost samples of each group, int64 [k].
    """
    sizes, counts = np.unique(np.abs(change[change != 0]), return_counts=True)
    chances = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        own = np.zeros(size * count + 1)
        own[::size] = binomial_pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, own)
    lost = -int(change[change < 0].sum())
    return min(float(chances[lost:].sum()), 1.0)
