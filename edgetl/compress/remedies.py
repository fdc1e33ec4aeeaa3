"""The rungs of the repair ladder: from the best attempt so far to those worth trying next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from edgetl.compress.recipes import CHOICES, Recipe, with_changes
from edgetl.compress.repair import TRAINED, Attempt, Rung

#: Numbers of groups of layers that mixed precision returns to float, tried in this order.
REVERTED = (1, 2, 4, 8, 16, 24)
#: Recipe changes of each rung: in words, and as settings.
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


@dataclass(frozen=True)
class Reverted:
    """Nodes that go to float together, and in words what that removes and costs."""

    nodes: tuple[str, ...]
    worth: str


def recipe_rungs(available: int) -> list[Rung]:
    """The rungs that change nothing but the recipe; ``available`` is the number of calibration images there are."""
    size = min(available, 256)
    samples: Changes = ((f"{size} images, k-centre", {"selection": "k-centre", "size": size}),)
    return [
        ("calibration samples", _changing("calibration samples", samples)),
        ("range estimator", _changing("range estimator", _ESTIMATORS)),
        ("asymmetric activations", _asymmetric),
        ("bias correction", _changing("bias correction", _BIASES)),
        (
            "cross-layer equalization",
            _changing("cross-layer equalization", [("channels equalized across layers", {"equalize": True})]),
        ),
    ]


def _changing(name: str, changes: Changes) -> Callable[[Attempt], Iterable[Attempt] | str]:
    """Proposes each change that the recipe's engine takes and that changes something."""

    def propose(best: Attempt) -> Iterable[Attempt] | str:
        recipe = best.recipe
        if recipe is None:
            return "nothing is quantized"
        allowed = CHOICES.get(recipe.engine, {})
        new = [
            Attempt(name, words, best.precision, with_changes(recipe, **values), best.source)
            for words, values in changes
            if all(value in allowed.get(key, (value,)) for key, value in values.items())
            and any(getattr(recipe, key) != value for key, value in values.items())
        ]
        return new or f"{recipe.engine} has nothing else to offer here"

    return propose


def _asymmetric(best: Attempt) -> Iterable[Attempt] | str:
    if best.recipe is not None and not best.recipe.activations_symmetric:
        return "activations are asymmetric already"
    if best.recipe is not None and best.recipe.backend == "tensorrt":
        return "TensorRT takes symmetric activations only"
    return _changing("asymmetric activations", [("a zero point", {"activations_symmetric": False})])(best)


def mixed_precision(ranked: Callable[[Attempt], Sequence[Reverted]]) -> Rung:
    """The rung that returns the fewest layers to float; ``ranked`` lists them, best value first."""
    name = "mixed precision"

    def propose(best: Attempt) -> Iterable[Attempt] | str:
        if best.recipe is None:
            return "nothing is quantized"
        found = ranked(best)
        return _reverted(best, best.recipe, found) if found else "no layer in float takes anything off the error"

    def _reverted(best: Attempt, recipe: Recipe, found: Sequence[Reverted]) -> Iterable[Attempt]:
        for count in (c for c in REVERTED if c <= len(found)):
            nodes = list(dict.fromkeys(node for part in found[:count] for node in part.nodes))
            excluded = tuple(sorted({*recipe.exclude_nodes, *nodes}))
            words = f"{len(nodes)} nodes in float, the last for {found[count - 1].worth}: {', '.join(nodes[:4])}"
            words += " …" * (len(nodes) > 4)
            yield Attempt(name, words, best.precision, with_changes(recipe, exclude_nodes=excluded), best.source)

    return name, propose


def distillation(train: Callable[[Attempt], tuple[str, str]]) -> Rung:
    """The rung that trains the weights for the recipe; ``train`` gives what it did and the name of the weights."""
    name = "distillation"

    def propose(best: Attempt) -> Iterable[Attempt] | str:
        if best.recipe is None:
            return "nothing is quantized"
        words, weights = train(best)
        return [Attempt(name, words, best.precision, best.recipe, weights)]

    return name, propose


def half_precision(refused: str | None) -> Rung:
    """The last rung before refusal; ``refused`` is why the target does not take fp16, if so."""
    name = "half precision"

    def propose(best: Attempt) -> Iterable[Attempt] | str:
        return refused or [Attempt(name, "fp16 instead of int8", "fp16", None, TRAINED)]

    return name, propose
