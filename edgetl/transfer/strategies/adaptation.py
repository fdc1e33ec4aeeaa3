"""From a labelled source domain to a target domain without labels: what lies apart is drawn together (``--target-data``)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgetl.transfer.strategies.base import (
    HeadSpec,
    LossTerm,
    Need,
    ParamPolicy,
    Schedule,
    StepContext,
    Strategy,
    TaskLoss,
)
from edgetl.transfer.strategies.options import check

if TYPE_CHECKING:
    from torch import Tensor, nn

TARGET = Need("target", "samples of the target domain, without labels")
_HEAD = HeadSpec(weakest_penalty=0.01, class_balance=1.0)
_SCHEDULE = Schedule(epochs=15, learning_rate=3e-4, weight_decay=0.05, warmup_epochs=1.0, patience=15, clip=1.0)
ADVERSARY = "domains told apart"


def adabn() -> Strategy:
    """A linear probe whose batch norms keep the target's statistics, and whose head has seen the source's own (AdaBN).

    Li et al. 2017, "Revisiting Batch Normalization for Practical Domain Adaptation".
    """
    return Strategy(
        ParamPolicy(trains="head", batch_norm="adapt"), HeadSpec(class_balance=1.0), terms=(), needs=(TARGET,)
    )


def coral(weight: float = 1.0) -> Strategy:
    """Fine-tuning under which the features' covariances of both domains approach each other (Sun and Saenko 2016).

    Args:
        weight: of the distance in the loss.
    """
    check("weight", weight, weight > 0, "a positive number")
    return _aligned(LossTerm(f"CORAL ({weight:g})", _coral, lambda done: weight))


def mmd(weight: float = 1.0) -> Strategy:
    """Fine-tuning under which the features' distributions of both domains approach each other (Long et al. 2015).

    Args:
        weight: of the maximum mean discrepancy in the loss.
    """
    check("weight", weight, weight > 0, "a positive number")
    return _aligned(LossTerm(f"MMD ({weight:g})", _mmd, lambda done: weight))


def dann(weight: float = 1.0, width: int = 256) -> Strategy:
    """Fine-tuning against a discriminator that tells the domains apart, and is no part of the export (Ganin et al. 2016).

    Args:
        weight: of the reversed gradient at the end; it rises from 0.
        width: of the discriminator's hidden layers.
    """
    check("weight", weight, weight > 0, "a positive number")
    check("width", width, width >= 1, "at least 1")
    return _aligned(LossTerm(ADVERSARY, lambda context: _adversary(context, weight), owns=_discriminator(width)))


def _aligned(term: LossTerm) -> Strategy:
    return Strategy(ParamPolicy(layer_decay=0.8), _HEAD, terms=(TaskLoss(), term), schedule=_SCHEDULE, needs=(TARGET,))


def _both(context: StepContext) -> tuple[Tensor, Tensor]:
    """What the head sees of the source's batch and of the target's."""
    assert context.features is not None
    assert context.observe is not None
    return context.features, context.observe(context.streams["target"].inputs)[0]


def _coral(context: StepContext) -> Tensor:
    from edgetl.transfer import divergence

    return divergence.coral(*_both(context))


def _mmd(context: StepContext) -> Tensor:
    from edgetl.transfer import divergence

    return divergence.mmd(*_both(context))


def _adversary(context: StepContext, weight: float) -> Tensor:
    from edgetl.transfer import divergence

    # The gradient's factor rises as Ganin's: features move only once the discriminator has learned something.
    factor = weight * (2 / (1 + math.exp(-10 * context.done)) - 1)
    source, target = (divergence.reversed_gradient(x, factor) for x in _both(context))
    return divergence.told_apart(context.owned[ADVERSARY], source, target)


def _discriminator(width: int) -> Callable[[int], nn.Module]:
    def made(features: int) -> nn.Module:
        from edgetl.transfer.divergence import Discriminator

        return Discriminator(features, width)

    return made
