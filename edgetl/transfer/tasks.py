"""How a network learns a task: the half of it that needs torch. The other half is in :mod:`edgetl.tasks`.

A task's labels decide it: one class a sample, any number of classes, or a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgetl.core.data import Label
from edgetl.core.tensors import Arrays
from edgetl.tasks import Task
from edgetl.transfer import heads, losses, scores
from edgetl.transfer.head_search import LinearHead
from edgetl.transfer.scores import Scores
from edgetl.transfer.strategies import terms
from edgetl.transfer.strategies.base import HeadSpec, LossTerm

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[Any]


@dataclass(frozen=True)
class Scale:
    """From what the head gives in training to the labels' unit: output * spread + centre."""

    centre: float = 0.0
    spread: float = 1.0

    def applied(self, outputs: Floats) -> Floats:
        """Outputs of training in the labels' unit."""
        return outputs if self == Scale() else np.asarray(outputs * self.spread + self.centre, dtype=np.float32)

    def fold(self, head: nn.Linear) -> None:
        """Make a head that was trained give the labels' unit, in place."""
        if self != Scale():
            with torch.no_grad():
                head.weight.mul_(self.spread)
                head.bias.mul_(self.spread).add_(self.centre)


@dataclass(frozen=True)
class Learner:
    """What learning needs to know of one kind of label.

    Attributes:
        labels: the kind, a key of :data:`edgetl.core.data.labels.LABEL_KINDS`.
        scale: training labels → from what the head gives in training to their unit.
        targets: labels and that scale → what the head is fitted to and the loss compares with, first axis n.
        counts: training labels and the number of classes → samples of each class, float32 (classes,).
        fit: targets of train and val with their features, classes, what the strategy asks for → the fitted head.
        terms: of the loss, where the strategy names none.
        answers: outputs in the labels' unit → the labels that they stand for, one a sample.
        right: outputs and targets of a batch → samples answered rightly, a sum; None where there is no such thing.
        loss: outputs in the labels' unit, and labels → what validation reports beside the task's metrics.
        tempers: whether the loss is of logits, so that few samples are judged by it at their best temperature.
        ranked: the metric by which epochs are compared, of a task that has it; else its default.
    """

    labels: str
    scale: Callable[[Labels], Scale]
    targets: Callable[[Labels, Scale], Labels]
    counts: Callable[[Labels, int], Floats]
    fit: Callable[[heads.Part, heads.Part, int, HeadSpec], LinearHead]
    terms: tuple[LossTerm, ...]
    answers: Callable[[Floats], list[Label]]
    right: Callable[[Tensor, Tensor], Tensor] | None
    loss: Callable[[Floats, Labels], float]
    tempers: bool = False
    ranked: str | None = None


def _standard(labels: Labels) -> Scale:
    spread = float(labels.std())
    return Scale(float(labels.mean()), spread if spread > 0 else 1.0)


#: Fits of the head for one class a sample, by :attr:`HeadSpec.fit`.
FITS: Mapping[str, Callable[..., LinearHead]] = {
    "logistic": heads.logistic,
    "ridge": heads.ridge_classes,
    "svm": heads.support_vectors,
}


def _fit_classes(train: Any, val: Any, classes: int, spec: HeadSpec) -> LinearHead:
    how = (train, val, classes, spec.class_balance, spec.weakest_penalty, spec.folds)
    if spec.fit != "best":
        return FITS[spec.fit](*how)
    return min((fit(*how) for fit in FITS.values()), key=lambda head: head.loss)


def _fit_one_vs_rest(train: Any, val: Any, classes: int, spec: HeadSpec) -> LinearHead:
    return heads.one_vs_rest(train, val, classes, spec.weakest_penalty, spec.folds)


def _fit_ridge(train: Any, val: Any, classes: int, spec: HeadSpec) -> LinearHead:
    return heads.ridge(train, val, spec.weakest_penalty, spec.folds)


#: By the kind of label.
LEARNERS: Mapping[str, Learner] = {
    learner.labels: learner
    for learner in (
        Learner(
            labels="class",
            scale=lambda labels: Scale(),
            targets=lambda labels, scale: labels,
            counts=lambda labels, classes: np.bincount(labels, minlength=classes).astype(np.float32),
            fit=_fit_classes,
            terms=(terms.classes(terms.SMOOTHING, terms.BALANCE, focal=0.0),),
            answers=lambda outputs: [int(index) for index in outputs.argmax(1)],
            right=lambda outputs, targets: (outputs.argmax(1) == targets).sum(),
            loss=scores.cross_entropy,
            tempers=True,
            ranked="balanced-accuracy",
        ),
        Learner(
            labels="classes",
            scale=lambda labels: Scale(),
            targets=lambda labels, scale: labels.astype(np.float32),
            counts=lambda labels, classes: labels.sum(0).astype(np.float32),
            fit=_fit_one_vs_rest,
            terms=(losses.binary_cross_entropy(),),
            answers=lambda outputs: [tuple(np.flatnonzero(row > 0).tolist()) for row in outputs],
            right=lambda outputs, targets: ((outputs > 0) == (targets > 0)).all(1).sum(),
            loss=scores.binary_cross_entropy,
            tempers=True,
        ),
        Learner(
            labels="number",
            scale=_standard,
            targets=lambda labels, scale: ((labels - scale.centre) / scale.spread).astype(np.float32)[:, None],
            counts=lambda labels, classes: np.zeros(0, np.float32),
            fit=_fit_ridge,
            terms=(losses.smooth_l1(),),
            answers=lambda outputs: [float(value) for value in outputs[:, 0]],
            right=None,
            loss=scores.squared_error,
        ),
    )
}


def learner_of(task: Task) -> Learner:
    """How a network learns this task."""
    return LEARNERS[task.labels]


def scored(task: Task, outputs: Arrays, labels: Labels) -> Scores:
    """Score a network's outputs, in the labels' unit, against labels; their first axis is n."""
    learner = learner_of(task)
    (values,) = outputs.values()
    ranked = learner.ranked if learner.ranked and learner.ranked in task.metrics else task.metric
    smooth = scores.calibrated(learner.loss, values, labels) if learner.tempers and len(labels) < scores.FEW else None
    return scores.score(task, outputs, labels, learner.loss(values, labels), ranked, smooth)
