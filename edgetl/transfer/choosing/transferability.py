"""How well features serve labels, told without training: numpy and scikit-learn alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
#: Share of the features' variance that the mixture of NLEEP sees, and its components for each class.
_KEPT, _COMPONENTS = 0.8, 5
#: Rounds after which the evidence stands still to more digits than are printed.
_ROUNDS, _STILL = 500, 1e-10
_SMALLEST = 1e-12


def logme(features: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """The logarithm of the evidence of a Bayesian linear model, for each sample and column of the targets (LogME).

    The precisions of weights and noise are those that maximise it. It is comparable between features of one set of
    samples, and larger is better; it is negative for one of two hard classes, and of no meaning by itself.

    You et al. 2021, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", and MacKay 1992.

    Args:
        features: (n, d).
        targets: (n, k): zeros and ones for each class (:func:`one_hot`), or numbers.

    Returns:
        the mean over the columns, in nats a sample.
    """
    x, y = np.asarray(features, np.float64), np.asarray(targets, np.float64)
    n, d = x.shape
    left, sizes, _ = np.linalg.svd(x, full_matrices=False)
    projected = left.T @ y
    # What no weight explains, exactly none where the features span all.
    unexplained = np.maximum((y**2).sum(0) - (projected**2).sum(0), 0.0)
    evidence = [_evidence(sizes**2, column, rest, n, d) for column, rest in zip(projected.T, unexplained, strict=True)]
    return float(np.mean(evidence) / n)


def _evidence(sigma: Doubles, projected: Doubles, unexplained: float, n: int, d: int) -> float:
    """The greatest log evidence of one column.

    Args:
        sigma: squared singular values of the features.
        projected: the column in their left singular vectors.
        unexplained: squared length of what is left of it.
        n, d: samples and features.
    """
    alpha = beta = 1.0
    last = -np.inf
    for _ in range(_ROUNDS):
        curvature = alpha + beta * sigma
        weights = float((sigma * (beta * projected / curvature) ** 2).sum())
        error = float(((alpha * projected / curvature) ** 2).sum()) + unexplained
        value = 0.5 * (
            n * np.log(beta)
            - n * np.log(2 * np.pi)
            - beta * error
            - alpha * weights
            - (np.log(curvature) - np.log(alpha)).sum()
        )
        if abs(value - last) < _STILL * n:
            break
        last = value
        effective = float((beta * sigma / curvature).sum())
        alpha = max(effective, _SMALLEST) / max(weights, _SMALLEST)
        beta = max(n - effective, _SMALLEST) / max(error, _SMALLEST)
    return float(value)


def leep(answers: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean log likelihood of the labels, each told from the source model's own answer (LEEP).

    Nguyen et al. 2020, "LEEP: A New Measure to Evaluate Transferability of Learned Representations".

    Args:
        answers: the source model's probabilities, (n, source classes), rows of 1.
        labels: int64 (n,).

    Returns:
        0 or less, nats; larger is better.
    """
    p, y = np.asarray(answers, np.float64), np.asarray(labels, np.int64)
    together = one_hot(y).T @ p / len(y)
    given_source = together / np.maximum(together.sum(0), _SMALLEST)
    return float(np.log(np.maximum((p @ given_source.T)[np.arange(len(y)), y], _SMALLEST)).mean())


def nleep(features: npt.ArrayLike, labels: npt.ArrayLike, seed: int = 0) -> float:
    """LEEP with the clusters of a Gaussian mixture in the place of source classes (NLEEP).

    Li et al. 2021, "Ranking Neural Checkpoints": principal components of 80 % of the variance, five clusters a class.

    Args:
        features: (n, d).
        labels: int64 (n,).
        seed: of the mixture's start.
    """
    x, y = np.asarray(features, np.float64), np.asarray(labels, np.int64)
    small = PCA(_KEPT, svd_solver="full").fit_transform(x - x.mean(0))
    clusters = min(_COMPONENTS * len(np.unique(y)), max(len(y) // 2, 1))
    mixture = GaussianMixture(clusters, covariance_type="diag", reg_covar=1e-4, random_state=seed).fit(small)
    return leep(mixture.predict_proba(small), y)


def one_hot(labels: npt.ArrayLike) -> Doubles:
    """Classes (n,) as zeros and ones, (n, classes that occur or lie below the highest)."""
    y = np.asarray(labels, np.int64)
    return np.eye(int(y.max()) + 1)[y]
