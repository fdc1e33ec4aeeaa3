"""What a transfer is measured against."""

from __future__ import annotations

from dataclasses import replace

from edgetl.transfer.strategies.base import HeadSpec, ParamPolicy, Strategy
from edgetl.transfer.strategies.fine_tuning import fine_tune


def from_scratch() -> Strategy:
    """Random weights, fine-tuning's loss and budget: what the same training comes to with nothing transferred.

    What was chosen for pretrained weights is not kept: batch norm learns its statistics, every layer has the same
    learning rate, and no patience cuts the budget short. That rate is one at which a network learns from nothing: on
    the digits at 64 pixels, 4 epochs of EfficientNet-Lite0 came to a validation accuracy of 0.33 at 3e-4, 0.36 at 1e-3,
    0.84 at 3e-3 and 0.67 at 1e-2.
    """
    tuned = fine_tune()
    return replace(
        tuned,
        params=ParamPolicy(trains="all", layer_decay=1.0, batch_norm="train", embeddings="train"),
        head=HeadSpec(start="random"),
        schedule=replace(tuned.schedule, learning_rate=3e-3, patience=1_000_000),
    )
