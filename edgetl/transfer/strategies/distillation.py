"""What a teacher answers, as a target beside the labels (Hinton et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edgetl.transfer.strategies.base import (
    HeadSpec,
    LossTerm,
    Need,
    ParamPolicy,
    Schedule,
    StepContext,
    Strategy,
    TaskLoss,
)
from edgetl.transfer.strategies.options import check

if TYPE_CHECKING:
    from torch import Tensor


def distillation(temperature: float = 2.0, weight: float = 0.5) -> Strategy:
    """Fine-tuning that also follows a teacher, a larger model's run, on labelled and unlabelled samples (Hinton 2015).

    Args:
        temperature: by which both models' logits are divided, so that small probabilities count; none for numbers.
        weight: of the teacher's answers, from 0 to 1; the labels have the rest.
    """
    check("temperature", temperature, temperature > 0, "a positive number")
    check("weight", weight, 0 < weight <= 1, "more than 0 and at most 1")
    return Strategy(
        ParamPolicy(trains="all", layer_decay=0.8, batch_norm="frozen"),
        HeadSpec(weakest_penalty=0.01, class_balance=1.0),
        terms=(TaskLoss(1 - weight), _imitation(temperature, weight)),
        schedule=Schedule(epochs=15, learning_rate=3e-4, weight_decay=0.05, warmup_epochs=1.0, patience=8, clip=1.0),
        needs=(
            Need("teacher", "the run whose answers are followed"),
            Need("target", "samples without labels, on which the teacher alone is followed", optional=True),
        ),
        anchor="teacher",
    )


def _imitation(temperature: float, weight: float) -> LossTerm:
    def loss(context: StepContext) -> Tensor:
        import torch

        assert context.anchor is not None
        apart, seen = APART[context.labels], [(context.inputs, context.outputs)]
        # As the teacher sees the very same picture, the student can follow it wherever the augmentation leads (Beyer
        # et al. 2022).
        seen += [
            (batch.inputs, context.feed(context.model, batch.inputs))
            for name, batch in context.streams.items()
            if name == "target"
        ]
        parts = []
        for inputs, outputs in seen:
            with torch.no_grad():
                taught = context.feed(context.anchor, inputs)
            parts.append(apart(outputs, taught, temperature))
        return torch.stack(parts).mean()

    return LossTerm(f"imitation (temperature {temperature:g})", loss, lambda done: weight)


def _classes_apart(outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    from torch.nn import functional

    student, teacher = ((logits / temperature).log_softmax(1) for logits in (outputs, taught))
    # Times the square, gradients do not shrink with the temperature.
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def _presences_apart(outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    from torch.nn import functional

    expected = (taught / temperature).sigmoid()
    return functional.binary_cross_entropy_with_logits(outputs / temperature, expected) * temperature**2


def _numbers_apart(outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    from torch.nn import functional

    return functional.smooth_l1_loss(outputs, taught)


#: By the kind of label: outputs of the student and of the teacher, (n, width), and the temperature → a mean.
APART: Mapping[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "class": _classes_apart,
    "classes": _presences_apart,
    "number": _numbers_apart,
}
