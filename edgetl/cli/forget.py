"""``edgetl forget``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgetl
from edgetl.cli import enroll
from edgetl.cli.output import Json, PublicKey, output


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle that edgetl enroll added classes to.")],
    name: Annotated[str, typer.Option("--class", help="A class that was added.")],
    public_key: PublicKey = None,
    json: Json = False,
) -> None:
    """Take a class away from a bundle that was added to it; with the last one, the bundle is the one that came.

    Nothing of its samples is left: the rows of other classes never depended on them.

    \b
    edgetl forget out/rpi5 --class cup
    """
    with output(json=json, bars=False) as shown:
        done = edgetl.forget(bundle, name, public_key=public_key)
        enroll.show(shown, bundle, done, f"{name}: taken away")
