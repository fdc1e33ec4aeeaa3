"""Transfer strategies by name. A new one is a function in a file of its family and one line here, not a subclass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from edgetl.base.errors import EdgetlError, UnknownNameError
from edgetl.transfer.backbones import Backbone
from edgetl.transfer.settings import Settings
from edgetl.transfer.strategies import (
    adaptation,
    baselines,
    distillation,
    few_shot,
    fine_tuning,
    lora,
    multi_task,
    progressive,
    pruning,
)
from edgetl.transfer.strategies.base import GIVEN_BY, RUNS, LossTerm, Need, Strategy
from edgetl.transfer.strategies.options import about, chosen, options_of, reference

LISTING = "edgetl strategies"
STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "linear-probe": fine_tuning.linear_probe,
    "prototype": few_shot.prototype,
    "nearest-mean": few_shot.nearest_mean,
    "slda": few_shot.slda,
    "cosine": few_shot.cosine,
    "ridge": few_shot.ridge,
    "fine-tune": fine_tuning.fine_tune,
    "lora": lora.lora,
    "prune": pruning.prune,
    "distillation": distillation.distillation,
    "multi-task": multi_task.multi_task,
    "progressive": progressive.progressive,
    "source-only": adaptation.source_only,
    "adabn": adaptation.adabn,
    "coral": adaptation.coral,
    "mmd": adaptation.mmd,
    "dann": adaptation.dann,
    "shot": adaptation.shot,
}
#: What a transfer is measured against, by the name of ``--baseline``; not offered as strategies.
BASELINES: dict[str, Callable[[], Strategy]] = {
    "scratch": baselines.from_scratch,
    "probe": fine_tuning.linear_probe,
}


def find(name: str, options: Mapping[str, Any] | None = None) -> Strategy:
    """The strategy of this name.

    Args:
        name: of :data:`STRATEGIES`.
        options: values of its recipe's keyword parameters, as words or in their types; the rest have their defaults.

    Raises:
        UnknownNameError: there is no such strategy or option; offers the near names.
        EdgetlError: a value that cannot be.
    """
    recipe = _recipe(name)
    return recipe(**chosen(name, recipe, options or {}))


def options_for(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every option of a strategy or a baseline, given or by default; raises as :func:`find` does."""
    return chosen(name, BASELINES[name] if name in BASELINES else _recipe(name), given)


def _recipe(name: str) -> Callable[..., Strategy]:
    if name not in STRATEGIES:
        raise UnknownNameError("strategy", name, STRATEGIES, LISTING)
    return STRATEGIES[name]


def find_baseline(kind: str) -> Strategy:
    """How the baseline of this name is trained.

    Raises:
        EdgetlError: there is none; offers them all.
    """
    if kind not in BASELINES:
        raise EdgetlError(f"unknown baseline '{kind}'", f"choose {' or '.join(BASELINES)}")
    return BASELINES[kind]()


def resolve(
    name: str,
    backbone: Backbone,
    terms: tuple[LossTerm, ...],
    epochs: int | None,
    learning_rate: float | None,
    options: Mapping[str, Any] | None = None,
) -> Strategy:
    """A strategy or a baseline as it is carried out.

    Args:
        name: of either.
        backbone: its budget counts where the user gives none, and what never was trained has neither statistics to keep
            nor layers that know more than others.
        terms: of the task's own loss.
        epochs, learning_rate: the user's, or None.
        options: of the strategy; see :func:`find`.

    Raises:
        UnknownNameError: there is none of that name; offers the near names.
    """
    found = find_baseline(name) if name in BASELINES else find(name, options)
    schedule, budget = found.schedule, backbone.budget
    if not schedule.epochs:
        return found
    # What goes on from a run moves by steps of fine-tuning, whatever its network began with.
    learned = any(need.name == "previous" for need in found.needs)
    learned = learned and (found.column is None or found.column.start == "previous")
    rate = budget.scratch if name in BASELINES else None if learned else budget.learning_rate
    rate = rate or schedule.learning_rate
    fitting = replace(schedule, epochs=budget.epochs or schedule.epochs, learning_rate=rate)
    params = found.params
    if not backbone.pretrained:
        kept = params.batch_norm == "frozen"
        params = replace(params, layer_decay=1.0, batch_norm="train" if kept else params.batch_norm)
    return replace(found, params=params, schedule=fitting).resolved(terms).scheduled(epochs, learning_rate)


def of_settings(settings: Settings, backbone: Backbone, terms: tuple[LossTerm, ...]) -> Strategy:
    """A strategy as a run's settings have it; backbone and terms as for :func:`resolve`."""
    given = (settings.epochs, settings.learning_rate)
    return resolve(settings.strategy, backbone, terms, *given, settings.options)


def list_strategies(name: str = "") -> list[dict[str, Any]]:
    """Name, description, reference, options, needs and defaults of each strategy, or of one; imports no torch.

    Raises:
        UnknownNameError: there is none of that name.
    """
    recipes = {name: _recipe(name)} if name else STRATEGIES
    return [_listed(each, recipe) for each, recipe in recipes.items()]


def _listed(name: str, recipe: Callable[..., Strategy]) -> dict[str, Any]:
    strategy = recipe()
    return {
        "name": name,
        "description": about(recipe),
        "reference": reference(recipe),
        "options": [option.to_json() for option in options_of(recipe)],
        "needs": [_given(need) for need in strategy.needs],
        "settings": strategy.to_json(),
    }


def _given(need: Need) -> dict[str, Any]:
    return {**asdict(need), "given_by": GIVEN_BY[need.name], "run": need.name in RUNS}
