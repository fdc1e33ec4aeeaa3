"""What answers are and how they are scored: one file a task, one line here. numpy alone, also on the device."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from edgetl.base.errors import UnknownNameError
from edgetl.core.data.labels import LABEL_KINDS
from edgetl.core.data.several import OF, joined, label_kind, taken_apart
from edgetl.tasks import classification, multi_label, regression, several, text_classification
from edgetl.tasks.base import ClassCounts, Evidence, Metric, Sums, Task, Unit, Weights

__all__ = [
    "TASKS",
    "ClassCounts",
    "Evidence",
    "Metric",
    "Sums",
    "Task",
    "Unit",
    "Weights",
    "find_task",
    "fitting",
    "list_tasks",
]

#: Every task by its name; the first one is what a record without a name is of.
TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        classification.TASK,
        text_classification.TASK,
        multi_label.TASK,
        regression.TASK,
    )
}
#: The column of a CSV file that names the sample, for each kind of input.
COLUMNS = {"image": "path", "text": "text", "tensor": "path"}


def find_task(name: str | None) -> Task:
    """The task of a name; classification for None, as records had it before there were others.

    Args:
        name: of :data:`TASKS`, or of several at once as ``colour:classification+age:regression``.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name is None:
        return next(iter(TASKS.values()))
    if name in TASKS:
        return TASKS[name]
    kinds = taken_apart(name)
    if not kinds:
        raise UnknownNameError("task", name, (*TASKS, several.NAME), "edgetl tasks")
    return _several(name)


@lru_cache(64)
def _several(name: str) -> Task:
    return several.several({part: find_task(kind) for part, kind in taken_apart(name).items()})


def fitting(labels: str, kind: str) -> list[str]:
    """Names of the tasks that read a kind of label and a kind of input; of several at once the one that there is."""
    kinds = taken_apart(labels)
    if not kinds:
        return [task.name for task in TASKS.values() if task.labels == labels and kind in task.inputs]
    each = {name: fitting(own, kind) for name, own in kinds.items()}
    return [joined({name: found[0] for name, found in each.items()})] if all(each.values()) else []


def list_tasks(name: str = "") -> list[dict[str, Any]]:
    """What ``edgetl tasks`` shows of each, or of one, JSON values.

    Args:
        name: of one, as a run has it, ``colour:classification+age:regression`` for several at once.

    Returns:
        for each task ``name``, ``about``, ``inputs``, ``labels`` (kind of label), ``columns`` (by kind of input, those
        that a CSV file must have), ``metrics`` (each with ``name``, ``title``, ``unit``, ``better`` and ``margin``, in
        standard deviations of the training labels where the unit is ``labels``; the first is the default) and
        ``options`` of decoding. Of several at once the metrics are their mean and the default of each.

    Raises:
        UnknownNameError: there is none of that name.
    """
    return [_listed(find_task(name))] if name else [*map(_listed, TASKS.values()), _any_several()]


def _listed(task: Task) -> dict[str, Any]:
    shown = {several.MEAN, *(f"{name}.{part.metric}" for name, part in task.parts.items())} if task.parts else None
    return {
        "name": task.name,
        "about": task.about,
        "inputs": list(task.inputs),
        "labels": task.labels,
        "columns": {kind: [COLUMNS[kind], label_kind(task.labels).column] for kind in task.inputs},
        "metrics": [
            {"name": name, "title": metric.title, "unit": metric.unit, "better": metric.better, "margin": metric.margin}
            for name, metric in task.metrics.items()
            if shown is None or name in shown
        ],
        "options": dict(task.options),
    }


def _any_several() -> dict[str, Any]:
    """What is told of several tasks at once, whichever they are."""
    columns = [f"{kind.column}{OF}NAME" for kind in LABEL_KINDS.values()]
    listed = _listed(several.several({"name": TASKS["regression"]}))
    return {
        **listed,
        "name": several.NAME,
        "about": "several of these at once, each with an output and a certificate of its own; cells may be empty",
        "labels": several.NAME,
        "columns": {kind: [column, *columns] for kind, column in COLUMNS.items()},
        "metrics": listed["metrics"][:1],
    }
