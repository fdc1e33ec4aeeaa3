"""Answers of several tasks on val: what each task's view shows, one after the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgetl.core.data import parts_of
from edgetl.reporting.runs.answers import MISTAKES, VIEWS, Answers, Val
from edgetl.reporting.views import Fact
from edgetl.tasks import Task
from edgetl.tasks.several import rows_of


def of_several(val: Val, task: Task) -> Answers:
    """The views of all tasks; each is of the samples that have a label of it."""
    parts = [part for part in parts_of(task.labels, val.classes) if part.known(val.truth).any()]
    found = {
        part.name: VIEWS[part.kind](
            Val(
                rows_of(part, val.truth, val.answers, task.parts[part.name]),
                part.own(val.truth),
                part.classes,
                val.noun,
                f"{val.identity}-{part.name}",
            )
        )
        for part in parts
    }
    rows = {part.name: np.flatnonzero(part.known(val.truth)) for part in parts}
    shown = max(MISTAKES // max(len(found), 1), 1)
    mistakes = [
        replace(mistake, row=int(rows[name][mistake.row]), facts=(Fact("task", name), *mistake.facts))
        for name, own in found.items()
        for mistake in own.mistakes[:shown]
    ]
    return Answers(
        sentence=" ".join(f"{name}: {own.sentence}" for name, own in found.items()),
        figures=tuple(replace(f, title=f"{name}: {f.title}") for name, own in found.items() for f in own.figures),
        tables=tuple((f"{name}: {caption}", table) for name, own in found.items() for caption, table in own.tables),
        mistakes=tuple(mistakes),
        mistakes_total=sum(own.mistakes_total for own in found.values()),
        mistakes_title="Mistakes of each task",
        mistakes_order="Of each task the first, as its own view orders them.",
    )
