"""A task's metrics in words and numbers: titles and units come from the task, never from the page."""

from __future__ import annotations

from collections.abc import Iterable

from edgetl.base.errors import UnknownNameError
from edgetl.base.wording import ABSENT, figure, printable
from edgetl.core.certificate import Certificate
from edgetl.tasks import Metric, find_task

AGREEMENT = "agreement with the trained model"


def find_metric(task: str | None, name: str) -> Metric | None:
    """A metric by its name or by the key that records use for it (underscores for hyphens); None if it is unknown."""
    try:
        known = find_task(task)
        return known.metrics[known.find_metric(name.replace("_", "-"))]
    except UnknownNameError:
        return None


def names(task: str | None) -> list[str]:
    """A task's metrics, the default first; none of an unknown task."""
    try:
        return list(find_task(task).metrics)
    except UnknownNameError:
        return []


def ordered(task: str | None, keys: Iterable[str]) -> list[str]:
    """Keys of metrics, as records have them, in the order of the task's metrics; unknown ones come last."""
    order = [name.replace("-", "_") for name in names(task)]
    known = {key.replace("-", "_"): key for key in sorted(keys)}
    return [known.pop(name) for name in order if name in known] + list(known.values())


def title(task: str | None, name: str) -> str:
    """What a metric is called in a sentence."""
    metric = find_metric(task, name)
    return metric.title if metric else printable(name.replace("_", " "))


def judged(certificate: Certificate) -> str:
    """What the metric that decides is called: of samples that nobody labelled it tells of agreement alone."""
    known = title(certificate.task, certificate.metric)
    if certificate.labelled_by == "owner":
        return known
    return AGREEMENT if certificate.metric == "accuracy" else f"{known} against the trained model's answers"


def short(task: str | None, name: str) -> str:
    """A metric's name above a narrow column."""
    full = title(task, name)
    return full if len(full) < len("balanced") + 2 else name.upper() if len(name) < len("RMSE") + 1 else name


def unit(task: str | None, name: str) -> str:
    """Of a metric: share, labels, or "" for a plain number, which is what an unknown metric is taken for."""
    metric = find_metric(task, name)
    return metric.unit if metric else ""


def lower_is_better(task: str | None, name: str) -> bool:
    """Whether lower values of a metric are better, as of an error."""
    metric = find_metric(task, name)
    return metric is not None and metric.better == "lower"


def value(task: str | None, name: str, value: float | None) -> str:
    """A metric's value in its unit."""
    return ABSENT if value is None else figure(value, unit(task, name))
