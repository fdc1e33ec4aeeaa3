"""From a labelled source domain to a target domain without labels, which certifies (``--target-data``)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, cast, get_args

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

#: As in :data:`edgetl.transfer.validators.VALIDATORS`.
VALIDATORS = ("both", "information", "certainty", "nuclear-norm", "density", "source")
Statistics = Literal["frozen", "train", "adapt"]
_HEAD = HeadSpec(weakest_penalty=0.01, class_balance=1.0)
_SCHEDULE = Schedule(epochs=15, learning_rate=3e-4, weight_decay=0.05, warmup_epochs=1.0, patience=15, clip=1.0)
_LAYER_DECAY = 0.8
ADVERSARY = "domains told apart"


def _target(about: str) -> tuple[Need, ...]:
    return (Need("target", about),)


def source_only() -> Strategy:
    """Fine-tuning on the source alone, certified on the target: what adaptation is measured against."""
    return Strategy(
        ParamPolicy(layer_decay=_LAYER_DECAY),
        _HEAD,
        schedule=_SCHEDULE,
        needs=(Need("target", "samples of the target domain to certify on", trains=False),),
        certifies="target",
        validator="source",
    )


def adabn() -> Strategy:
    """A linear probe whose batch norms end with the target's statistics; its head has seen the source's own (AdaBN).

    Li et al. 2017, "Revisiting Batch Normalization for Practical Domain Adaptation".
    """
    return Strategy(
        ParamPolicy(trains="head", batch_norm="adapt"),
        HeadSpec(class_balance=1.0),
        terms=(),
        needs=_target("samples of the target domain, whose statistics its batch norms take"),
        certifies="target",
        validator="source",
    )


def coral(weight: float = 3.0, batch_norm: str = "adapt", validator: str = "both") -> Strategy:
    """Fine-tuning under which the covariances of both domains' features approach each other (Deep CORAL).

    Sun and Saenko 2016, "Deep CORAL: Correlation Alignment for Deep Domain Adaptation".

    Args:
        weight: of the distance in the loss, in units of the source's spread. Digits of another collection were answered
            rightly by 62 % without it, by 79 % at 3, by 85 % at 10, and by chance at 30.
        batch_norm: whose statistics batch norms use: the pretrained ones, those of each batch, or, to adapt, each
            domain's own in training and the target's in the end.
        validator: by what the epoch is chosen that is kept, without a label of the target.
    """
    check("weight", weight, weight > 0, "a positive number")
    return _aligned(LossTerm(f"CORAL ({weight:g})", _coral, lambda done: weight), batch_norm, validator)


def mmd(weight: float = 1.0, batch_norm: str = "adapt", validator: str = "both") -> Strategy:
    """Fine-tuning under which the distributions of both domains' features approach each other (MMD).

    Long et al. 2015, "Learning Transferable Features with Deep Adaptation Networks".

    Args:
        weight: of the maximum mean discrepancy in the loss.
        batch_norm: whose statistics batch norms use, as for ``coral``.
        validator: by what the epoch is chosen that is kept, without a label of the target.
    """
    check("weight", weight, weight > 0, "a positive number")
    return _aligned(LossTerm(f"MMD ({weight:g})", _mmd, lambda done: weight), batch_norm, validator)


def dann(weight: float = 1.0, width: int = 256, batch_norm: str = "adapt", validator: str = "both") -> Strategy:
    """Fine-tuning against a discriminator that tells the domains apart, and is no part of the export (DANN).

    Ganin et al. 2016, "Domain-Adversarial Training of Neural Networks".

    Args:
        weight: of the reversed gradient at the end; it rises from 0.
        width: of the discriminator's hidden layers.
        batch_norm: whose statistics batch norms use, as for ``coral``.
        validator: by what the epoch is chosen that is kept, without a label of the target.
    """
    check("weight", weight, weight > 0, "a positive number")
    check("width", width, width >= 1, "at least 1")
    term = LossTerm(ADVERSARY, lambda context: _adversary(context, weight), owns=_discriminator(width))
    return _aligned(term, batch_norm, validator)


def shot(batch_norm: str = "adapt", validator: str = "information") -> Strategy:
    """Source-free: a trained backbone moves so that its answers to the target become sure and various (SHOT-IM).

    The head stays, and no label has a part in the loss; give the run of the source with ``--from``. Liang et al. 2020,
    "Do We Really Need to Access the Source Data? Source Hypothesis Transfer for Unsupervised Domain Adaptation".

    Args:
        batch_norm: whose statistics batch norms use, as for ``coral``.
        validator: by what the epoch is chosen that is kept, without a label of the target.
    """
    return Strategy(
        ParamPolicy(trains="backbone", layer_decay=_LAYER_DECAY, batch_norm=_statistics(batch_norm)),
        HeadSpec(class_balance=1.0),
        terms=(LossTerm("information of the target's answers", _information),),
        schedule=_SCHEDULE,
        labels=("class",),
        needs=(
            *_target("samples of the target domain, without labels"),
            Need("previous", "the source's run", optional=True),
        ),
        certifies="target",
        validator=_validator(validator),
    )


def _aligned(term: LossTerm, batch_norm: str, validator: str) -> Strategy:
    return Strategy(
        ParamPolicy(layer_decay=_LAYER_DECAY, batch_norm=_statistics(batch_norm)),
        _HEAD,
        terms=(TaskLoss(), term),
        schedule=_SCHEDULE,
        needs=_target("samples of the target domain, without labels"),
        certifies="target",
        validator=_validator(validator),
    )


def _statistics(given: str) -> Statistics:
    known = get_args(Statistics)
    check("batch_norm", given, given in known, " or ".join(known))
    return cast(Statistics, given)


def _validator(given: str) -> str:
    check("validator", given, given in VALIDATORS, " or ".join(VALIDATORS))
    return given


def _both(context: StepContext) -> tuple[Tensor, Tensor]:
    """What the head sees of the source's batch and of the target's."""
    assert context.features is not None
    assert context.observe is not None
    return context.features, context.observe(context.streams["target"].inputs)[0]


def _coral(context: StepContext) -> Tensor:
    from edgetl.transfer import divergence

    source, target = _both(context)
    # In units of the source's own spread: else the weight would depend on how large features happen to be.
    spread = source.detach().var(0).mean().sqrt().clamp_min(1e-6)
    return divergence.coral(source / spread, target / spread)


def _mmd(context: StepContext) -> Tensor:
    from edgetl.transfer import divergence

    return divergence.mmd(*_both(context))


def _information(context: StepContext) -> Tensor:
    from edgetl.transfer import divergence

    assert context.observe is not None
    return divergence.information(context.observe(context.streams["target"].inputs)[1])


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
