"""A task's metrics in words and numbers: titles and units come from the task, never from the page."""

from __future__ import annotations

from edgetl.base.errors import UnknownNameError
from edgetl.base.wording import ABSENT, figure, printable
from edgetl.tasks import Metric, find_task


def find_metric(task: str | None, name: str) -> Metric | None:
    """A metric by its name or by the key that records use for it (underscores for hyphens); None if it is unknown."""
    try:
        known = find_task(task)
        return known.metrics[known.find_metric(name.replace("_", "-"))]
    except UnknownNameError:
        return None


def title(task: str | None, name: str) -> str:
    """What a metric is called in a sentence."""
    metric = find_metric(task, name)
    return metric.title if metric else printable(name.replace("_", " "))


def unit(task: str | None, name: str) -> str:
    """ "share", "labels", or "" for a plain number, which is what an unknown metric is taken for."""
    metric = find_metric(task, name)
    return metric.unit if metric else ""


def value(task: str | None, name: str, value: float | None) -> str:
    """A metric's value in its unit."""
    return ABSENT if value is None else figure(value, unit(task, name))
