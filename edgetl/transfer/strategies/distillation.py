"""What a teacher answers, as a target beside the labels (Hinton et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edgetl.base.errors import EdgetlError
from edgetl.transfer.strategies.base import (
    HeadSpec,
    LossTerm,
    Need,
    ParamPolicy,
    Schedule,
    StepContext,
    Strategy,
    TaskLoss,
    Trainee,
    as_it_is,
)
from edgetl.transfer.strategies.options import check

if TYPE_CHECKING:
    from torch import Tensor

    from edgetl.transfer.model import Deployable
    from edgetl.transfer.streams import Streams


def distillation(temperature: float = 2.0, weight: float = 0.5, attention: float = 0.0) -> Strategy:
    """Fine-tuning that also follows a teacher, a larger model's run, on labelled and unlabelled samples.

    Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"; the same picture for both, Beyer et al. 2022,
    "Knowledge distillation: A good teacher is patient and consistent".

    Args:
        temperature: by which both models' logits are divided, so that small probabilities count; none for numbers.
        weight: of the teacher's answers, from 0 to 1; the labels have the rest.
        attention: weight, such as 5, of where the teacher looks: the energy of its activations at each resolution; 0
            for none (attention transfer, Zagoruyko and Komodakis 2017). Both networks have convolutions then.
    """
    check("temperature", temperature, temperature > 0, "a positive number")
    check("weight", weight, 0 < weight <= 1, "more than 0 and at most 1")
    check("attention", attention, attention >= 0, "0 or more")
    return Strategy(
        ParamPolicy(trains="all", layer_decay=0.8, batch_norm="frozen"),
        HeadSpec(weakest_penalty=0.01, class_balance=1.0),
        terms=(TaskLoss(1 - weight), _imitation(temperature, weight, attention)),
        schedule=Schedule(epochs=15, learning_rate=3e-4, weight_decay=0.05, warmup_epochs=1.0, patience=8, clip=1.0),
        needs=(
            Need("teacher", "the run whose answers are followed"),
            Need("target", "samples without labels, on which the teacher alone is followed", optional=True),
        ),
        anchor="teacher",
        prepare=_watched if attention else as_it_is,
    )


def _watched(network: Deployable, streams: Streams) -> Trainee:
    """The student, whose attention is seen in training."""
    from edgetl.transfer.attention import Maps
    from edgetl.transfer.model import load_model

    if streams.teacher is not None:
        if streams.teacher.network is not None:
            what = f"the teacher {streams.teacher.path} was adopted as a graph, whose layers nobody can look into"
            raise EdgetlError(what, "give a run that edgetl trained, or leave --set attention out")
        Maps(load_model(streams.teacher).backbone).release()
    network.attention = Maps(network.backbone)

    def finalize() -> Deployable:
        network.attention.release()
        del network.attention
        return network

    return Trainee(network, finalize)


def _imitation(temperature: float, weight: float, attention: float) -> LossTerm:
    def loss(context: StepContext) -> Tensor:
        import torch

        assert context.anchor is not None
        apart, looks = APART[context.labels], _looked(context, attention)
        parts = [weight * apart(context.outputs, _taught(context, context.inputs), temperature), looks()]
        # As the teacher sees the very same picture, the student can follow it wherever the augmentation leads (Beyer
        # et al. 2022).
        for name, batch in context.streams.items():
            if name == "target":
                outputs = context.feed(context.model, batch.inputs)
                parts += [weight * apart(outputs, _taught(context, batch.inputs), temperature), looks()]
        return torch.stack(parts).sum() / (len(parts) // 2)

    told = f", attention {attention:g}" if attention else ""
    return LossTerm(f"imitation (temperature {temperature:g}{told})", loss)


def _taught(context: StepContext, inputs: Mapping[str, Tensor]) -> Tensor:
    import torch

    assert context.anchor is not None
    with torch.no_grad():
        return context.feed(context.anchor, inputs)


def _looked(context: StepContext, weight: float) -> Callable[[], Tensor]:
    """How far what both networks looked at in their last passes lies apart, times the weight."""
    if not weight:
        return lambda: context.outputs.new_zeros(())
    from edgetl.transfer import attention

    student, teacher = context.model, context.anchor.network  # type: ignore[union-attr]
    if not hasattr(teacher, "attention"):
        teacher.attention = attention.Maps(teacher.backbone)
    return lambda: weight * attention.apart(student.attention.last, teacher.attention.last)


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
