"""``edgetl monitor``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import edgetl
from edgetl.base.wording import fixed
from edgetl.cli.output import Json, Quiet, output, say
from edgetl.reporting.console import print_table

if TYPE_CHECKING:
    from rich.console import Console


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle made by edgetl export.")],
    images: Annotated[Path, typer.Option(help="A folder of samples as they came, named in that order; no labels.")],
    device: Annotated[str | None, typer.Option(help="Where to run; see edgetl devices.")] = None,
    alpha: Annotated[float, typer.Option(help="The probability of a false alarm, however long it is watched.")] = 0.01,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Do these samples still look like those that the bundle was certified on? Needs no labels.

    Brightness, contrast, sharpness and colour of pictures, and the answers and how sure they are, are compared with
    those of the certify samples, one sample after the other, by a test that may be looked at at any time. On an alarm
    the certificate does not speak of these samples any more.

    \b
    edgetl monitor out/x86-generic --images camera/today
    edgetl monitor out/jetson --images camera/today --device my-jetson --alpha 0.001 --json

    Exit status: 0 no alarm, 3 an alarm.
    """
    with output(json=json, quiet=quiet) as shown:
        found = edgetl.monitor(bundle, images, device=device, alpha=alpha, progress=shown.progress)
        table = [
            [d.name, f"{d.certified:.4g}", f"{d.seen:.4g}", fixed(min(d.evidence, 1e6), 1)] for d in found.departures
        ]

        def human(console: Console) -> None:
            print_table(console, ["characteristic", "certified median", "seen median", "evidence"], table)
            say(console, found.sentence, *([f"alarm at {found.file}"] if found.file else []))

        shown.show(found.to_json(), human)
        return 3 if found.alarm else 0
