"""Which penalty a linear head is fitted with: the plain layer with the lowest loss on samples it was not fitted on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold
from threadpoolctl import threadpool_limits

from edgetl.base.errors import DataError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Targets = npt.NDArray[Any]
#: Features (n, d), targets and a penalty's inverse → weights (width, d) and biases (width,).
Solve = Callable[[Floats, Targets, float], tuple[Doubles, Doubles]]
#: Values of the features from which on a second thread of BLAS helps a fit: of few, it waits for the first more often
#: than it works (673 samples of 1280 features: 6.7 s with two threads, 1.5 s with one).
LARGE = 1 << 24
#: Inverse strengths of the L2 penalty that are tried.
GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class LinearHead:
    """A fitted head.

    Attributes:
        weight: float32, shape (width, features).
        bias: float32, shape (width,).
        inverse_penalty: scikit-learn's C (1 / alpha of a ridge), as chosen.
        loss: on the validation samples.
    """

    weight: Floats
    bias: Floats
    inverse_penalty: float
    loss: float

    def outputs(self, features: Floats) -> Floats:
        """Of features (n, d): float32, shape (n, width)."""
        return np.asarray(features @ self.weight.T + self.bias, dtype=np.float32)


def best(
    train: tuple[Floats, Targets],
    val: tuple[Floats, Targets],
    solver: Callable[[], Solve],
    loss: Callable[[Floats, Targets], float],
    weakest: float,
    folds: int,
) -> LinearHead:
    """The penalty with the lowest loss on validation samples or, over folds, on training samples not fitted on."""
    strengths = [inverse for inverse in GRID if inverse <= weakest]
    if not folds:
        return min(_until_worse(_tried(train, val, solver(), loss, strengths)), key=lambda head: head.loss)
    found = np.zeros(len(strengths))
    for held in _folds(train[1], folds):
        rest = np.setdiff1d(np.arange(len(train[1])), held)
        parts = [(train[0][rows], train[1][rows]) for rows in (rest, held)]
        found += [head.loss * len(held) for head in _tried(parts[0], parts[1], solver(), loss, strengths)]
    (chosen,) = _tried(train, val, solver(), loss, [strengths[int(found.argmin())]])
    return chosen


def _folds(targets: Targets, count: int) -> list[npt.NDArray[np.int64]]:
    """Rows of each fold; those of one class each are stratified.

    Raises:
        DataError: there are fewer samples, or of a class, than folds.
    """
    of_classes = targets.ndim == 1 and targets.dtype.kind in "iu"
    fewest = int(np.bincount(targets).min()) if of_classes else len(targets)
    if fewest < count:
        where = "of a class" if of_classes else "to learn from"
        raise DataError(f"{fewest} samples {where} make no {count} folds", f"use --set folds={max(fewest, 0)} or less")
    divided = (StratifiedKFold if of_classes else KFold)(count, shuffle=True, random_state=0)
    return [held for _, held in divided.split(targets, targets if of_classes else None)]


def _tried(
    train: tuple[Floats, Targets],
    val: tuple[Floats, Targets],
    solve: Solve,
    loss: Callable[[Floats, Targets], float],
    strengths: Sequence[float],
) -> Iterator[LinearHead]:
    """A head for each penalty, with its loss on ``val``.

    The features are centred and divided by one common scale for the fit, and both are then folded into the weights, so
    that the outcome is a plain linear layer. Dividing each feature by its own spread would give features that hardly
    vary enormous weights, and those leave 8-bit weights no resolution for the rest. Accuracy on a small split hardly
    tells penalties apart, and weaker ones give larger weights, which make a model that is harder to fine-tune and to
    quantize.

    Of fewer samples than features the fit is done in the space that the samples span: no direction outside of it lowers
    the loss, and each would raise the penalty (Hastie, Tibshirani and Friedman 2009, section 18.3.5).
    """
    features, targets = train
    centre = features.mean(0, dtype=np.float64)
    scale = 1 / max(float(np.sqrt(features.var(0, dtype=np.float64).mean())), 1e-6)
    standard = ((features - centre) * scale).astype(np.float32)
    standard, basis = _spanned(standard) if len(standard) < standard.shape[1] else (standard, None)
    for strength in strengths:
        with warnings.catch_warnings(), threadpool_limits(None if standard.size > LARGE else 1, "blas"):
            # A weak penalty may stop short of the optimum; the loss judges what it reached.
            warnings.simplefilter("ignore", ConvergenceWarning)
            coefficients, intercept = solve(standard, targets, strength)
        if basis is not None:
            coefficients = coefficients @ basis
        weight = (coefficients * scale).astype(np.float32)
        bias = (intercept - (coefficients * scale) @ centre).astype(np.float32)
        head = LinearHead(weight, bias, strength, 0.0)
        yield replace(head, loss=loss(head.outputs(val[0]), val[1]))


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
