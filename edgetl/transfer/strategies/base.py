"""What a strategy is made of: values that the one training loop reads.

A strategy says what trains, which head, which loss terms, which extra data and which anchor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class ParamPolicy:
    """What trains, and how fast.

    Attributes:
        trains: "all" parameters, or "head": only the head, which is fitted before the loop and needs no gradient step.
        layer_decay: factor on the learning rate for each layer group further from the head (Clark et al. 2020).
        batch_norm: "frozen" keeps the pretrained statistics, "train" uses and updates the batch's. Only frozen ones
            are independent of how a batch is divided over processes.
        embeddings: "frozen" keeps a text network's tables as they are: training would move the vectors of the words
            that occur in it, and no others.
    """

    trains: Literal["all", "head"] = "all"
    layer_decay: float = 1.0
    batch_norm: Literal["frozen", "train"] = "frozen"
    embeddings: Literal["frozen", "train"] = "frozen"


@dataclass(frozen=True)
class HeadSpec:
    """What follows the backbone.

    Attributes:
        kind: "linear".
        start: "fitted" on the backbone's features before the loop, or "random".
        weakest_penalty: the largest inverse penalty (scikit-learn's C) that a fitted start may have. Training that
            starts from the large weights of a weak penalty first destroys what the head knew: on magnetic-tile at 128
            pixels the validation loss rose from 0.49 to 1.06 in two epochs, and from 0.71 at C = 0.01 it fell to 0.43.
        class_balance: exponent γ; in the fit, class c weighs (samples of c)^-γ: 0 not at all balanced, 1 fully. Means
            something only where a sample has one class.
    """

    kind: Literal["linear"] = "linear"
    start: Literal["fitted", "random"] = "fitted"
    weakest_penalty: float = 10.0
    class_balance: float = 0.0


@dataclass(frozen=True)
class StepContext:
    """What a loss term may look at.

    Attributes:
        model: the model in training.
        inputs: the network's, by name; their first axis is n.
        targets: the labels as the task's learner gives them: int64 (n,) of classes, float32 (n, classes) of zeros and
            ones, or standardised numbers, float32 (n, 1).
        outputs: the network's, float32, shape (n, width of the head).
        class_counts: training samples of each class, float32, shape (classes,).
        streams: a batch of each extra stream.
        anchor: the frozen teacher or starting point, if the strategy has one.
        done: the share of training that is over, 0 to 1.
    """

    model: nn.Module
    inputs: Mapping[str, Tensor]
    targets: Tensor
    outputs: Tensor
    class_counts: Tensor
    streams: Mapping[str, Any]
    anchor: nn.Module | None
    done: float


@dataclass(frozen=True)
class LossTerm:
    """One summand of the loss.

    Attributes:
        name: as recorded in the run.
        loss: the mean over the batch, a scalar tensor.
        weight: its factor at a share of training done, 0 to 1.
    """

    name: str
    loss: Callable[[StepContext], Tensor]
    weight: Callable[[float], float] = lambda done: 1.0


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        epochs: passes over the training samples; 0 for a strategy that needs none.
        learning_rate: AdamW's highest, of the head.
        weight_decay: AdamW's.
        warmup_epochs: linear rise of the learning rate; a cosine falls to zero afterwards (Loshchilov and Hutter 2017).
        patience: epochs without a better validation score after which training ends.
        clip: largest norm of the gradient.
    """

    epochs: int = 0
    learning_rate: float = 0.0
    weight_decay: float = 0.0
    warmup_epochs: float = 0.0
    patience: int = 0
    clip: float = 0.0

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """The head's learning rate at a step counted from the start: a linear rise, then half a cosine to zero."""
        total = self.epochs * steps_per_epoch
        warmup = min(self.warmup_epochs, self.epochs / 4) * steps_per_epoch
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        return self.learning_rate * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1))) / 2


def _nothing(model: nn.Module) -> None:
    """Change nothing."""


def _as_is(model: nn.Module) -> nn.Module:
    return model


@dataclass(frozen=True)
class Hooks:
    """The places where a strategy may act on the model; the fourth hook, the loss, is the strategy's terms.

    Attributes:
        fit_start: before the optimizer is made (insert adapters, freeze parts).
        epoch_end: after the epoch's evaluation.
        finalize: from the trained model to the one that is saved, of the backbone's own architecture (merge, drop).
    """

    fit_start: Callable[[nn.Module], None] = _nothing
    epoch_end: Callable[[nn.Module], None] = _nothing
    finalize: Callable[[nn.Module], nn.Module] = _as_is


@dataclass(frozen=True)
class Strategy:
    """How knowledge is transferred; see the module's docstring.

    Attributes:
        terms: summands of the loss; None for the task's own (:class:`edgetl.transfer.tasks.Learner`).
    """

    params: ParamPolicy
    head: HeadSpec
    terms: tuple[LossTerm, ...] | None = None
    schedule: Schedule = Schedule()
    streams: Mapping[str, Iterable[Any]] = field(default_factory=dict)
    anchor: nn.Module | None = None
    hooks: Hooks = Hooks()

    def loss(self, context: StepContext) -> Tensor:
        """The weighted sum of the terms, a scalar."""
        parts = [term.weight(context.done) * term.loss(context) for term in self.terms or ()]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def scheduled(self, epochs: int | None, learning_rate: float | None) -> Strategy:
        """With the user's epochs and learning rate, where given; a strategy without gradient steps stays as it is."""
        if self.schedule.epochs == 0:
            return self
        rate = self.schedule.learning_rate if learning_rate is None else learning_rate
        length = self.schedule.epochs if epochs is None else epochs
        return replace(self, schedule=replace(self.schedule, epochs=length, learning_rate=rate))

    def to_json(self) -> dict[str, Any]:
        """Everything the outcome depends on, as plain JSON values."""
        return {
            "params": asdict(self.params),
            "head": asdict(self.head),
            "terms": ["the task's own"] if self.terms is None else [term.name for term in self.terms],
            "schedule": asdict(self.schedule),
            "streams": sorted(self.streams),
        }
