"""Summands of the loss of one class a sample that a strategy's options choose; torch is imported where they work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.transfer.strategies.base import LossTerm, StepContext

if TYPE_CHECKING:
    from torch import Tensor


#: As every strategy has it that names none.
SMOOTHING, BALANCE = 0.1, 0.5


def classes(smoothing: float, balance: float, focal: float) -> LossTerm:
    """Cross-entropy with label smoothing (Szegedy et al. 2016), weights of classes, and the focal factor.

    Args:
        smoothing: share of each label that all classes get, 0 to 1.
        balance: class c weighs (samples of c)^-balance, 1 on average over the training samples.
        focal: exponent γ of (1 - p)^γ, p being what the model gives the label; 0 for none (Lin et al. 2017). What is
            right already counts less.
    """

    def loss(context: StepContext) -> Tensor:
        import torch
        from torch.nn import functional

        each = functional.cross_entropy(context.outputs, context.targets, reduction="none", label_smoothing=smoothing)
        if focal:
            likely = torch.softmax(context.outputs, 1).gather(1, context.targets[:, None])[:, 0]
            each = each * (1 - likely) ** focal
        raw = context.class_counts**-balance
        average = (raw * context.class_counts).sum() / context.class_counts.sum()
        return (each * (raw / average)[context.targets]).mean()

    named = f"label smoothing {smoothing:g}, class balance {balance:g}" + (f", focal {focal:g}" if focal else "")
    return LossTerm(f"cross-entropy ({named})", loss)
