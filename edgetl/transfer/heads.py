"""The linear head, fitted on the backbone's features before the loop, L2-regularised: a fit for each kind of label."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.svm import LinearSVC

from edgetl.base.errors import DataError
from edgetl.transfer import scores
from edgetl.transfer.head_search import GRID, Doubles, Floats, LinearHead, Solve, Targets, best

Labels = npt.NDArray[np.int64]
#: Features, float32 (n, d), and targets, first axis n.
Part = tuple[Floats, npt.NDArray[np.generic]]


def class_weights(labels: Labels, classes: int, balance: float) -> Doubles:
    """Weights proportional to (samples of a class)^-balance, 1 on average over the samples; shape (classes,).

    Raises:
        DataError: a class has no sample.
    """
    counts = np.bincount(labels, minlength=classes)
    if counts.min() == 0:
        raise DataError(f"class {int(counts.argmin())} has no training sample", "add samples or change the splits")
    raw = counts.astype(np.float64) ** -balance
    weights: Doubles = raw / raw[labels].mean()
    return weights


def logistic(
    train: tuple[Floats, Labels],
    val: tuple[Floats, Labels],
    classes: int,
    balance: float = 0.0,
    weakest: float = max(GRID),
    folds: int = 0,
) -> LinearHead:
    """Multinomial logistic regression: the head for samples of one class each.

    Args:
        train, val: features, float32, shape (n, d), and labels, int64, shape (n,).
        classes: how many there are; each must occur in ``train``.
        balance: exponent of the class weights.
        weakest: the largest inverse penalty that may be chosen.
        folds: of ``train``, on which the penalty is chosen; 0 for ``val``.

    Raises:
        DataError: a class has no training sample, or fewer than folds.
    """
    weights = class_weights(train[1], classes, balance)

    def solver() -> Solve:
        model = LogisticRegression(max_iter=500, class_weight=dict(enumerate(weights)), warm_start=True)

        def solve(standard: Floats, targets: Targets, strength: float) -> tuple[Doubles, Doubles]:
            model.set_params(C=strength)
            model.fit(standard, targets)
            return _both_classes(model.coef_, model.intercept_)

        return solve

    return best(train, val, solver, scores.cross_entropy, weakest, folds)


def ridge_classes(
    train: tuple[Floats, Labels],
    val: tuple[Floats, Labels],
    classes: int,
    balance: float = 0.0,
    weakest: float = max(GRID),
    folds: int = 0,
) -> LinearHead:
    """Ridge regression to 1 for a sample's class and -1 for the others; see :func:`logistic` and :func:`tempered`."""
    weights = class_weights(train[1], classes, balance)

    def solve(standard: Floats, targets: Targets, strength: float) -> tuple[Doubles, Doubles]:
        wanted = 2 * np.eye(classes)[targets] - 1
        model = Ridge(alpha=1 / strength).fit(standard.astype(np.float64), wanted, sample_weight=weights[targets])
        return np.reshape(model.coef_, (classes, -1)), np.reshape(model.intercept_, -1)

    return tempered(best(train, val, lambda: solve, _tempered_loss, weakest, folds), val)


def support_vectors(
    train: tuple[Floats, Labels],
    val: tuple[Floats, Labels],
    classes: int,
    balance: float = 0.0,
    weakest: float = max(GRID),
    folds: int = 0,
) -> LinearHead:
    """A linear support vector machine for each class against the rest; see :func:`logistic` and :func:`tempered`."""
    weights = class_weights(train[1], classes, balance)

    def solve(standard: Floats, targets: Targets, strength: float) -> tuple[Doubles, Doubles]:
        model = LinearSVC(C=strength, class_weight=dict(enumerate(weights)), max_iter=5000, random_state=0)
        model.fit(standard, targets)
        return _both_classes(model.coef_, model.intercept_)

    return tempered(best(train, val, lambda: solve, _tempered_loss, weakest, folds), val)


def tempered(head: LinearHead, val: tuple[Floats, Labels]) -> LinearHead:
    """The head times the factor that makes its outputs the best logits of ``val`` (Guo et al. 2017): its answers stay.

    Regression and margins give outputs whose softmax means nothing otherwise.
    """
    outputs = head.outputs(val[0])
    factor = scores.factor(scores.cross_entropy, outputs, val[1])
    loss = scores.cross_entropy(factor * outputs, val[1])
    return LinearHead(head.weight * factor, head.bias * factor, head.inverse_penalty, loss)


def _tempered_loss(outputs: Floats, labels: npt.NDArray[Any]) -> float:
    return scores.calibrated(scores.cross_entropy, outputs, labels)


def one_vs_rest(
    train: tuple[Floats, Floats], val: tuple[Floats, Floats], classes: int, weakest: float = max(GRID), folds: int = 0
) -> LinearHead:
    """A logistic regression for each class: the head for samples of any number of classes. One penalty serves all.

    Args:
        train, val: features, float32, shape (n, d), and zeros and ones, float32, shape (n, classes).
        classes: how many there are.
        weakest: the largest inverse penalty that may be chosen.
        folds: see :func:`logistic`.

    Raises:
        DataError: a class has no training sample.
    """
    counts = train[1].sum(0)
    if counts.min() == 0:
        raise DataError(f"class {int(counts.argmin())} has no training sample", "add samples or change the splits")

    def solver() -> Solve:
        models = [LogisticRegression(max_iter=500, warm_start=True) for _ in range(classes)]

        def solve(standard: Floats, targets: Targets, strength: float) -> tuple[Doubles, Doubles]:
            rows = [_presence(model.set_params(C=strength), standard, targets[:, c]) for c, model in enumerate(models)]
            return np.stack([row for row, _ in rows]), np.array([bias for _, bias in rows])

        return solve

    return best(train, val, solver, scores.binary_cross_entropy, weakest, folds)


def ridge(
    train: tuple[Floats, Floats], val: tuple[Floats, Floats], weakest: float = max(GRID), folds: int = 0
) -> LinearHead:
    """Ridge regression: the head for samples with numbers.

    Args:
        train, val: features, float32, shape (n, d), and numbers, standardised or outputs of another head, float32,
            shape (n, width).
        weakest: the largest inverse penalty that may be chosen.
        folds: see :func:`logistic`.
    """

    def solve(standard: Floats, targets: Targets, strength: float) -> tuple[Doubles, Doubles]:
        model = Ridge(alpha=1 / strength).fit(standard.astype(np.float64), targets)
        return np.reshape(model.coef_, (train[1].shape[1], -1)), np.reshape(model.intercept_, -1)

    def loss(outputs: Floats, targets: Targets) -> float:
        return float(np.square(outputs - targets, dtype=np.float64).mean())

    return best(train, val, lambda: solve, loss, weakest, folds)


def _both_classes(coefficients: Doubles, intercept: Doubles) -> tuple[Doubles, Doubles]:
    """Coefficients and intercepts of every class; of two, scikit-learn holds the difference of the logits."""
    if len(intercept) == 1:
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    return coefficients, intercept


def _presence(model: LogisticRegression, standard: Floats, present: Targets) -> tuple[Doubles, float]:
    """Coefficients and intercept for one class; of a class that every sample has, there is nothing to tell but that."""
    if present.all():
        return np.zeros(standard.shape[1]), float(np.log(2 * len(present) + 1))
    model.fit(standard, present)
    return model.coef_[0], float(model.intercept_[0])
