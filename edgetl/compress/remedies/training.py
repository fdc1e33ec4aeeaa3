"""Remedies that train: seconds for the head, minutes for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from edgetl.compress.repair import Attempt, Means


def head_refit(best: Attempt, means: Means) -> Iterable[Attempt] | str:
    """The linear head fitted again to the compressed backbone's features."""
    if best.recipe is None:
        return "nothing is quantized"
    return (replace(best, change=words, source=weights, fitted=True) for words, weights in means.refitted(best))


def distillation(best: Attempt, means: Means) -> Iterable[Attempt] | str:
    """The weights trained again for the recipe's arithmetic, with the trained model as the teacher."""
    return _trained(best, means, means.distilled)


def quantization_aware(best: Attempt, means: Means) -> Iterable[Attempt] | str:
    """The same to the labels, too, from where distillation ended (Jacob et al. 2018)."""
    return _trained(best, means, means.trained)


def _trained(best: Attempt, means: Means, train: Callable[[Attempt], tuple[str, str]]) -> Iterable[Attempt] | str:
    if best.recipe is None:
        return "nothing is quantized"
    if means.kind == "transformer":
        return "how transformers are quantized is not imitated in training"
    words, weights = train(best)
    return [replace(best, change=words, source=weights)]
