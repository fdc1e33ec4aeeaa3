"""What an attempt at compression amounts to: its outputs on the search split against the trained model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.certify import class_outcomes, expected_difference, standard_error
from edgetl.compress.outcome import RESOLUTION, Outcome
from edgetl.core.data.samples import CLASS
from edgetl.core.data.several import CLASS_OF, parts_of
from edgetl.core.run import Run
from edgetl.core.tensors import Arrays, rows, single
from edgetl.tasks import Task, find_task
from edgetl.tasks.several import MEAN, own

Labels = npt.NDArray[Any]


def compare(run: Run, reference: Arrays, found: Arrays, integer_macs: float | None, ms: float | None) -> Outcome:
    """What an attempt's outputs on the search split amount to; both are (n, …) by name.

    Of several tasks it is what the worst of them makes of it: a certificate asks each.
    """
    task, labels = find_task(run.task), run.dataset.labels("search")
    compared = _of_several if task.parts else _of_one
    return replace(compared(task, labels, run.classes, (reference, found)), integer_macs=integer_macs, ms=ms)


def _of_one(task: Task, labels: Labels, classes: Sequence[str], models: tuple[Arrays, Arrays]) -> Outcome:
    before, after = (task.decode(outputs, task.options) for outputs in models)
    evidence = [task.evidence(answers, labels) for answers in (before, after)]
    metric = task.metrics[task.metric]
    scores = [metric.of(seen) for seen in evidence]
    gain = float(metric.gain(np.array(scores[0]), np.array(scores[1])))
    right = [metric.right(seen) if metric.right else np.zeros(len(labels), np.bool_) for seen in evidence]
    of_classes = task.labels == CLASS
    outcomes = class_outcomes(before["class"], after["class"], labels, classes) if of_classes else ()
    expected = expected_difference(single(models[0]), single(models[1]), labels) if of_classes else gain
    return Outcome(
        n=len(labels),
        score=scores[1],
        difference=gain,
        expected_difference=expected,
        lost=int(np.sum(right[0] & ~right[1])),
        gained=int(np.sum(~right[0] & right[1])),
        divergence=task.divergence(before, after),
        collapsed=tuple(c.name for c in outcomes if c.collapsed(0.0, 0.05)),
        integer_macs=None,
        ms=None,
        resolution=RESOLUTION * metric.margin_for(labels) / metric.margin,
        error=None if metric.right else standard_error(metric, evidence[0], evidence[1]),
    )


def _of_several(task: Task, labels: Labels, classes: Sequence[str], models: tuple[Arrays, Arrays]) -> Outcome:
    """The worst task's outcome, in shares: losses of numbers are told in standard deviations of their labels."""
    found: dict[str, Outcome] = {}
    for part in parts_of(task.labels, classes):
        known, judged = np.flatnonzero(part.known(labels)), task.parts[part.name]
        if len(known):
            both = tuple(rows(own(outputs, part.name, judged), known) for outputs in models)
            found[part.name] = _in_shares(_of_one(judged, part.own(labels), part.classes, (both[0], both[1])))
    observed = min(found.values(), key=lambda each: each.difference)
    seen = task.evidence(task.decode(models[1], task.options), labels)
    return replace(
        observed,
        score=task.metrics[MEAN].of(seen),
        expected_difference=_worst(found),
        divergence=task.divergence(*models),
        collapsed=tuple(f"{name}{CLASS_OF}{c}" for name, each in found.items() for c in each.collapsed),
    )


def _in_shares(outcome: Outcome) -> Outcome:
    """Where what cannot be told from 0 is so of a share, too."""
    factor = RESOLUTION / outcome.resolution
    return replace(
        outcome,
        difference=outcome.difference * factor,
        expected_difference=outcome.expected_difference * factor,
        resolution=RESOLUTION,
        error=None if outcome.error is None else outcome.error * factor,
    )


def _worst(found: Mapping[str, Outcome]) -> float:
    """The greatest loss expected; NaN where an answer is no number."""
    return float(np.min([each.expected_difference for each in found.values()]))
