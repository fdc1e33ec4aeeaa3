"""How a run learned: curves by epoch, and what is known where there are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgetl.base.errors import RunError
from edgetl.base.schema import from_json
from edgetl.base.wording import ABSENT, count, number, percent, plain, printable
from edgetl.core.run import HISTORY, Run
from edgetl.reporting import metrics
from edgetl.reporting.runs import charts
from edgetl.reporting.views import Plot, TableView

#: Scores of a run that are no metrics of its task.
NO_METRICS = ("loss", "n", "calibrated_loss")
Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Epoch:
    """A line of a run's history: epoch 0 is the start, which has no figures of training."""

    epoch: int
    val: Mapping[str, float | None]
    train_loss: float | None = None
    train_accuracy: float | None = None
    learning_rate: float | None = None


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
    rows = from_json(tuple[Epoch, ...], run.history, run.path / HISTORY, RunError, "train the run again")
    best = run.metrics.best_epoch
    if run.adoption is not None:
        return Learning("The model was trained elsewhere, and how is not known here.", (), None)
    if not rows:
        sentence = "This run was made before runs sealed their history, so there are no curves"
        return Learning(f"{sentence}: give its finetune command again with --fresh.", (), None)
    known = metrics.ordered(run.task, [name for name in rows[0].val if name not in NO_METRICS])
    table = _table(rows, run.task, known)
    if len(rows) == 1:
        sentence = f"'{printable(run.strategy)}' fits in one step, without epochs: there is one point and no curve."
        return Learning(sentence, (), table)
    shares = [name for name in known if metrics.unit(run.task, name) == "share"]
    drawings = [_loss(rows, best, f"{identity}-loss")]
    # Metrics of other units each have a scale of their own: the first is the task's default.
    drawings.append(_metrics(rows, run.task, shares or known[:1], best, f"{identity}-metric"))
    return Learning(_sentence(rows, run, known), tuple(item for item in drawings if item), table)


def _sentence(rows: Sequence[Epoch], run: Run, known: Sequence[str]) -> str:
    task, best = run.task, run.metrics.best_epoch
    val = next((row.val for row in rows if row.epoch == best), {})
    figures = [f"{metrics.title(task, name)} {metrics.value(task, name, val[name])}" for name in known if name in val]
    kept = "the start, before the first step" if best == 0 else f"epoch {best}"
    scores = f" ({', '.join(figures)})" if figures else ""
    return f"Trained for {count(rows[-1].epoch)} epochs. The best on val was {kept}{scores}: the run keeps its weights."


def _points(rows: Sequence[Epoch], of: Callable[[Epoch], float | None]) -> Points:
    return [(row.epoch, value) for row in rows if (value := of(row)) is not None]


def _loss(rows: Sequence[Epoch], best: int, chart_id: str) -> Plot | None:
    lines = [
        charts.Line("train", "train", _points(rows, lambda row: row.train_loss)),
        charts.Line("val", "val-1", _points(rows, lambda row: row.val.get("loss"))),
    ]
    return _curves(chart_id, "Loss", lines, best, plain)


def _metrics(rows: Sequence[Epoch], task: str, names: Sequence[str], best: int, chart_id: str) -> Plot | None:
    """Metrics of one unit in one chart; those on val are told apart by their strokes."""
    lines = []
    if "accuracy" in names:
        lines.append(charts.Line("train, accuracy", "train", _points(rows, lambda row: row.train_accuracy)))
    for index, name in enumerate(names):
        points = [(row.epoch, value) for row in rows if (value := row.val.get(name)) is not None]
        lines.append(charts.Line(f"val, {metrics.title(task, name)}", f"val-{min(index + 1, 3)}", points))
    shares = all(metrics.unit(task, name) == "share" for name in names)
    title = metrics.title(task, names[0]) if len(names) == 1 else "scores"
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


def _table(rows: Sequence[Epoch], task: str, known: Sequence[str]) -> TableView:
    def cells(row: Epoch) -> tuple[str, ...]:
        return (
            count(row.epoch),
            number(row.train_loss),
            number(row.val.get("loss")),
            *(metrics.value(task, name, row.val.get(name)) for name in known),
            ABSENT if row.learning_rate is None else f"{row.learning_rate:.2g}",
        )

    names = (metrics.title(task, name) for name in known)
    columns = ("Epoch", "Train loss", "Val loss", *(f"Val {name}" for name in names), "Learning rate")
    return TableView(columns, tuple(map(cells, rows)))
