"""``edgetl retention``"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import edgetl
from edgetl.base.wording import change, counted, figure
from edgetl.cli.output import Json, Quiet, output, say

if TYPE_CHECKING:
    from edgetl.core.transfer_outcome import Retained

_SOURCE = "A finished run, or a bundle of it, whose compressed backbone is asked then."
_OF = "The run that it started from."
_DATA = "Labelled samples of the earlier task; the earlier run's own search split by default."


def command(
    source: Annotated[Path, typer.Argument(help=_SOURCE)],
    of: Annotated[Path, typer.Option(help=_OF)],
    data: Annotated[str | None, typer.Option(help=_DATA)] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Tell what a model still knows of what its start knew: forgetting, after training and after compression.

    The earlier run's head reads the later one's features; the difference is paired, with its interval. Of a run it
    is kept next to it, and edgetl report RUN shows it.

    \b
    edgetl retention run --of imagenet-run
    edgetl retention out/jetson --of imagenet-run --data old-photos/
    """
    with output(json=json, quiet=quiet) as shown:
        found = edgetl.retention(source, of, data=data, progress=shown.progress)
        shown.show(asdict(found), lambda console: say(console, _sentence(found, source, of)))


def _sentence(found: Retained, source: Path, of: Path) -> str:
    left = f"; {counted(found.left_out, 'sample')} left out, which one of them was trained on" if found.left_out else ""
    low, high = (change(bound, found.unit) for bound in (found.ci_low, found.ci_high))
    before, after = (figure(score, found.unit) for score in (found.before, found.after))
    return (
        f"On {counted(found.n, 'sample')} of the earlier task the {found.metric} of {of} is {before}, and {after} with "
        f"the backbone of {source}: {change(found.difference, found.unit)} ({low} to {high}){left}."
    )
