"""Heads that are made of class means: in closed form, from few samples, and open to further classes.

Each is a rule (:class:`edgetl.core.class_rule.ClassRule`) that makes a row of a linear head from a class's mean; they
differ in the metric. What is left to choose, how far a covariance is shrunk, is chosen on validation samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError
from edgetl.core.class_rule import ClassRule
from edgetl.transfer import scores
from edgetl.transfer.head_search import Doubles, Floats, LinearHead

Labels = npt.NDArray[np.int64]
#: Shares of the identity, as large as the mean variance, in a covariance that are tried (Ledoit and Wolf 2004 choose
#: one from the samples; validation samples are at hand here).
SHRINKAGES = (1e-4, 1e-3, 1e-2, 1e-1, 0.3, 1.0)
#: Of features that never vary.
_LEAST = 1e-12
_NONE = np.zeros(0, np.float32)


@dataclass(frozen=True)
class ClassMeans:
    """A fitted head of class means.

    Attributes:
        rule: from a mean to a row.
        means: float32 (classes, features), of what :meth:`ClassRule.prepared` gives.
        counts: samples of each class, int64 (classes,).
        shrinkage: as chosen; 0 where there is nothing to choose.
        loss: cross-entropy on the validation samples.
    """

    rule: ClassRule
    means: Floats
    counts: Labels
    shrinkage: float
    loss: float

    @property
    def head(self) -> LinearHead:
        """As a linear layer."""
        weight, bias = self.rule.rows(self.means)
        return LinearHead(weight, bias, 1 / self.shrinkage if self.shrinkage else float("inf"), self.loss)


#: Features (n, d), labels, classes, shrinkages to try → a shrinkage and its rule.
Rules = Callable[[Floats, Labels, int, Sequence[float]], Iterator[tuple[float, ClassRule]]]


def _prototype(x: Floats, y: Labels, classes: int, shrinkages: Sequence[float]) -> Iterator[tuple[float, ClassRule]]:
    """Squared Euclidean distance: weight 2p, bias -|p|² (Snell et al. 2017, equation 8)."""
    yield 0.0, ClassRule(False, True, 2.0, 0.0, _zeros(x), _NONE)


def _cosine(x: Floats, y: Labels, classes: int, shrinkages: Sequence[float]) -> Iterator[tuple[float, ClassRule]]:
    """Imprinted weights: the mean of features of length 1, of length 1 itself (Qi et al. 2018)."""
    yield 0.0, ClassRule(True, False, 1.0, 0.0, _zeros(x), _NONE)


def _nearest_mean(x: Floats, y: Labels, classes: int, shrinkages: Sequence[float]) -> Iterator[tuple[float, ClassRule]]:
    """Distance in units of each feature's spread within the classes (Mensink et al. 2013, a diagonal metric)."""
    spread = _within(x, y, classes).var(0)
    for share in shrinkages:
        shrunk = (1 - share) * spread + share * max(float(spread.mean()), _LEAST)
        yield share, ClassRule(False, True, 2.0, 0.0, _zeros(x), (1 / np.maximum(shrunk, _LEAST)).astype(np.float32))


def _slda(x: Floats, y: Labels, classes: int, shrinkages: Sequence[float]) -> Iterator[tuple[float, ClassRule]]:
    """Mahalanobis distance of one covariance for all classes (Hayes and Kanan 2020, equation 3)."""
    within = _within(x, y, classes)
    sizes, axes = np.linalg.eigh(within.T @ within / len(within))
    centre = _means(x, y, classes).mean(0).astype(np.float32)
    for share in shrinkages:
        shrunk = np.maximum((1 - share) * sizes + share * sizes.mean(), _LEAST)
        yield share, ClassRule(False, True, 1.0, 0.0, centre, ((axes / shrunk) @ axes.T).astype(np.float32))


def _ridge(x: Floats, y: Labels, classes: int, shrinkages: Sequence[float]) -> Iterator[tuple[float, ClassRule]]:
    """Ridge regression to 1 for a sample's class and -1 for the others, classes of equal weight, in closed form.

    The penalty is a multiple of the mean variance, so that it means the same for features of any size.
    """
    weights = (len(y) / classes / np.bincount(y, minlength=classes))[y]
    centre = _means(x, y, classes).mean(0)
    z = x.astype(np.float64) - centre
    sizes, axes = np.linalg.eigh((z * weights[:, None]).T @ z)
    for share in shrinkages:
        penalised = np.maximum(sizes + share * sizes.mean(), _LEAST)
        matrix = ((axes / penalised) @ axes.T).astype(np.float32)
        yield share, ClassRule(False, False, 2 * len(y) / classes, 2 / classes - 1, centre.astype(np.float32), matrix)


#: By :attr:`edgetl.transfer.strategies.base.HeadSpec.kind`.
KINDS: Mapping[str, Rules] = {
    "prototype": _prototype,
    "nearest-mean": _nearest_mean,
    "slda": _slda,
    "cosine": _cosine,
    "ridge": _ridge,
}


def fit(
    kind: str, train: tuple[Floats, Labels], val: tuple[Floats, Labels], classes: int, shrinkage: float = 0.0
) -> ClassMeans:
    """The head of a kind, its logits at the temperature that is best for the validation samples (Guo et al. 2017).

    Args:
        kind: key of :data:`KINDS`.
        train, val: features, float32 (n, d), and labels, int64 (n,).
        classes: how many there are; each must occur in ``train``.
        shrinkage: of the covariance, 0 to 1; 0 to choose it on ``val``.

    Raises:
        DataError: a class has no training sample.
    """
    (x, y), given = train, (shrinkage,) if shrinkage else SHRINKAGES
    counts = np.bincount(y, minlength=classes)
    if counts.min() == 0:
        raise DataError(f"class {int(counts.argmin())} has no training sample", "add samples or change the splits")
    found = []
    for share, rule in KINDS[kind](x, y, classes, given):
        means = _means(rule.prepared(x), y, classes).astype(np.float32)
        found.append(_tempered(ClassMeans(rule, means, counts, share, 0.0), val))
    return min(found, key=lambda one: one.loss)


def _tempered(found: ClassMeans, val: tuple[Floats, Labels]) -> ClassMeans:
    outputs = found.head.outputs(val[0])
    factor = float(scores.factor(scores.cross_entropy, outputs, val[1]))
    loss = scores.cross_entropy(np.float32(factor) * outputs, val[1])
    rule = replace(found.rule, gain=found.rule.gain * factor, offset=found.rule.offset * factor)
    return replace(found, rule=rule, loss=loss)


def _zeros(x: Floats) -> Floats:
    return np.zeros(x.shape[1], np.float32)


def _means(x: npt.NDArray[Any], y: Labels, classes: int) -> Doubles:
    sums = np.zeros((classes, x.shape[1]))
    np.add.at(sums, y, x)
    means: Doubles = sums / np.bincount(y, minlength=classes)[:, None]
    return means


def _within(x: Floats, y: Labels, classes: int) -> Doubles:
    """Samples less the mean of their class."""
    differences: Doubles = x - _means(x, y, classes)[y]
    return differences
