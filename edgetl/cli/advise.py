"""``edgetl advise``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import edgetl
from edgetl.cli.output import Json, Quiet, output, say

if TYPE_CHECKING:
    from rich.console import Console

    from edgetl.workflow.advise import Advice, Reason

_BACKBONE = "Only this one; may be given several times. All whose weights are here by default."
_USE = "Samples of where the model will be used, labelled or not: how far are they from the data?"


def command(
    data: Annotated[str, typer.Argument(help="Labelled samples, as for finetune.")],
    target: Annotated[str | None, typer.Option(help="The device; see: edgetl targets.")] = None,
    budget_ms: Annotated[float | None, typer.Option(help="The longest that one sample may take there.")] = None,
    target_data: Annotated[Path | None, typer.Option(help=_USE)] = None,
    backbone: Annotated[list[str] | None, typer.Option(help=_BACKBONE)] = None,
    task: Annotated[str | None, typer.Option(help="See: edgetl tasks; the data tell it by default.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels; each backbone's own by default.")] = None,
    seed: Annotated[int, typer.Option(help="Decides splits, folds and replicates.")] = 0,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """What to train for these samples and this device, and why: each sentence says what it rests on.

    \b
    edgetl advise photos/
    edgetl advise photos/ --target x86-generic --budget-ms 20
    edgetl advise photos/ --target jetson --target-data from-the-line/
    """
    with output(json=json, quiet=quiet) as shown:
        found = edgetl.advise(
            data,
            task=task,
            backbones=backbone or (),
            target=target,
            budget_ms=budget_ms,
            target_data=target_data,
            image_size=image_size,
            seed=seed,
            accelerator=accelerator,
            progress=shown.progress,
        )
        shown.show(found.to_json(), lambda console: _people(console, found))


def _people(console: Console, found: Advice) -> None:
    for line in found.commands:
        say(console, f"  {line}")
    for title, reasons in (("why", found.reasons), ("but", found.warnings)):
        for reason in reasons:
            say(console, *_told(title, reason))


def _told(title: str, reason: Reason) -> tuple[str, str]:
    return f"{title}  {reason.says}", f"     ({reason.rests_on})"
