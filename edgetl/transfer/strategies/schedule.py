"""How long a strategy trains, how fast, and how samples of a batch are mixed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        epochs: passes over the training samples; 0 for a strategy that needs none.
        learning_rate: AdamW's highest, of the head.
        weight_decay: AdamW's.
        warmup_epochs: linear rise of the learning rate.
        shape: how it falls to zero afterwards: along a "cosine" (Loshchilov and Hutter 2017), or along a line, as the
            "triangular" one is slanted (Howard and Ruder 2018).
        patience: epochs without a better validation score after which training ends.
        clip: largest norm of the gradient.
    """

    epochs: int = 0
    learning_rate: float = 0.0
    weight_decay: float = 0.0
    warmup_epochs: float = 0.0
    shape: Literal["cosine", "triangular"] = "cosine"
    patience: int = 0
    clip: float = 0.0

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """The head's learning rate at a step counted from the start: a linear rise, then a fall to zero."""
        total = self.epochs * steps_per_epoch
        warmup = min(self.warmup_epochs, self.epochs / 4) * steps_per_epoch
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        done = (step - warmup) / max(total - warmup, 1)
        return self.learning_rate * ((1 + math.cos(math.pi * done)) / 2 if self.shape == "cosine" else 1 - done)


@dataclass(frozen=True)
class Mix:
    """Samples of a batch that are mixed with one another, and their labels with them.

    Attributes:
        mixup: α of the Beta distribution of the shares of two blended samples; 0 for none (Zhang et al. 2018).
        cutmix: the same of the area of a window that shows the other image; 0 for none (Yun et al. 2019).
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)
