"""What a command prints: one JSON object or something to read, on standard output; all else on standard error."""

from __future__ import annotations

import contextlib
import json as jsonlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgetl.base.progress import Progress, silent
from edgetl.base.wording import printable
from edgetl.cli.streams import outcome

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
PublicKey = Annotated[
    Path | None, typer.Option(help="Refuse the bundle unless this key signed all of it (PEM, OpenSSH, or hexadecimal).")
]
ValueRange = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="LOW HIGH", help="Of a regression: all values lie in this range, or else it is conditional."),
]
GROUP_BY = (
    "What belongs together, stays in one split and counts once in tests: parent (the folder), exif-time (one scene of "
    "a camera), duplicates (look alike), or a regular expression that finds the group in a path. A CSV column group "
    "counts, too."
)
MARGIN = "Largest tolerable loss of the metric; 0.01, of mae and rmse 1 % of the training labels' standard deviation."


@dataclass(frozen=True)
class Outcome:
    """What a command would print: as JSON, or drawn for people."""

    value: Mapping[str, Any]
    human: Callable[[Console], None]


_COLLECTED: ContextVar[list[Outcome] | None] = ContextVar("collected", default=None)


@contextlib.contextmanager
def collected() -> Iterator[list[Outcome]]:
    """Keep what the commands in the block would print, for whoever runs several as one."""
    found: list[Outcome] = []
    token = _COLLECTED.set(found)
    try:
        yield found
    finally:
        _COLLECTED.reset(token)


@dataclass(frozen=True)
class Output:
    """Where a command's outcome goes."""

    json: bool
    progress: Progress
    _stdout: int

    def show(self, value: Mapping[str, Any], human: Callable[[Console], None]) -> None:
        """Print ``value`` as JSON, or let ``human`` draw it."""
        if (found := _COLLECTED.get()) is not None:
            found.append(Outcome(value, human))
            return
        with outcome(os.dup(self._stdout)) as stream:
            if self.json:
                stream.write(jsonlib.dumps(value, sort_keys=True, allow_nan=False, default=str) + "\n")
                return
            from rich.console import Console

            # Lines are broken for a terminal's reader, not for the program at the end of a pipe.
            human(Console(file=stream, highlight=False, soft_wrap=not stream.isatty()))


def say(console: Console, *lines: str) -> None:
    """Print lines as they are, but for what could steer a terminal: names may come from anybody's bundle or folder."""
    for line in lines:
        console.print(printable(line), markup=False)


def note(message: str) -> None:
    """One line of prose, on standard error."""
    print(printable(message), file=sys.stderr)


@contextlib.contextmanager
def output(*, json: bool, quiet: bool = False, bars: bool = True) -> Iterator[Output]:
    """Keep standard output for the outcome, whatever libraries print, and show progress on standard error."""
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    try:
        if bars and not quiet:
            from edgetl.reporting.console import console_progress

            with console_progress() as progress:
                yield Output(json, progress, real)
        else:
            yield Output(json, silent, real)
    finally:
        sys.stdout.flush()
        os.dup2(real, 1)
        os.close(real)
