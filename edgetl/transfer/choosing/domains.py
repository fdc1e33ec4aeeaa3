"""How far two sets of samples lie apart in a backbone's features: numpy and scikit-learn alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import euclidean_distances
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Doubles = npt.NDArray[np.float64]
FOLDS, PERMUTATIONS = 5, 200
#: Most samples of each set that are compared with one another: the distances are as many as its square.
MOST = 1000
#: The penalty of the classifier that tells two sets apart, weak enough to find what there is to find.
_PENALTY = 0.1


@dataclass(frozen=True)
class Difference:
    """A measure, and how often chance alone gives as much.

    Attributes:
        value: of the measure.
        p: share of random divisions, the observed one among them, that reach it.
    """

    value: float
    p: float


def proxy_a_distance(one: npt.ArrayLike, other: npt.ArrayLike, seed: int = 0) -> float:
    """2 (1 - 2 error) of a linear classifier that tells two sets apart: 0 for none, 2 for entirely different.

    The error is balanced over the sets and of samples that the classifier was not fitted on, so that it may come out
    a little below 0. Ben-David et al. 2007, "Analysis of Representations for Domain Adaptation".

    Args:
        one, other: features, (n, d) and (m, d), at least two each.
        seed: of the folds.
    """
    x = np.concatenate([np.asarray(one, np.float64), np.asarray(other, np.float64)])
    y = np.repeat([0, 1], [len(np.asarray(one)), len(np.asarray(other))])
    folds = StratifiedKFold(min(FOLDS, int(np.bincount(y).min())), shuffle=True, random_state=seed)
    tells = LogisticRegression(C=_PENALTY, max_iter=500, class_weight="balanced")
    told = cross_val_predict(make_pipeline(StandardScaler(), tells), x, y, cv=folds)
    error = np.mean([np.mean(told[y == side] != side) for side in (0, 1)])
    return float(2 * (1 - 2 * error))


def mmd(one: npt.ArrayLike, other: npt.ArrayLike, seed: int = 0) -> Difference:
    """Squared maximum mean discrepancy under a Gaussian kernel as wide as the median distance, unbiased.

    Gretton et al. 2012, "A Kernel Two-Sample Test". The first :data:`MOST` of each set are compared.

    Args:
        one, other: features, (n, d) and (m, d), at least two each.
        seed: of the random divisions behind ``p``.
    """
    x, y = (np.asarray(given, np.float64)[:MOST] for given in (one, other))
    both = np.concatenate([x, y])
    distances = euclidean_distances(both, squared=True)
    median = float(np.median(distances[np.triu_indices_from(distances, 1)]))
    kernel = np.exp(-distances / max(median, np.finfo(np.float64).tiny))
    np.fill_diagonal(kernel, 0.0)
    member = np.repeat([1.0, 0.0], [len(x), len(y)])
    found, draw = _discrepancy(kernel, member), np.random.default_rng(seed)
    as_far = sum(_discrepancy(kernel, draw.permutation(member)) >= found for _ in range(PERMUTATIONS))
    return Difference(found, (1 + as_far) / (1 + PERMUTATIONS))


def _discrepancy(kernel: Doubles, member: Doubles) -> float:
    """Of two groups; the kernel's diagonal is 0."""
    rest = 1 - member
    n, m = member.sum(), rest.sum()
    within = member @ kernel @ member / (n * (n - 1)) + rest @ kernel @ rest / (m * (m - 1))
    return float(within - 2 * member @ kernel @ rest / (n * m))


def label_shift(one: npt.ArrayLike, other: npt.ArrayLike, classes: int, seed: int = 0) -> Difference:
    """Total variation distance of two sets' shares of classes: 0 for equal ones, 1 for no class in common.

    Args:
        one, other: labels, int64 (n,) and (m,).
        classes: how many there are.
        seed: of the random divisions behind ``p``.
    """
    a, b = (np.asarray(given, np.int64) for given in (one, other))
    both, draw = np.concatenate([a, b]), np.random.default_rng(seed)

    def apart(labels: npt.NDArray[np.int64]) -> float:
        shares = [np.bincount(part, minlength=classes) / len(part) for part in (labels[: len(a)], labels[len(a) :])]
        return float(np.abs(shares[0] - shares[1]).sum() / 2)

    found = apart(both)
    as_far = sum(apart(draw.permutation(both)) >= found - 1e-12 for _ in range(PERMUTATIONS))
    return Difference(found, (1 + as_far) / (1 + PERMUTATIONS))
