"""How far a student's outputs are from its teacher's, with gradients: one function for each kind of label.

They are the ``divergence`` of the tasks (:mod:`edgetl.tasks`) with a temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgetl.core.data import parts_of

#: (teacher's outputs, student's outputs, temperature) → a scalar, 0 or more.
Divergence = Callable[[Tensor, Tensor, float], Tensor]


def of_classes(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Mean Kullback-Leibler divergence of softened answers, nats, times the temperature squared.

    Args:
        teacher, student: logits, float (n, classes), of which one is right.
        temperature: that divides both (Hinton et al. 2015).
    """
    p = functional.log_softmax(teacher / temperature, dim=1)
    q = functional.log_softmax(student / temperature, dim=1)
    return functional.kl_div(q, p, reduction="batchmean", log_target=True) * temperature**2


def of_labels(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """The same of logits, float (n, labels), each of which is right or wrong by itself: the mean over the labels."""
    total = teacher.new_zeros(())
    for sign in (1, -1):
        p, q = (functional.logsigmoid(sign * x / temperature) for x in (teacher, student))
        total = total + (p.exp() * (p - q)).mean()
    return total * temperature**2


def of_values(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """Mean squared difference of values, float (n, k), in their own unit squared; the temperature does not count."""
    return functional.mse_loss(student, teacher)


def divergence_of(kind: str, classes: Sequence[str]) -> Divergence:
    """The divergence of a kind of label; of several tasks the sum of theirs, each of its share of the outputs."""
    if kind in DIVERGENCES:
        return DIVERGENCES[kind]
    parts = parts_of(kind, classes)

    def of_several(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
        pairs = ((DIVERGENCES[part.kind], part.outputs) for part in parts)
        each = [of(teacher[:, own], student[:, own], temperature) for of, own in pairs]
        return torch.stack(each).sum()

    return of_several


#: Kind of label (:data:`edgetl.core.data.labels.LABEL_KINDS`) → divergence.
DIVERGENCES: Mapping[str, Divergence] = {"class": of_classes, "classes": of_labels, "number": of_values}
