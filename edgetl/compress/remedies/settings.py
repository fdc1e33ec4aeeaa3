"""Remedies that change nothing but settings of the recipe: seconds each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from edgetl.compress.recipes import CHOICES, with_changes
from edgetl.compress.repair import Attempt, Means

#: Most calibration samples that are worth their time.
MOST_SAMPLES = 256
#: Changes of a recipe: in words, and as settings.
Changes = Sequence[tuple[str, dict[str, Any]]]
_ESTIMATORS: Changes = (
    ("ranges hold 99.99 % of the values", {"estimator": "percentile", "percentile": 99.99}),
    ("ranges of least squared error", {"estimator": "mse"}),
    ("ranges of least relative entropy", {"estimator": "entropy"}),
    ("ranges hold every value", {"estimator": "min-max"}),
)
_BIASES: Changes = (
    ("fast bias correction", {"bias_correction": "fast"}),
    ("full bias correction", {"bias_correction": "full"}),
)


def calibration_samples(best: Attempt, means: Means) -> Iterable[Attempt] | str:
    """More of them, spread over the features."""
    size = min(means.available, MOST_SAMPLES)
    return _changed(best, [(f"{size} samples, k-centre", {"selection": "k-centre", "size": size})])


def range_estimator(best: Attempt, means: Means) -> Iterable[Attempt] | str:
    """Every other way to take ranges that the engine has."""
    return _changed(best, _ESTIMATORS)


def asymmetric_activations(best: Attempt, means: Means) -> Iterable[Attempt] | str:
    """A zero point where the recipe has none."""
    if best.recipe is not None and not best.recipe.activations_symmetric:
        return "activations are asymmetric already"
    if best.recipe is not None and best.recipe.backend == "tensorrt":
        return "TensorRT takes symmetric activations only"
    return _changed(best, [("a zero point", {"activations_symmetric": False})])


def bias_correction(best: Attempt, means: Means) -> Iterable[Attempt] | str:
    """Mean errors of channels taken off their biases."""
    return _changed(best, _BIASES)


def equalization(best: Attempt, means: Means) -> Iterable[Attempt] | str:
    """Channels scaled across layers so that 8 bits suit all of them."""
    return _changed(best, [("channels equalized across layers", {"equalize": True})])


def _changed(best: Attempt, changes: Changes) -> Iterable[Attempt] | str:
    """Each change that the recipe's engine takes and that changes something."""
    recipe = best.recipe
    if recipe is None:
        return "nothing is quantized"
    allowed = CHOICES.get(recipe.engine, {})
    new = [
        replace(best, change=words, recipe=with_changes(recipe, **values))
        for words, values in changes
        if all(value in allowed.get(key, (value,)) for key, value in values.items())
        and any(getattr(recipe, key) != value for key, value in values.items())
    ]
    return new or f"{recipe.engine} has nothing else to offer here"
