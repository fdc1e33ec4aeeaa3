"""The head alone, or the head and then everything."""

from __future__ import annotations

from edgetl.transfer.strategies.base import HeadSpec, ParamPolicy, Schedule, Strategy


def linear_probe() -> Strategy:
    """The backbone stays as it is; an L2-regularised linear head is fitted on its features."""
    return Strategy(ParamPolicy(trains="head"), HeadSpec(class_balance=1.0), terms=())


def fine_tune() -> Strategy:
    """The linear probe's head first, then everything, slower the further from the head (LP-FT, Kumar et al. 2022)."""
    return Strategy(
        ParamPolicy(trains="all", layer_decay=0.8, batch_norm="frozen"),
        HeadSpec(weakest_penalty=0.01, class_balance=1.0),
        schedule=Schedule(epochs=15, learning_rate=3e-4, weight_decay=0.05, warmup_epochs=1.0, patience=8, clip=1.0),
    )
