"""A certificate that was edited and sealed again does not follow from its predictions, drawn intervals included."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgetl.certify import Certificate, departure
from edgetl.tasks import TASKS
from tests.certify.test_certified_tasks import certified

every_task = pytest.mark.parametrize("task", ["classification", "multi-label", "regression"])


def edited(certificate: Certificate, metric: str, **changes: Any) -> Certificate:
    """One of its scores is another."""
    score = replace(certificate.scores[metric], **changes)
    return replace(certificate, scores={**certificate.scores, metric: score})


@every_task
def test_what_follows(task: str) -> None:
    for metric in TASKS[task].metrics:
        certificate = certified(TASKS[task], metric=metric)
        assert departure(certificate, certified(TASKS[task], metric=metric)) is None


@every_task
@pytest.mark.parametrize("field", ["ci_low", "ci_high"])
def test_a_bound_that_was_moved(task: str, field: str) -> None:
    again = certified(TASKS[task])
    width = again.ci_high - again.ci_low
    moved = replace(again, **{field: getattr(again, field) + 0.2 * width})
    assert departure(moved, again) == field
    for name in TASKS[task].metrics:
        other = again.scores[name]
        further = getattr(other, field) + 0.2 * (other.ci_high - other.ci_low)
        assert departure(edited(again, name, **{field: further}), again) == f"score of {name}"


@every_task
@pytest.mark.parametrize("verdict", ["pass", "fail", "underpowered"])
def test_a_verdict_that_was_changed(task: str, verdict: Any) -> None:
    for metric in TASKS[task].metrics:
        again = certified(TASKS[task], metric=metric)
        expected = None if verdict == again.verdict else "verdict"
        assert departure(replace(again, verdict=verdict), again) == expected
        assert (departure(edited(again, metric, verdict=verdict), again) is None) == (verdict == again.verdict)


def test_other_figures_of_a_bootstrap() -> None:
    again = certified(TASKS["multi-label"])
    assert again.metric == "macro-AP"
    assert again.n_needed is not None
    assert departure(replace(again, p_value=again.p_value + 0.3), again) == "p_value"
    assert departure(replace(again, n_needed=again.n_needed // 2), again) == "n_needed"
    assert departure(replace(again, n_needed=None), again) == "n_needed"
    assert departure(replace(again, difference=again.difference + 1e-4), again) == "difference"
    assert departure(replace(again, scores={"macro-AP": again.scores["macro-AP"]}), again) == "score of micro-F1"


def test_draws_of_another_numpy_are_no_edit() -> None:
    again = certified(TASKS["multi-label"])
    off = 0.03 * (again.ci_high - again.ci_low)
    told = replace(again, ci_low=again.ci_low + off, ci_high=again.ci_high - off, p_value=again.p_value - 0.01)
    assert departure(told, again) is None
    exact = certified(TASKS["classification"])
    assert departure(replace(exact, ci_low=exact.ci_low + 1e-6), exact) == "ci_low"


def test_a_class_that_collapsed_fails_whatever_the_interval() -> None:
    again = certified(TASKS["multi-label"], margin=0.5)
    assert again.verdict == "pass"
    failed = replace(again, verdict="fail")
    assert departure(failed, failed) is None
    assert departure(again, failed) == "verdict"
