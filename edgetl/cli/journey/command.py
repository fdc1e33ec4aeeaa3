"""``edgetl run``"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgetl.base.wording import counted
from edgetl.cli.output import Json, Quiet, output, say

if TYPE_CHECKING:
    from edgetl.cli.journey.stages import Passed

_SOURCE = "A TOML file whose tables are commands; with --print a run or a bundle."
_PRINT = "Write the TOML that repeats this run or bundle, and do nothing."


def command(
    source: Annotated[Path, typer.Argument(metavar="JOURNEY.TOML|RUN|BUNDLE", help=_SOURCE)],
    printed: Annotated[bool, typer.Option("--print", help=_PRINT)] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Do a whole journey as a file tells it: finetune or adopt, export, verify, bench, report.

    Each table of the file is a command, its keys are the command's options by their names, and paths are relative to
    the file. The same command again resumes, and does nothing that is done.

    \b
    edgetl run journey.toml
    edgetl run journey.toml --json
    edgetl run --print run > again.toml

    \b
    out = "work"                        # work/run, work/bundles/TARGET, work/report.html
    [finetune]
    data = "photos"
    [export]
    target = ["jetson", "intel-cpu"]
    [verify.jetson]
    device = "my-jetson"
    [report]

    Exit status: the worst of its stages: 3 if a certificate fails, else 2 if a device failed, else 4 if one is
    underpowered. What stops a stage stops the journey, with that stage's status.
    """
    if printed:
        return _print(source, json=json)
    from edgetl.cli.journey.checks import check
    from edgetl.cli.journey.file import read_journey
    from edgetl.cli.journey.stages import follow, worst

    file = source.absolute()
    journey = read_journey(source)
    passed: list[Passed] = []
    with output(json=json, bars=False) as shown, _beside(file):
        check(journey)
        for stage in follow(journey, quiet=quiet):
            passed.append(stage)
            if stage.drawn is not None and not json:
                shown.show({}, stage.drawn.human)
        status = worst([stage.done.status for stage in passed])
        value = {"journey": str(source), "stages": [stage.to_json() for stage in passed], "exit_status": status}
        shown.show(value, lambda console: say(console, f"{source}: {_sentence(passed)}"))
    return status


@contextlib.contextmanager
def _beside(file: Path) -> Iterator[None]:
    """Work in the folder of the file, so that every path in it, of whatever option, is relative to it."""
    # What is imported later must not be looked for in the folder of a file that somebody else wrote.
    sys.path[:] = [str(Path(entry).absolute()) for entry in sys.path]
    for name in ("EDGETL_TARGETS", "EDGETL_HOME"):
        if given := os.environ.get(name):
            places = (str(Path(part).expanduser().absolute()) for part in given.split(os.pathsep) if part)
            os.environ[name] = os.pathsep.join(places)
    with contextlib.chdir(file.parent):
        yield


def _sentence(passed: list[Passed]) -> str:
    kept = sum(stage.drawn is None for stage in passed)
    return counted(len(passed), "stage") + (f", {kept} of them done before" if kept else "")


def _print(source: Path, *, json: bool) -> int:
    from edgetl.cli.journey.repeat import written

    with output(json=json, bars=False) as shown:
        text = written(source)
        shown.show({"source": str(source), "toml": text}, lambda console: console.out(text, end="", highlight=False))
    return 0
