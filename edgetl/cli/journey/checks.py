"""What can be told of a journey's values before its first stage: no training ends at a misspelt target.

What the first stage is told it checks itself, before any work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from edgetl.base.errors import EdgetlError
from edgetl.certify import check_limits
from edgetl.cli.bench import share
from edgetl.cli.journey.file import Journey, Stage, keys_of
from edgetl.compress.recipes import family
from edgetl.core.signature import read_public_key
from edgetl.core.targets import find_target
from edgetl.devices import find_device
from edgetl.inputs import what
from edgetl.tasks import Task, find_task, fitting
from edgetl.tasks.several import NAME as MULTI_TASK
from edgetl.workflow.requests import check_batch, minutes_for, precision_for, take
from edgetl.workflow.time_bundle import EXPORT_SECONDS, plan_for


def check(journey: Journey) -> None:
    """Refuse a journey that would stop halfway for a value that its file has wrong.

    Raises:
        EdgetlError: as the command itself would say it, with the file and the table in front.
    """
    first, *rest = journey.stages
    task = _task(first.arguments)
    for stage in rest:
        if stage.name in _CHECKS:
            try:
                _CHECKS[stage.name](stage, task)
            except EdgetlError as error:
                raise EdgetlError(f"{journey.file} [{stage.name}]: {error.what}", error.remedy) from error


def _task(arguments: Mapping[str, Any]) -> Task | None:
    """What the model is for, where the data tells it at once; the first stage says what is wrong with it otherwise."""
    try:
        if arguments.get("task") not in (None, MULTI_TASK):
            return find_task(arguments["task"])
        kind, labels = what(arguments["data"])
    except EdgetlError:
        return None
    return next(map(find_task, fitting(labels, kind)), None)


def _told(stage: Stage) -> dict[str, Any]:
    """What a command is told, with its defaults, by parameter."""
    return {**{option.parameter: option.default for option in keys_of(stage.name).values()}, **stage.arguments}


def _export(stage: Stage, task: Task | None) -> None:
    given = _told(stage)
    changes = {"selection": given["samples"], "size": given["calibration_images"]}
    if given["artifact"] is not None:
        take(given["artifact"], given["samples"], given["calibration_images"], given["batch"])
    for name in given["target"]:
        target = find_target(name)
        if given["artifact"] is None:
            precision = precision_for(target, given["precision"])
            family(target.recipe(precision), {key: value for key, value in changes.items() if value is not None})
    check_batch(given["batch"])
    minutes_for(given["budget_minutes"], given["repair"])
    plan_for(EXPORT_SECONDS, threads=given["threads"])
    _terms(given, task)


def _verify(stage: Stage, task: Task | None) -> None:
    given = _told(stage)
    _terms(given, task)
    _devices([given["device"]])
    if given["public_key"] is not None:
        read_public_key(given["public_key"])
    if given["predictions"] is not None and not given["predictions"].is_file():
        raise EdgetlError(f"there are no predictions {given['predictions']}", "give an .npz with logits and sha256")


def _bench(stage: Stage, task: Task | None) -> None:
    given = _told(stage)
    until = None if given["until"] is None else share(given["until"])
    plan_for(given["duration"], until, given["threads"], given["scenario"], given["streams"], given["harness"])
    _devices(given["device"] or [])


def _terms(given: Mapping[str, Any], task: Task | None) -> None:
    if task is not None:
        metric = task.metrics[task.find_metric(given["metric"])]
        check_limits(metric, metric.margin if given["margin"] is None else given["margin"], given["alpha"])


def _devices(names: Iterable[str | None]) -> None:
    for name in names:
        if name is not None:
            find_device(name)


_CHECKS: Mapping[str, Callable[[Stage, Task | None], None]] = {"export": _export, "verify": _verify, "bench": _bench}
