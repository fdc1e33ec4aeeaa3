"""``edgetl shift``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

import edgetl
from edgetl.base.wording import enumerated, percent
from edgetl.cli.output import Json, Quiet, output, say

if TYPE_CHECKING:
    from rich.console import Console

    from edgetl.transfer.choosing.domains import Difference
    from edgetl.transfer.choosing.shift import Shift

_BACKBONE = "Whose features are compared; finetune's own choice by default. Of arrays, their values are."


def command(
    one: Annotated[
        str, typer.Argument(help="What a model is trained on: labelled samples, or a folder without labels.")
    ],
    other: Annotated[str, typer.Argument(help="Where it will be used: the same.")],
    backbone: Annotated[str | None, typer.Option(help=_BACKBONE)] = None,
    image_size: Annotated[int | None, typer.Option(help="Input side in pixels; the backbone's own by default.")] = None,
    seed: Annotated[int, typer.Option(help="Decides folds and random divisions.")] = 0,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """How far one set of samples lies from another.

    \b
    edgetl shift photos/ from-the-line/
    edgetl shift summer.csv winter.csv --json
    """
    with output(json=json, quiet=quiet) as shown:
        found = edgetl.shift(
            one,
            other,
            backbone=backbone,
            image_size=image_size,
            seed=seed,
            accelerator=accelerator,
            progress=shown.progress,
        )
        shown.show(found.to_json(), lambda console: _people(console, found, one, other))


def _people(console: Console, found: Shift, one: str, other: str) -> None:
    from edgetl.reporting.console import print_table

    rows = [
        ["proxy A-distance", f"{found.distance:.2f}", "0: a classifier cannot tell them apart; 2: it always can"],
        ["maximum mean discrepancy", f"{found.discrepancy.value:.4f}", _chance(found.discrepancy)],
    ]
    if found.labels is not None:
        about = f"0: equal; 1: none in common; {_chance(found.labels)}"
        rows += [["shares of classes", f"{found.labels.value:.2f}", about]]
    rows += [["copies", str(found.copies), "samples of the second that are in the first"]]
    rows += [["near duplicates", str(found.near), "hardly to be told from one of the first"]]
    print_table(console, ["measure", "value", "what it says"], rows)
    for names, source in zip(found.only, (one, other), strict=True):
        if names:
            say(console, f"only in {source}: {enumerated(list(names))}")
    say(console, f"{found.samples[0]} and {found.samples[1]} samples, by {found.backbone}. {found.verdict}")


def _chance(difference: Difference) -> str:
    return f"chance gives as much in {percent(difference.p, 1)} of divisions"
