"""What learning needs to know of a kind of label, as a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgetl.core.data import Label
from edgetl.transfer import heads
from edgetl.transfer.head_search import LinearHead
from edgetl.transfer.strategies.base import HeadSpec, LossTerm

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[Any]


@dataclass(frozen=True)
class Scale:
    """From what the head gives in training to the labels' unit: output * spread + centre, all or each of its own."""

    centre: float | tuple[float, ...] = 0.0
    spread: float | tuple[float, ...] = 1.0

    def applied(self, outputs: Floats) -> Floats:
        """Outputs of training in the labels' unit."""
        if self == Scale():
            return outputs
        return np.asarray(outputs * np.asarray(self.spread) + np.asarray(self.centre), dtype=np.float32)

    def standardised(self, outputs: Tensor) -> Tensor:
        """Outputs in the labels' unit as training gives them; the inverse of :meth:`applied`."""
        if self == Scale():
            return outputs
        spread, centre = (
            torch.tensor(values, dtype=outputs.dtype, device=outputs.device) for values in (self.spread, self.centre)
        )
        return (outputs - centre) / spread

    def folded(self, weight: Any, bias: Any) -> tuple[Floats, Floats]:
        """Weight (width, features) and bias (width,) of a head in training's scale → of one in the labels' unit."""
        spread = np.asarray(self.spread, np.float32)
        column = spread[:, None] if spread.ndim else spread
        return np.asarray(weight * column), np.asarray(bias * spread + np.asarray(self.centre, np.float32))

    def fold(self, head: nn.Linear) -> None:
        """Make a head that was trained give the labels' unit, in place; one of fewer outputs gives the last of them."""
        if self != Scale():
            weight, bias = self._last(head.out_features).folded(
                head.weight.detach().cpu().numpy(), head.bias.detach().cpu().numpy()
            )
            with torch.no_grad():
                head.weight.copy_(torch.from_numpy(weight))
                head.bias.copy_(torch.from_numpy(bias))

    def _last(self, outputs: int) -> Scale:
        centre, spread = (
            value[-outputs:] if isinstance(value, tuple) else value for value in (self.centre, self.spread)
        )
        return Scale(centre, spread)


@dataclass(frozen=True)
class Learner:
    """What learning needs to know of one kind of label.

    Attributes:
        labels: the kind, a key of :data:`edgetl.core.data.labels.LABEL_KINDS`.
        scale: training labels → from what the head gives in training to their unit.
        targets: labels and that scale → what the head is fitted to and the loss compares with, first axis n.
        counts: training labels and the number of classes → samples of each class, float32 (classes,).
        fit: targets of train and val with their features, classes, what the strategy asks for → the fitted head.
        terms: of the loss, where the strategy names none.
        answers: outputs in the labels' unit → the labels that they stand for, one a sample.
        right: outputs and targets of a batch → samples answered rightly, a sum; None where there is no such thing.
        loss: outputs in the labels' unit, and labels → what validation reports beside the task's metrics.
        tempers: whether the loss is of logits, so that few samples are judged by it at their best temperature.
        ranked: the metric by which epochs are compared, of a task that has it; else its default.
    """

    labels: str
    scale: Callable[[Labels], Scale]
    targets: Callable[[Labels, Scale], Labels]
    counts: Callable[[Labels, int], Floats]
    fit: Callable[[heads.Part, heads.Part, int, HeadSpec], LinearHead]
    terms: tuple[LossTerm, ...]
    answers: Callable[[Floats], list[Label]]
    right: Callable[[Tensor, Tensor], Tensor] | None
    loss: Callable[[Floats, Labels], float]
    tempers: bool = False
    ranked: str | None = None
