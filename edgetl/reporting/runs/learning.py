"""How a run learned: curves by epoch, and what is known where there are none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgetl.base.wording import ABSENT, count, number, percent, plain, printable
from edgetl.core.run import Run
from edgetl.reporting import metrics
from edgetl.reporting.runs import charts
from edgetl.reporting.views import Plot, TableView

Row = Mapping[str, Any]
#: Scores of a run that are no metrics of its task.
NO_METRICS = ("loss", "n")


@dataclass(frozen=True)
class Learning:
    """A sentence, charts, and every epoch; the table is None without a history."""

    sentence: str
    curves: tuple[Plot, ...]
    table: TableView | None


def learning(run: Run, identity: str) -> Learning:
    """Prepare a run's history.

    Raises:
        RunError: the history is malformed.
    """
    rows = [row for row in run.history if isinstance(row.get("epoch"), int) and isinstance(row.get("val"), Mapping)]
    best = run.metrics.best_epoch
    if not rows:
        again = "give its finetune command again with --fresh"
        return Learning(
            f"This run was made before runs sealed their history, so there are no curves: {again}.", (), None
        )
    known = metrics.ordered(run.task, [name for name in rows[0]["val"] if name not in NO_METRICS])
    table = _table(rows, run.task, known)
    if len(rows) == 1:
        sentence = f"'{printable(run.strategy)}' fits in one step, without epochs: there is one point and no curve."
        return Learning(sentence, (), table)
    shares = [name for name in known if metrics.unit(run.task, name) == "share"]
    drawings = [_loss(rows, best, f"{identity}-loss")]
    # Metrics of other units each have a scale of their own: the first is the task's default.
    drawings.append(_metrics(rows, run.task, shares or known[:1], best, f"{identity}-metric"))
    return Learning(_sentence(rows, run, known), tuple(item for item in drawings if item), table)


def _sentence(rows: Sequence[Row], run: Run, known: Sequence[str]) -> str:
    task, best = run.task, run.metrics.best_epoch
    val: Row = next((row["val"] for row in rows if row["epoch"] == best), {})
    figures = [f"{metrics.title(task, name)} {metrics.value(task, name, val[name])}" for name in known if name in val]
    kept = "the start, before the first step" if best == 0 else f"epoch {best}"
    scores = f" ({', '.join(figures)})" if figures else ""
    return (
        f"Trained for {count(rows[-1]['epoch'])} epochs. The best on val was {kept}{scores}: the run keeps its weights."
    )


def _points(rows: Sequence[Row], *path: str) -> list[tuple[int, float]]:
    points = []
    for row in rows:
        value: Any = row
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, int | float) and math.isfinite(value):
            points.append((int(row["epoch"]), float(value)))
    return points


def _loss(rows: Sequence[Row], best: int, chart_id: str) -> Plot | None:
    lines = [
        charts.Line("train", "train", _points(rows, "train_loss")),
        charts.Line("val", "val-1", _points(rows, "val", "loss")),
    ]
    return _curves(chart_id, "Loss", lines, best, plain)


def _metrics(rows: Sequence[Row], task: str, names: Sequence[str], best: int, chart_id: str) -> Plot | None:
    """Metrics of one unit in one chart; those on val are told apart by their strokes."""
    lines = [charts.Line(f"train, {metrics.title(task, n)}", "train", _points(rows, f"train_{n}")) for n in names]
    for index, name in enumerate(names):
        style = f"val-{min(index + 1, 3)}"
        lines.append(charts.Line(f"val, {metrics.title(task, name)}", style, _points(rows, "val", name)))
    shares = all(metrics.unit(task, name) == "share" for name in names)
    title = "scores" if len(names) > 1 else metrics.title(task, *names)
    return _curves(chart_id, title[:1].upper() + title[1:], lines, best, _whole_percent if shares else plain)


def _curves(
    chart_id: str, title: str, lines: Sequence[charts.Line], best: int, printed: Callable[[float], str]
) -> Plot | None:
    drawn = [line for line in lines if line.points]
    if not drawn:
        return None
    keys = tuple((f"line {line.style}", line.name) for line in drawn)
    return Plot(title, charts.curves(chart_id, f"{title} by epoch", drawn, best, printed), "", keys)


def _whole_percent(share: float) -> str:
    return percent(share, 0)


def _table(rows: Sequence[Row], task: str, known: Sequence[str]) -> TableView:
    def cells(row: Row) -> tuple[str, ...]:
        val = row["val"]
        rate = row.get("learning_rate")
        return (
            count(row["epoch"]),
            number(row.get("train_loss")),
            number(val.get("loss")),
            *(metrics.value(task, name, val.get(name)) for name in known),
            ABSENT if rate is None else f"{rate:.2g}",
        )

    names = (metrics.title(task, name) for name in known)
    columns = ("Epoch", "Train loss", "Val loss", *(f"Val {name}" for name in names), "Learning rate")
    return TableView(columns, tuple(cells(row) for row in rows))
