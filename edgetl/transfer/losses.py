"""Summands of a loss, each the mean over a batch."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from edgetl.transfer.strategies.base import LossTerm, StepContext


def binary_cross_entropy() -> LossTerm:
    """Cross-entropy of each class's presence, the mean over the classes, for samples of any number of classes."""

    def loss(context: StepContext) -> Tensor:
        return functional.binary_cross_entropy_with_logits(context.outputs, context.targets)

    return LossTerm("binary cross-entropy", loss)


def smooth_l1() -> LossTerm:
    """Huber's loss of standardised numbers: quadratic up to one standard deviation, linear beyond (Huber 1964)."""

    def loss(context: StepContext) -> Tensor:
        return functional.smooth_l1_loss(context.outputs, context.targets)

    return LossTerm("smooth L1 of standardised targets", loss)
