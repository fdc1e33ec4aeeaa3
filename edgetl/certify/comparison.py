"""The models that are compared: on the same images, with the same classes, held to the same margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.certify.classes import ClassOutcome, class_outcomes
from edgetl.certify.paired import Indexes, paired_indexes

Models = tuple[tuple[str, Indexes], ...]


@dataclass(frozen=True)
class Comparison:
    """What every pair of models is judged by: the same images, names, margin and level."""

    labels: Indexes
    names: tuple[str, ...]
    margin: float
    alpha: float

    def collapsed(self, above: Indexes, below: Indexes) -> tuple[ClassOutcome, ...]:
        """The classes that the lower of two models lost (see ``ClassOutcome.collapsed``)."""
        outcomes = class_outcomes(above, below, self.labels, self.names)
        return tuple(c for c in outcomes if c.collapsed(self.margin, self.alpha))


def compared(
    reference: npt.ArrayLike,
    deployed: npt.ArrayLike,
    labels: npt.ArrayLike,
    class_names: Sequence[str] | None,
    rungs: Sequence[tuple[str, npt.ArrayLike]],
    limits: tuple[float, float],
) -> tuple[Models, Comparison]:
    """All models from the reference down, checked, and what they are judged by; ``limits`` are margin and alpha.

    Raises:
        CertifyError: arrays that do not fit each other or the class names.
    """
    truth, before, after = paired_indexes(labels=labels, reference=reference, deployed=deployed)
    between = tuple((name, indexes(name, predictions, truth)) for name, predictions in rungs)
    models = (("reference", before), *between, ("deployed", after))
    return models, Comparison(truth, _names(class_names, truth, models), *limits)


def indexes(name: str, predictions: npt.ArrayLike, labels: Indexes) -> Indexes:
    """Predictions of one model, checked against the labels: int64 [n]."""
    return paired_indexes(labels=labels, **{name: predictions})[1]


def _names(class_names: Sequence[str] | None, labels: Indexes, models: Models) -> tuple[str, ...]:
    if class_names is None:
        return tuple(str(i) for i in range(int(labels.max()) + 1))
    names = tuple(str(name) for name in class_names)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise CertifyError(f"the class name '{twice[0]}' is given twice", "give every class its own name")
    for source, found in (("labels", labels), *models):
        if int(found.max()) >= len(names):
            raise CertifyError(
                f"{source} holds class {int(found.max())}, but there are only {len(names)} class names",
                "use the class list that the model was trained with",
            )
    return names
