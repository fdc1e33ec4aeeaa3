"""The head alone, or the head and then everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgetl.transfer.strategies.base import (
    HeadSpec,
    LossTerm,
    ParamPolicy,
    Schedule,
    StepContext,
    Strategy,
    TaskLoss,
)
from edgetl.transfer.strategies.options import check

if TYPE_CHECKING:
    from torch import Tensor


def linear_probe() -> Strategy:
    """The backbone stays as it is; an L2-regularised linear head is fitted on its features."""
    return Strategy(ParamPolicy(trains="head"), HeadSpec(class_balance=1.0), terms=())


def fine_tune(trains: str = "all", l2_sp: float = 0.0) -> Strategy:
    """The linear probe's head first, then everything, slower the further from the head (LP-FT, Kumar et al. 2022).

    Args:
        trains: "all", "head", or patterns of the backbone's parameter names with commas between (head,blocks.5.*).
        l2_sp: pull of what trains towards its pretrained start; 0 for none (L2-SP, Li et al. 2018).
    """
    check("l2_sp", l2_sp, l2_sp >= 0, "0 or more")
    return Strategy(
        ParamPolicy(trains=trains, layer_decay=0.8, batch_norm="frozen"),
        HeadSpec(weakest_penalty=0.01, class_balance=1.0),
        terms=(TaskLoss(), _from_start(l2_sp)) if l2_sp else (TaskLoss(),),
        schedule=Schedule(epochs=15, learning_rate=3e-4, weight_decay=0.05, warmup_epochs=1.0, patience=8, clip=1.0),
        anchor="start" if l2_sp else None,
    )


def _from_start(strength: float) -> LossTerm:
    def loss(context: StepContext) -> Tensor:
        assert context.anchor is not None
        start = dict(context.anchor.named_parameters())
        moved = [(name, now) for name, now in context.model.named_parameters() if now.requires_grad]
        return sum(((now - start[name]) ** 2).sum() for name, now in moved) * (strength / 2)

    return LossTerm(f"L2-SP ({strength:g})", loss)
