"""``edgetl soup``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import edgetl
from edgetl.base.wording import enumerated
from edgetl.cli.output import Json, Quiet, output, say

if TYPE_CHECKING:
    from edgetl.core.run import Run

_RUNS = "Finished runs of one backbone on the same samples and splits."


def command(
    runs: Annotated[list[Path], typer.Argument(help=_RUNS)],
    out: Annotated[Path, typer.Option(help="Where the new run goes.")],
    uniform: Annotated[bool, typer.Option("--uniform", help="Take all of them, not those alone that help.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Average the weights of several runs: an ensemble that ships as one network.

    Train them with the same --seed, and vary --learning-rate or --set; the mean is a run like any other.

    \b
    edgetl soup run-a run-b run-c --out mean
    """
    with output(json=json, quiet=quiet) as shown:
        run = edgetl.soup(runs, out, uniform=uniform, progress=shown.progress)
        shown.show(run.to_json(), lambda console: say(console, _sentence(run)))


def _sentence(run: Run) -> str:
    members = run.lineage["members"]
    taken = [member["run"] for member in members if member["taken"]]
    best, now = members[0]["val"].get(run.metrics.metric), run.metrics.val.get(run.metrics.metric)
    name = run.metrics.metric
    told = "" if best is None or now is None else f"; {name} on validation samples {now:.4g}, {best:.4g} before"
    if len(taken) == 1:
        return f"{run.path}: no mean is as good as {taken[0]} alone, which it is{told}."
    return f"{run.path}: the mean of {enumerated(taken)}, of {len(members)}{told}."
