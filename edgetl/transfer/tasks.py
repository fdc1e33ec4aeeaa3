"""How a network learns a task: the half of it that needs torch. The other half is in :mod:`edgetl.tasks`.

A task's labels decide it: one class a sample, any number of classes, or a number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from edgetl.core.data import parts_of
from edgetl.core.tensors import Arrays, packed
from edgetl.tasks import Task
from edgetl.tasks.several import numbered
from edgetl.transfer import class_means, heads, losses, scores
from edgetl.transfer.head_search import LinearHead
from edgetl.transfer.learner import Labels, Learner, Scale
from edgetl.transfer.scores import Scores
from edgetl.transfer.several import learner_of_several
from edgetl.transfer.strategies import terms
from edgetl.transfer.strategies.base import HeadSpec


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
    if spec.kind != "linear":
        return class_means.fit(spec.kind, train, val, classes, spec.shrinkage).head
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


def learner_of(task: Task, classes: Sequence[str] = (), kept: Collection[str] = ()) -> Learner:
    """How a network learns this task.

    Args:
        task: what it is for.
        classes: names of the data's; only of several tasks at once they matter, and there only beyond the names of the
            loss's terms.
        kept: of several tasks, those whose outputs are to stay as they are.
    """
    if not task.parts:
        return LEARNERS[task.labels]
    return learner_of_several([(part, LEARNERS[part.kind]) for part in parts_of(task.labels, classes)], kept)


def scored(task: Task, outputs: Arrays, labels: Labels) -> Scores:
    """Score a network's outputs, in the labels' unit, against labels; their first axis is n."""
    learner = learner_of(task, numbered(task.parts, outputs))
    values = packed(outputs)
    ranked = learner.ranked if learner.ranked and learner.ranked in task.metrics else task.metric
    smooth = scores.calibrated(learner.loss, values, labels) if learner.tempers and len(labels) < scores.FEW else None
    return scores.score(task, outputs, labels, learner.loss(values, labels), ranked, smooth)


__all__ = ["LEARNERS", "Learner", "Scale", "learner_of", "scored"]
