"""One backbone for several tasks, and what each counts in training."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgetl.transfer.strategies import fine_tuning
from edgetl.transfer.strategies.base import LossTerm, StepContext, Strategy, TaskLoss
from edgetl.transfer.strategies.options import check

if TYPE_CHECKING:
    from torch import Tensor, nn

#: What a learned parameter is multiplied with: a log variance has to move by ones, where a step of fine-tuning moves a
#: weight by a ten-thousandth.
PACE = 100.0


def multi_task(
    weighting: str = "equal",
    layer_decay: float = 0.8,
    freeze: str = "0",
    batch_norm: str = "frozen",
    patience: int = 8,
) -> Strategy:
    """Everything is fine-tuned for all tasks of the data together.

    Caruana 1997, "Multitask Learning", Machine Learning 28. The data are a CSV file with a column ``label:NAME``,
    ``labels:NAME`` or ``target:NAME`` for each task; a sample without a label of a task counts for the others.

    Args:
        weighting: "equal" adds the losses of the tasks up; "uncertainty" learns how much each counts, exp(-s) times
            its loss plus s / 2 (Kendall, Gal and Cipolla 2018). That follows the losses: one that nears 0, such as of
            a number that is told exactly, then outweighs those of classes, which label smoothing keeps up.
        layer_decay: factor on the learning rate for each layer group further from the head; 1 for one rate.
        freeze: the share of the layer groups, from the input on, that stays as it is, such as 0.5, or "auto".
        batch_norm: "frozen" keeps the pretrained statistics, "train" uses and updates those of the batches.
        patience: epochs without a better validation score after which training ends.
    """
    check("weighting", weighting, weighting in ("uncertainty", "equal"), "uncertainty or equal")
    base = fine_tuning.fine_tune(layer_decay=layer_decay, freeze=freeze, batch_norm=batch_norm, patience=patience)
    return replace(base, terms=(TaskLoss(weighed=by_uncertainty if weighting == "uncertainty" else None),))


def by_uncertainty(term: LossTerm) -> LossTerm:
    """A summand times exp(-s), plus s / 2, where s, the log variance of its task, is learned from 0 on."""
    name = f"{term.name}, by its uncertainty"

    def loss(context: StepContext) -> Tensor:
        log_variance = PACE * context.owned[name].weight[0, 0]
        seen = 1.0 if term.applies is None else term.applies(context)
        return (-log_variance).exp() * term.loss(context) + seen * log_variance / 2

    return replace(term, name=name, loss=loss, owns=lambda features: _scalar())


def _scalar() -> nn.Module:
    import torch
    from torch import nn

    # A layer's weight, because optimizers and checkpoints know layers.
    made = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        made.weight.zero_()
    return made
