"""How a network learns several tasks at once: one linear head whose outputs are shared out among them.

A sample counts in the loss, the fit and the scores of those tasks that it has a label of. Targets are float32
(n, columns of the labels), NaN where there is no label.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgetl.base.errors import DataError
from edgetl.core.data import Part
from edgetl.transfer import heads
from edgetl.transfer.head_search import LinearHead
from edgetl.transfer.learner import Floats, Labels, Learner, Scale
from edgetl.transfer.strategies.base import HeadSpec, LossTerm, StepContext

Parts = Sequence[tuple[Part, Learner]]


def learner_of_several(parts: Parts, kept: Collection[str] = ()) -> Learner:
    """How several tasks are learned together; each one's loss is a term of its own.

    Args:
        parts: the tasks, each with how it is learned by itself.
        kept: names of those whose outputs are to stay as they are: no head is fitted for them, no loss counts them.
    """
    learned = [(part, learner) for part, learner in parts if part.name not in kept]
    return Learner(
        labels="+".join(part.name for part, _ in parts),
        scale=partial(_scale, parts, kept),
        targets=partial(_targets, parts),
        counts=lambda labels, classes: np.concatenate([_counts(part, learner, labels) for part, learner in parts]),
        fit=partial(_fit, learned),
        terms=tuple(_term(part, learner, term) for part, learner in learned for term in learner.terms),
        answers=lambda outputs: list(zip(*(own.answers(outputs[:, part.outputs]) for part, own in parts), strict=True)),
        right=None,
        loss=partial(_loss, parts),
    )


def _own(part: Part, labels: Labels) -> Labels:
    """A task's own labels; it needs some.

    Raises:
        DataError: no sample has one.
    """
    found = part.own(labels)
    if not len(found):
        raise DataError(f"no sample to learn from has a label of the task '{part.name}'", "add some to every split")
    return found


def _scale(parts: Parts, kept: Collection[str], labels: Labels) -> Scale:
    centre, spread = list[float](), list[float]()
    for part, learner in parts:
        own = Scale() if part.name in kept else learner.scale(_own(part, labels))
        centre += [float(np.asarray(own.centre))] * part.width
        spread += [float(np.asarray(own.spread))] * part.width
    return Scale(tuple(centre), tuple(spread))


def _of(scale: Scale, part: Part) -> Scale:
    centre, spread = (np.asarray(values)[part.outputs] for values in (scale.centre, scale.spread))
    return Scale(float(centre[0]), float(spread[0]))


def _targets(parts: Parts, labels: Labels, scale: Scale) -> Labels:
    found = np.full(labels.shape, np.nan, np.float32)
    for part, learner in parts:
        own = learner.targets(part.own(labels), _of(scale, part))
        found[part.known(labels), part.labels] = own.reshape(len(own), part.columns)
    return found


def _counts(part: Part, learner: Learner, labels: Labels) -> Floats:
    """Samples of each class, one number for each output."""
    found = learner.counts(part.own(labels), part.width)
    return found if len(found) else np.zeros(part.width, np.float32)


def _fit(parts: Parts, train: heads.Part, val: heads.Part, classes: int, spec: HeadSpec) -> LinearHead:
    """Each task's head on the samples that have a label of it, one above the other."""
    fitted = []
    for part, learner in parts:
        held = [_known(part, features, targets) for features, targets in (train, val)]
        if not all(len(features) for features, _ in held):
            what = f"a split without any label of the task '{part.name}' cannot fit its head"
            raise DataError(what, "give more samples labels of it")
        fitted.append(learner.fit(held[0], held[1], part.width, spec))
    return LinearHead(
        np.concatenate([head.weight for head in fitted]),
        np.concatenate([head.bias for head in fitted]),
        fitted[0].inverse_penalty,
        float(np.mean([head.loss for head in fitted])),
    )


def _known(part: Part, features: Floats, targets: Any) -> tuple[Floats, Any]:
    known = part.known(targets)
    own = targets[known, part.labels]
    return features[known], own[:, 0].astype(np.int64) if part.kind == "class" else own


def _loss(parts: Parts, outputs: Floats, labels: Labels) -> float:
    """The sum over the tasks that have a label here, numbers in standard deviations of these."""
    total = 0.0
    for part, learner in parts:
        known, own = part.known(labels), part.own(labels)
        if len(own):
            loss = learner.loss(outputs[known, part.outputs], own)
            total += loss / (float(np.var(own)) or 1.0) if part.kind == "number" else loss
    return total


def _term(part: Part, learner: Learner, term: LossTerm) -> LossTerm:
    """A task's own term, of the samples of a batch that have a label of it."""

    def loss(context: StepContext) -> Tensor:
        known = _labelled(part, context)
        if not known.any():
            return context.outputs[:, part.outputs].sum() * 0
        targets = context.targets[known, part.labels]
        own = replace(
            context,
            targets=targets[:, 0].long() if part.kind == "class" else targets,
            outputs=context.outputs[known][:, part.outputs],
            class_counts=context.class_counts[part.outputs],
            labels=part.kind,
        )
        return term.loss(own)

    speaks: Callable[[StepContext], Tensor] = lambda context: _labelled(part, context).any()  # noqa: E731
    return replace(term, name=f"{part.name}: {term.name}", loss=loss, applies=speaks)


def _labelled(part: Part, context: StepContext) -> Tensor:
    return ~torch.isnan(context.targets[:, part.labels.start])
