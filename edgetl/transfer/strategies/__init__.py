"""Transfer strategies by name. A new one is a function in a file of its family and one line here, not a subclass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edgetl.base.errors import EdgetlError, UnknownNameError
from edgetl.transfer.backbones import Backbone
from edgetl.transfer.strategies import baselines, fine_tuning
from edgetl.transfer.strategies.base import LossTerm, Strategy

STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "linear-probe": fine_tuning.linear_probe,
    "fine-tune": fine_tuning.fine_tune,
}
#: What a transfer is measured against, by the name of ``--baseline``; not offered as strategies.
BASELINES: dict[str, Callable[[], Strategy]] = {
    "scratch": baselines.from_scratch,
    "probe": fine_tuning.linear_probe,
}


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


def resolve(
    name: str, backbone: Backbone, terms: tuple[LossTerm, ...], epochs: int | None, learning_rate: float | None
) -> Strategy:
    """A strategy or a baseline as it is carried out.

    Args:
        name: of either.
        backbone: its budget counts where the user gives none, and what never was trained has neither statistics to keep
            nor layers that know more than others.
        terms: of the task's loss, for a strategy that names none.
        epochs, learning_rate: the user's, or None.

    Raises:
        UnknownNameError: there is none of that name; offers the near names.
    """
    found = find_baseline(name) if name in BASELINES else find(name)
    schedule, budget = found.schedule, backbone.budget
    if not schedule.epochs:
        return found
    rate = (budget.scratch if name in BASELINES else budget.learning_rate) or schedule.learning_rate
    fitting = replace(schedule, epochs=budget.epochs or schedule.epochs, learning_rate=rate)
    params = found.params if backbone.pretrained else replace(found.params, layer_decay=1.0, batch_norm="train")
    own = terms if found.terms is None else found.terms
    return replace(found, params=params, schedule=fitting, terms=own).scheduled(epochs, learning_rate)


def list_strategies() -> list[dict[str, Any]]:
    """Name, one-line description and defaults of each strategy; imports no torch."""
    return [
        {"name": name, "description": (recipe.__doc__ or "").strip(), "settings": recipe().to_json()}
        for name, recipe in STRATEGIES.items()
    ]
