"""``edgetl monitor``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgetl
from edgetl.cli.output import Json, Quiet, output


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
    from edgetl.cli.tables import watched

    with output(json=json, quiet=quiet) as shown:
        found = edgetl.monitor(bundle, images, device=device, alpha=alpha, progress=shown.progress)
        shown.show(found.to_json(), lambda console: watched(console, found))
        return 3 if found.alarm else 0
