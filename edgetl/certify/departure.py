"""Does a certificate follow from its predictions? What it tells against what they give when they are judged again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import fields
from itertools import chain
from typing import Any

from edgetl.base.schema import to_json
from edgetl.certify.paired import Verdict, verdict_of
from edgetl.core.certificate import Certificate
from edgetl.core.certificate_parts import Score
from edgetl.tasks import Metric, find_task

#: What predictions determine without a draw, whatever the metric.
EXACT = (
    "n", "units", "reference_accuracy", "deployed_accuracy", "reference_score", "deployed_score", "difference", "flips",
    "classes", "first_divergence",
)  # fmt: skip
#: What besides, if the metric's test is exact.
TESTED = ("ci_low", "ci_high", "p_value", "verdict", "n_needed")
#: A bound that is drawn may be off by this share of the interval where another numpy draws other numbers: five
#: standard deviations of a percentile of 2,000 replicates. The same numpy gives the same.
SLACK = 0.1
#: The same of a p-value, and as a ratio of the samples needed.
P_SLACK, NEED_SLACK = 0.06, 1.5
#: What holds an interval: a certificate, and its score of each metric.
Interval = Certificate | Score


def departure(told: Certificate, again: Certificate) -> str | None:
    """Name of the first field of a certificate that does not follow from its predictions; None if all does.

    Args:
        told: the certificate.
        again: what its predictions give on its terms, with its other findings.
    """
    metrics = find_task(again.task).metrics
    grouped = again.units != again.n
    by_draws = {name for name, metric in metrics.items() if grouped or _drawn(metric)}
    drawn = again.metric in by_draws
    found = chain(
        _unequal(told, again, EXACT if drawn else EXACT + TESTED),
        _departing(told, again) if drawn else (),
        (f"score of {name}" for name in metrics if _rescored(told, again, name, name in by_draws)),
    )
    return next(found, None)


def _drawn(metric: Metric) -> bool:
    """Whether its interval is a bootstrap's."""
    return metric.right is None or metric.strata is not None


def _unequal(told: object, again: object, names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if rounded(getattr(told, name)) != rounded(getattr(again, name)))


def rounded(value: Any) -> Any:
    """Plain JSON values as they compare between machines, whose logarithms may differ in the last digit."""
    return json.loads(json.dumps(to_json(value)), parse_float=lambda digits: round(float(digits), 9))


def _departing(told: Certificate, again: Certificate) -> Iterator[str]:
    """Fields of the test that decides, where it is a bootstrap."""
    yield from _far(told, again)
    # A fault or a class that collapsed fails whatever the interval is.
    forced = again.verdict != _by_interval(again)
    if told.verdict != (again.verdict if forced else _by_interval(told)):
        yield "verdict"
    if not abs(told.p_value - again.p_value) <= P_SLACK:
        yield "p_value"
    one, other = (0 if found.n_needed is None else found.n_needed for found in (told, again))
    if max(one, other) > NEED_SLACK * min(one, other) + 1:
        yield "n_needed"


def _rescored(told: Certificate, again: Certificate, name: str, drawn: bool) -> bool:
    """Whether the score of a metric is another."""
    if name not in told.scores or name not in again.scores:
        return (name in told.scores) != (name in again.scores)
    one, other = told.scores[name], again.scores[name]
    names = {field.name for field in fields(Score)} - ({"ci_low", "ci_high", "verdict"} if drawn else set())
    unequal = any(_unequal(one, other, names))
    return unequal or (drawn and (any(_far(one, other)) or one.verdict not in (_by_interval(one), other.verdict)))


def _far(told: Interval, again: Interval) -> Iterator[str]:
    """Bounds that no other draw explains."""
    slack = SLACK * (again.ci_high - again.ci_low) + 1e-9
    return (n for n in ("ci_low", "ci_high") if not abs(getattr(told, n) - getattr(again, n)) <= slack)


def _by_interval(found: Interval) -> Verdict:
    # Only the exact tests know a difference that nobody can tell yet.
    seen = found.ci_low if found.difference is None else found.difference
    return verdict_of(seen, (found.ci_low, found.ci_high), found.margin, found.ci_high < 0)
