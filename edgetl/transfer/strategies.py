"""Transfer strategies: values that the one training loop reads.

A strategy says what trains, which head, which loss terms, which extra data and which anchor. A recipe is a function
that returns one; :data:`STRATEGIES` names the recipes. A new strategy is a new recipe, not a subclass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from edgetl.base.errors import EdgetlError, UnknownNameError

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
    """

    trains: Literal["all", "head"] = "all"
    layer_decay: float = 1.0
    batch_norm: Literal["frozen", "train"] = "frozen"


@dataclass(frozen=True)
class HeadSpec:
    """The classifier.

    Attributes:
        kind: "linear".
        start: "fitted" on the backbone's features before the loop, or "random".
        weakest_penalty: the largest inverse penalty (scikit-learn's C) that a fitted start may have. Training that
            starts from the large weights of a weak penalty first destroys what the head knew: on magnetic-tile at 128
            pixels the validation loss rose from 0.49 to 1.06 in two epochs, and from 0.71 at C = 0.01 it fell to 0.43.
        class_balance: exponent γ; in the fit, class c weighs (images of c)^-γ: 0 not at all balanced, 1 fully.
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
        images: uint8, shape (n, height, width, 3).
        labels: int64, shape (n,).
        logits: float32, shape (n, classes).
        class_counts: training images of each class, float32, shape (classes,).
        streams: a batch of each extra stream.
        anchor: the frozen teacher or starting point, if the strategy has one.
        done: the share of training that is over, 0 to 1.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    logits: Tensor
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
        epochs: passes over the training images; 0 for a strategy that needs none.
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
    """How knowledge is transferred; see the module's docstring."""

    params: ParamPolicy
    head: HeadSpec
    terms: tuple[LossTerm, ...]
    schedule: Schedule = Schedule()
    streams: Mapping[str, Iterable[Any]] = field(default_factory=dict)
    anchor: nn.Module | None = None
    hooks: Hooks = Hooks()

    def loss(self, context: StepContext) -> Tensor:
        """The weighted sum of the terms, a scalar."""
        parts = [term.weight(context.done) * term.loss(context) for term in self.terms]
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
            "terms": [term.name for term in self.terms],
            "schedule": asdict(self.schedule),
            "streams": sorted(self.streams),
        }


def cross_entropy(smoothing: float, class_balance: float) -> LossTerm:
    """Cross-entropy with label smoothing (Szegedy et al. 2016).

    Class c weighs (images of c)^-class_balance, scaled to 1 on average over the training images.
    """

    def loss(context: StepContext) -> Tensor:
        from torch.nn import functional

        each = functional.cross_entropy(context.logits, context.labels, reduction="none", label_smoothing=smoothing)
        raw = context.class_counts**-class_balance
        average = (raw * context.class_counts).sum() / context.class_counts.sum()
        return (each * (raw / average)[context.labels]).mean()

    return LossTerm(f"cross-entropy (label smoothing {smoothing:g}, class balance {class_balance:g})", loss)


def linear_probe() -> Strategy:
    """The backbone stays as it is; an L2-regularised logistic head is fitted on its features."""
    return Strategy(ParamPolicy(trains="head"), HeadSpec(class_balance=1.0), terms=())


def fine_tune() -> Strategy:
    """The linear probe's head first, then everything, slower the further from the head (LP-FT, Kumar et al. 2022)."""
    return Strategy(
        ParamPolicy(trains="all", layer_decay=0.8, batch_norm="frozen"),
        HeadSpec(weakest_penalty=0.01, class_balance=1.0),
        terms=(cross_entropy(smoothing=0.1, class_balance=0.5),),
        schedule=Schedule(epochs=15, learning_rate=3e-4, weight_decay=0.05, warmup_epochs=1.0, patience=8, clip=1.0),
    )


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
        params=ParamPolicy(trains="all", layer_decay=1.0, batch_norm="train"),
        head=HeadSpec(start="random"),
        schedule=replace(tuned.schedule, learning_rate=3e-3, patience=1_000_000),
    )


STRATEGIES: dict[str, Callable[[], Strategy]] = {"linear-probe": linear_probe, "fine-tune": fine_tune}
#: What a transfer is measured against, by the name of ``--baseline``; not offered as strategies.
BASELINES: dict[str, Callable[[], Strategy]] = {"scratch": from_scratch, "probe": linear_probe}


def find(name: str) -> Strategy:
    """The strategy of this name.

    Raises:
        UnknownNameError: there is none; offers the near names.
    """
    if name not in STRATEGIES:
        raise UnknownNameError("strategy", name, STRATEGIES, "edgetl strategies")
    return STRATEGIES[name]()


def find_baseline(kind: str) -> Strategy:
    """How the baseline of this name is trained.

    Raises:
        EdgetlError: there is none; offers them all.
    """
    if kind not in BASELINES:
        raise EdgetlError(f"unknown baseline '{kind}'", f"choose {' or '.join(BASELINES)}")
    return BASELINES[kind]()


def list_strategies() -> list[dict[str, Any]]:
    """Name, one-line description and defaults of each strategy; imports no torch."""
    return [
        {"name": name, "description": (recipe.__doc__ or "").strip(), "settings": recipe().to_json()}
        for name, recipe in STRATEGIES.items()
    ]
