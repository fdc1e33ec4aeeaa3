"""The linear head, fitted on the backbone's features before the loop, L2-regularised: a fit for each kind of label."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from edgetl.base.errors import DataError
from edgetl.transfer import scores

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
#: Values of the features from which on a second thread of BLAS helps a fit: of few, it waits for the first more often
#: than it works (673 samples of 1280 features: 6.7 s with two threads, 1.5 s with one).
LARGE = 1 << 24
#: Features, float32 (n, d), and targets, first axis n.
Part = tuple[Floats, npt.NDArray[np.generic]]
#: Inverse strengths of the L2 penalty that are tried.
GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class LinearHead:
    """A fitted head.

    Attributes:
        weight: float32, shape (width, features).
        bias: float32, shape (width,).
        inverse_penalty: scikit-learn's C (1 / alpha of a ridge), as chosen on the validation samples.
        loss: on the validation samples.
    """

    weight: Floats
    bias: Floats
    inverse_penalty: float
    loss: float

    def outputs(self, features: Floats) -> Floats:
        """Of features (n, d): float32, shape (n, width)."""
        return np.asarray(features @ self.weight.T + self.bias, dtype=np.float32)


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
) -> LinearHead:
    """Multinomial logistic regression: the head for samples of one class each.

    Args:
        train, val: features, float32, shape (n, d), and labels, int64, shape (n,).
        classes: how many there are; each must occur in ``train``.
        balance: exponent of the class weights.
        weakest: the largest inverse penalty that may be chosen.

    Raises:
        DataError: a class has no training sample.
    """
    weights = class_weights(train[1], classes, balance)
    model = LogisticRegression(max_iter=500, class_weight=dict(enumerate(weights)), warm_start=True)

    def solve(standard: Floats, strength: float) -> tuple[Doubles, Doubles]:
        model.set_params(C=strength)
        model.fit(standard, train[1])
        return _both_classes(model)

    return _best(train[0], solve, lambda head: scores.cross_entropy(head.outputs(val[0]), val[1]), weakest)


def one_vs_rest(
    train: tuple[Floats, Floats], val: tuple[Floats, Floats], classes: int, weakest: float = max(GRID)
) -> LinearHead:
    """A logistic regression for each class: the head for samples of any number of classes. One penalty serves all.

    Args:
        train, val: features, float32, shape (n, d), and zeros and ones, float32, shape (n, classes).
        classes: how many there are.
        weakest: the largest inverse penalty that may be chosen.

    Raises:
        DataError: a class has no training sample.
    """
    present = train[1]
    counts = present.sum(0)
    if counts.min() == 0:
        raise DataError(f"class {int(counts.argmin())} has no training sample", "add samples or change the splits")
    models = [LogisticRegression(max_iter=500, warm_start=True) for _ in range(classes)]

    def solve(standard: Floats, strength: float) -> tuple[Doubles, Doubles]:
        rows = [_presence(model.set_params(C=strength), standard, present[:, c]) for c, model in enumerate(models)]
        return np.stack([row for row, _ in rows]), np.array([bias for _, bias in rows])

    def loss(head: LinearHead) -> float:
        return scores.binary_cross_entropy(head.outputs(val[0]), val[1])

    return _best(train[0], solve, loss, weakest)


def ridge(train: tuple[Floats, Floats], val: tuple[Floats, Floats], weakest: float = max(GRID)) -> LinearHead:
    """Ridge regression: the head for samples with numbers.

    Args:
        train, val: features, float32, shape (n, d), and numbers, standardised or outputs of another head, float32,
            shape (n, width).
        weakest: the largest inverse penalty that may be chosen.
    """

    def solve(standard: Floats, strength: float) -> tuple[Doubles, Doubles]:
        model = Ridge(alpha=1 / strength).fit(standard.astype(np.float64), train[1])
        return np.reshape(model.coef_, (train[1].shape[1], -1)), np.reshape(model.intercept_, -1)

    def loss(head: LinearHead) -> float:
        return float(np.square(head.outputs(val[0]) - val[1], dtype=np.float64).mean())

    return _best(train[0], solve, loss, weakest)


def _best(
    features: Floats,
    solve: Callable[[Floats, float], tuple[Doubles, Doubles]],
    loss: Callable[[LinearHead], float],
    weakest: float,
) -> LinearHead:
    """The penalty with the lowest validation loss.

    The features are centred and divided by one common scale for the fit, and both are then folded into the weights, so
    that the outcome is a plain linear layer. Dividing each feature by its own spread would give features that hardly
    vary enormous weights, and those leave 8-bit weights no resolution for the rest. Accuracy on a small split hardly
    tells penalties apart, and weaker ones give larger weights, which make a model that is harder to fine-tune and to
    quantize.

    Of fewer samples than features the fit is done in the space that the samples span: no direction outside of it lowers
    the loss, and each would raise the penalty (Hastie, Tibshirani and Friedman 2009, section 18.3.5).
    """
    centre = features.mean(0, dtype=np.float64)
    scale = 1 / max(float(np.sqrt(features.var(0, dtype=np.float64).mean())), 1e-6)
    standard = ((features - centre) * scale).astype(np.float32)
    standard, basis = _spanned(standard) if len(standard) < standard.shape[1] else (standard, None)

    def tried() -> Iterator[LinearHead]:
        for strength in (inverse for inverse in GRID if inverse <= weakest):
            with warnings.catch_warnings(), threadpool_limits(None if standard.size > LARGE else 1, "blas"):
                # A weak penalty may stop short of the optimum; the validation loss judges what it reached.
                warnings.simplefilter("ignore", ConvergenceWarning)
                coefficients, intercept = solve(standard, strength)
            if basis is not None:
                coefficients = coefficients @ basis
            weight = (coefficients * scale).astype(np.float32)
            bias = (intercept - (coefficients * scale) @ centre).astype(np.float32)
            head = LinearHead(weight, bias, strength, 0.0)
            yield LinearHead(weight, bias, strength, loss(head))

    return min(_until_worse(tried()), key=lambda head: head.loss)


def _spanned(standard: Floats) -> tuple[Floats, Doubles]:
    """Samples (n, d) as coordinates (n, rank) in a basis, (rank, d), of orthonormal rows."""
    left, sizes, basis = np.linalg.svd(standard.astype(np.float64), full_matrices=False)
    rank = max(int((sizes > sizes[0] * max(standard.shape) * np.finfo(np.float32).eps).sum()), 1)
    return (left[:, :rank] * sizes[:rank]).astype(np.float32), basis[:rank]


def _until_worse(heads: Iterator[LinearHead]) -> Iterator[LinearHead]:
    """Weaker penalties take ever longer: none is tried once the loss has risen twice in a row."""
    rises, last = 0, np.inf
    for head in heads:
        yield head
        rises, last = (rises + 1 if head.loss > last else 0), head.loss
        if rises == 2:
            return


def _both_classes(model: LogisticRegression) -> tuple[Doubles, Doubles]:
    """Coefficients and intercepts of every class; of two, scikit-learn holds the difference of the logits."""
    coefficients, intercept = model.coef_, model.intercept_
    if len(intercept) == 1:
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    return coefficients, intercept


def _presence(model: LogisticRegression, standard: Floats, present: Floats) -> tuple[Doubles, float]:
    """Coefficients and intercept for one class; of a class that every sample has, there is nothing to tell but that."""
    if present.all():
        return np.zeros(standard.shape[1]), float(np.log(2 * len(present) + 1))
    model.fit(standard, present)
    return model.coef_[0], float(model.intercept_[0])
