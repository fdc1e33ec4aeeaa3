"""Heads in closed form, from the means of the classes: for few samples, and open to further classes on the device."""

from __future__ import annotations

from typing import Literal

from edgetl.transfer.strategies.base import HeadSpec, ParamPolicy, Strategy
from edgetl.transfer.strategies.options import check

Kind = Literal["prototype", "nearest-mean", "slda", "cosine", "ridge"]


def prototype() -> Strategy:
    """The backbone stays as it is; the nearest class mean by squared Euclidean distance answers.

    Snell et al. 2017, "Prototypical Networks for Few-shot Learning", section 2.4; without episodic training.
    """
    return _of_means("prototype")


def nearest_mean(shrinkage: float = 0.0) -> Strategy:
    """The backbone stays as it is; the nearest class mean answers, each feature in units of its spread in the classes.

    Mensink et al. 2013, "Distance-Based Image Classification: Generalizing to New Classes at Near-Zero Cost", with a
    diagonal metric.

    Args:
        shrinkage: of the variances towards their mean, up to 1; 0 to choose it on validation samples.
    """
    return _of_means("nearest-mean", shrinkage)


def slda(shrinkage: float = 0.0) -> Strategy:
    """The backbone stays as it is; linear discriminant analysis, one covariance for all classes, answers.

    Hayes and Kanan 2020, "Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis"; classes that are
    added later find the covariance fixed.

    Args:
        shrinkage: of the covariance towards a multiple of the identity, up to 1; 0 to choose it on validation samples.
    """
    return _of_means("slda", shrinkage)


def cosine() -> Strategy:
    """The backbone stays as it is; the class whose mean direction is the most alike answers.

    Qi et al. 2018, "Low-Shot Learning with Imprinted Weights".
    """
    return _of_means("cosine")


def ridge(shrinkage: float = 0.0) -> Strategy:
    """The backbone stays as it is; ridge regression to the classes answers, in closed form.

    Bertinetto et al. 2019, "Meta-learning with Differentiable Closed-form Solvers", section 3.1; without its training.

    Args:
        shrinkage: the penalty as a multiple of the features' mean variance; 0 to choose it on validation samples.
    """
    return _of_means("ridge", shrinkage)


def _of_means(kind: Kind, shrinkage: float = 0.0) -> Strategy:
    check("shrinkage", shrinkage, 0 <= shrinkage <= 1, "a number from 0 to 1")
    return Strategy(
        ParamPolicy(trains="head"),
        HeadSpec(kind=kind, shrinkage=shrinkage),
        terms=(),
        labels=("class",),
    )
