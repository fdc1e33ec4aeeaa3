"""What answers are and how they are scored: one file a task, one line here. numpy alone, also on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgetl.base.errors import UnknownNameError
from edgetl.core.data.labels import LABEL_KINDS
from edgetl.tasks import classification, multi_label, regression, text_classification
from edgetl.tasks.base import ClassCounts, Evidence, Metric, Sums, Task, Unit, Weights

__all__ = ["TASKS", "ClassCounts", "Evidence", "Metric", "Sums", "Task", "Unit", "Weights", "find_task", "list_tasks"]

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

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name is None:
        return next(iter(TASKS.values()))
    if name not in TASKS:
        raise UnknownNameError("task", name, TASKS, "edgetl tasks")
    return TASKS[name]


def list_tasks() -> list[dict[str, Any]]:
    """What ``edgetl tasks`` shows of each, JSON values.

    Returns:
        for each task ``name``, ``about``, ``inputs``, ``labels`` (kind of label), ``columns`` (by kind of input, those
        that a CSV file must have), ``metrics`` (each with ``name``, ``title``, ``unit``, ``better`` and ``margin``, in
        standard deviations of the training labels where the unit is ``labels``; the first is the default) and
        ``options`` of decoding.
    """
    return [
        {
            "name": task.name,
            "about": task.about,
            "inputs": list(task.inputs),
            "labels": task.labels,
            "columns": {kind: [COLUMNS[kind], LABEL_KINDS[task.labels].column] for kind in task.inputs},
            "metrics": [
                {
                    "name": name,
                    "title": metric.title,
                    "unit": metric.unit,
                    "better": metric.better,
                    "margin": metric.margin,
                }
                for name, metric in task.metrics.items()
            ],
            "options": dict(task.options),
        }
        for task in TASKS.values()
    ]
