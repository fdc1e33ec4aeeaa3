"""Remedies that give up some of the compression: layers in float, or half precision for all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from edgetl.compress.recipes import Recipe, with_changes
from edgetl.compress.repair import TRAINED, Attempt, Means, Reverted

#: Numbers of groups of layers that mixed precision returns to float, tried in this order.
REVERTED = (1, 2, 4, 8, 16, 24)


def mixed_precision(best: Attempt, means: Means) -> Iterable[Attempt] | str:
    """The fewest layers in float, the best value first."""
    if best.recipe is None:
        return "nothing is quantized"
    found = means.ranked(best)
    return _reverted(best, best.recipe, found) if found else "no layer in float takes anything off the error"


def _reverted(best: Attempt, recipe: Recipe, found: Sequence[Reverted]) -> Iterable[Attempt]:
    for count in (c for c in REVERTED if c <= len(found)):
        nodes = list(dict.fromkeys(node for part in found[:count] for node in part.nodes))
        excluded = tuple(sorted({*recipe.exclude_nodes, *nodes}))
        words = f"{len(nodes)} nodes in float, the last for {found[count - 1].worth}: {', '.join(nodes[:4])}"
        words += " …" * (len(nodes) > 4)
        yield replace(best, change=words, recipe=with_changes(recipe, exclude_nodes=excluded))


def half_precision(best: Attempt, means: Means) -> Iterable[Attempt] | str:
    """The trained weights in 16 bits, where the target takes them."""
    return means.refuses("fp16") or [Attempt("fp16 instead of int8", "fp16", None, TRAINED)]
