"""The linear head: L2-regularised logistic regression on the backbone's features, fitted before the loop."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from edgetl.base.errors import DataError
from edgetl.transfer.scores import Scores, score

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
#: Inverse strengths of the L2 penalty that are tried.
GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class LinearHead:
    """A fitted head.

    Attributes:
        weight: float32, shape (classes, features).
        bias: float32, shape (classes,).
        inverse_penalty: scikit-learn's C, as chosen on the validation images.
        scores: on the validation images.
    """

    weight: Floats
    bias: Floats
    inverse_penalty: float
    scores: Scores


def class_weights(labels: Labels, classes: int, balance: float) -> npt.NDArray[np.float64]:
    """Weights proportional to (images of a class)^-balance, 1 on average over the images; shape (classes,).

    Raises:
        DataError: a class has no image.
    """
    counts = np.bincount(labels, minlength=classes)
    if counts.min() == 0:
        raise DataError(f"class {int(counts.argmin())} has no training image", "add images or change the splits")
    raw = counts.astype(np.float64) ** -balance
    weights: npt.NDArray[np.float64] = raw / raw[labels].mean()
    return weights


def fit_head(
    train: tuple[Floats, Labels],
    val: tuple[Floats, Labels],
    classes: int,
    balance: float = 0.0,
    weakest: float = max(GRID),
) -> LinearHead:
    """Fit the head on training features and choose its penalty on validation features.

    The features are centred and divided by one common scale for the fit, and both are then folded into the weights, so
    that the outcome is a plain linear layer. Dividing each feature by its own spread would give features that hardly
    vary enormous weights, and those leave 8-bit weights no resolution for the rest. The best penalty has the lowest
    validation loss: accuracy on a small split hardly tells penalties apart, and weaker ones give larger weights, which
    make a model that is harder to fine-tune and to quantize.

    Args:
        train, val: features, float32, shape (n, d), and labels, int64, shape (n,).
        classes: how many there are; each must occur in ``train``.
        balance: exponent of the class weights.
        weakest: the largest inverse penalty that may be chosen.

    Raises:
        DataError: a class has no training image.
    """
    features, labels = train
    weights = class_weights(labels, classes, balance)
    centre = features.mean(0, dtype=np.float64)
    scale = 1 / max(float(np.sqrt(features.var(0, dtype=np.float64).mean())), 1e-6)
    standard = ((features - centre) * scale).astype(np.float32)
    best: LinearHead | None = None
    model = LogisticRegression(max_iter=500, class_weight=dict(enumerate(weights)), warm_start=True)
    for strength in (inverse for inverse in GRID if inverse <= weakest):
        model.set_params(C=strength)
        with warnings.catch_warnings():
            # A weak penalty may stop short of the optimum; the validation score judges what it reached.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(standard, labels)
        head = _folded(model, centre, scale, strength, val)
        if best is None or head.scores.loss < best.scores.loss:
            best = head
    assert best is not None
    return best


def _folded(
    model: LogisticRegression,
    centre: npt.NDArray[np.float64],
    scale: float,
    strength: float,
    val: tuple[Floats, Labels],
) -> LinearHead:
    coefficients, intercept = model.coef_, model.intercept_
    if len(intercept) == 1:
        # Two classes: scikit-learn holds the difference of the two logits.
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    weight = (coefficients * scale).astype(np.float32)
    bias = (intercept - (coefficients * scale) @ centre).astype(np.float32)
    return LinearHead(weight, bias, strength, score(val[0] @ weight.T + bias, val[1]))
