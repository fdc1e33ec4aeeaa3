"""Tables and progress on a terminal; plain lines where there is none."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from edgetl.base.progress import Progress, silent
from edgetl.base.wording import ABSENT, count, difference, figure, fixed, number, printable, times
from edgetl.core.certificate import Certificate
from edgetl.reporting import metrics
from edgetl.reporting.summary import Row
from edgetl.reporting.terms import EXECUTED, VERDICTS

#: How each verdict looks.
STYLES = {"pass": "bold green", "fail": "bold red", "underpowered": "bold yellow", "": "dim"}


def results_table(rows: Sequence[Row], *, gap: int = 2) -> Table:
    """The table of bundles, three lines each; ``gap`` is the number of spaces between columns, 1 or more."""
    judged = {_metric(row.certificate): row.certificate.unit for row in rows if row.certificate}
    # One metric of all is named once, above them.
    named = "score" if len(judged) != 1 else next(iter(judged))
    points = "points" if set(judged.values()) <= {"share"} else " "
    table = Table(box=box.SIMPLE_HEAD, show_lines=True, padding=(0, gap - 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("Target\nruntime\nexecuted", overflow="fold", min_width=12)
    table.add_column(f"{named[:1].upper()}{named[1:]}\nbefore\nafter", justify="right", no_wrap=True)
    table.add_column(f"Difference\ninterval\n{points}", justify="right", no_wrap=True)
    table.add_column("Verdict\nsamples\n ", no_wrap=True)
    table.add_column("p50 ms\nbefore\nafter", justify="right", no_wrap=True)
    table.add_column("Speed-up\ninterval\n ", justify="right", no_wrap=True)
    table.add_column("MB\nbefore\nafter", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, metric_named=len(judged) != 1))
    return table


def _cells(row: Row, *, metric_named: bool) -> tuple[Text, ...]:
    executed, speedup = EXECUTED.get(row.executed, row.executed), row.speedup
    ratio = f"{fixed(speedup.ci_low, 2)}…{fixed(speedup.ci_high, 2)}" if speedup else ""
    return (
        Text.assemble(
            f"{printable(row.target)}\n{printable(row.runtime)} {printable(row.precision)}\n",
            (executed, "" if row.executed == "device" else "yellow"),
        ),
        *_certified(row, metric_named=metric_named),
        Text(f"\n{number(row.float_p50_ms)}\n{number(row.p50_ms)}"),
        Text.assemble(
            (times(speedup.value if speedup else None), "bold red" if row.failures else ""),
            f"\n{ratio}\n",
            ("failure" if row.failures else "", "bold red"),
        ),
        Text(f"\n{number(row.float_size_mb)}\n{number(row.size_mb)}"),
    )


def _certified(row: Row, *, metric_named: bool) -> tuple[Text, Text, Text]:
    """Scores, their difference, and the verdict."""
    certificate, verdict = row.certificate, (VERDICTS.get(row.verdict, row.verdict), STYLES.get(row.verdict, ""))
    if certificate is None:
        return Text(f"\n{ABSENT}\n{ABSENT}"), Text(f"{ABSENT}\n{ABSENT}"), Text.assemble(verdict, "\n\n")
    metric = _metric(certificate) if metric_named else ""
    before, after = (
        figure(score, certificate.unit) for score in (certificate.reference_score, certificate.deployed_score)
    )
    low, high = (difference(bound, certificate.unit) for bound in (certificate.ci_low, certificate.ci_high))
    needed = (
        f"needs {count(certificate.n_needed)}" if certificate.verdict == "underpowered" and certificate.n_needed else ""
    )
    return (
        Text(f"{metric}\n{before}\n{after}"),
        Text(f"{difference(certificate.difference, certificate.unit)}\n{low}…{high}"),
        Text.assemble(verdict, f"\nn {count(certificate.n)}\n{needed}"),
    )


def _metric(certificate: Certificate) -> str:
    known = metrics.short(certificate.task, certificate.metric)
    return "agreement" if certificate.labelled_by == "model" and certificate.metric == "accuracy" else known


def print_results(console: Console, rows: Sequence[Row]) -> None:
    """Print the table, then each failure and each reason for a missing figure."""
    roomy = results_table(rows)
    unbounded = console.options.update(width=10_000)
    fits = console.measure(roomy, options=unbounded).maximum <= console.width
    console.print(roomy if fits else results_table(rows, gap=1))
    for row in rows:
        for failure in row.failures:
            console.print(Text("failure  ", style="bold red") + f"{printable(row.target)}: {printable(failure)}")
        for note in row.notes:
            console.print(Text("note     ", style="yellow") + f"{printable(row.target)}: {printable(note)}")


def print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a plain list of things; columns of numbers are right-aligned.

    Args:
        console: where to.
        columns: the headings.
        rows: one value for each column; None shows as a dash, True and False as yes and no.
    """
    table = Table(
        *(_column(name, rows, i) for i, name in enumerate(columns)),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
    )
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console.print(table)


def _column(name: str, rows: Sequence[Sequence[object]], index: int) -> Column:
    # The first column names the rows: a name broken in two is one that nobody can copy.
    longest = max((len(str(row[0])) for row in rows), default=0) if index == 0 else 0
    return Column(name, justify=_justify(rows, index), overflow="fold", min_width=min(longest, 26) or None)


def _justify(rows: Sequence[Sequence[object]], index: int) -> Literal["left", "right"]:
    values = [row[index] for row in rows if row[index] not in (None, ABSENT)]
    return "right" if values and all(_numeric(value) for value in values) else "left"


def _numeric(value: object) -> bool:
    if isinstance(value, str):
        return re.fullmatch(r"[<+−-]?[\d.,]+ ?[%x]?", value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: object) -> Text:
    if value is None:
        return Text(ABSENT)
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, float):
        return Text(number(value))
    if isinstance(value, list | tuple):
        return Text(", ".join(printable(item) for item in value))
    return Text(count(value) if isinstance(value, int) else printable(value))


@contextmanager
def console_progress(console: Console | None = None, *, quiet: bool = False) -> Iterator[Progress]:
    """Show what is being done until the block ends.

    On a terminal: one bar for each task with steps, time and detail. Elsewhere: one line when a task starts,
    without control characters.

    Args:
        console: where to; standard error by default.
        quiet: show nothing.
    """
    terminal = console or Console(stderr=True)
    if quiet:
        yield silent
    elif not terminal.is_interactive:
        yield _Lines(terminal)
    else:
        with _bars(terminal) as bars:
            yield _Bars(bars)


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[detail]}", markup=False),
        console=console,
    )


class _Lines:
    """Progress as one line for each task."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._seen: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, task: str, done: int, total: int, detail: str = "") -> None:
        with self._lock:
            if task in self._seen:
                return
            self._seen.add(task)
            size = f" ({count(total)})" if total else ""
            self._console.print(Text(printable(task) + size), soft_wrap=True)


class _Bars:
    """Progress as one bar for each task; a task that starts again gets its bar back."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._ids: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}
        self._lock = threading.Lock()

    def __call__(self, task: str, done: int, total: int, detail: str = "") -> None:
        with self._lock:
            if task not in self._ids:
                self._ids[task] = self._bars.add_task(printable(task), total=total or None, detail="")
            elif done < self._done[task]:
                self._bars.reset(self._ids[task])
            self._done[task] = done
            self._bars.update(self._ids[task], completed=done, total=total or None, detail=printable(detail))
