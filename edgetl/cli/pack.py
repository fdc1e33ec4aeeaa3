"""``edgetl pack``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgetl
from edgetl.base.storage import sha256_file
from edgetl.cli.output import Json, output, say


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle made by edgetl export.")],
    out: Annotated[Path, typer.Option(help="The archive, a .zip; replaced if it is there.")],
    json: Json = False,
) -> None:
    """Put a bundle into one file.

    The same bundle gives the same bytes, with its records and, where it has one, its signature: sign before you pack.
    Nothing is compressed, and every zip program opens it.

    \b
    edgetl pack out/jetson --out jetson.zip
    edgetl unpack jetson.zip --out there/jetson --public-key key.pub
    """
    with output(json=json, bars=False) as shown:
        file = edgetl.pack(bundle, out)
        size, digest = file.stat().st_size, sha256_file(file)
        answer = {"bundle": str(bundle), "archive": str(file), "bytes": size, "sha256": digest}
        shown.show(answer, lambda console: say(console, f"{file}: {size / 1e6:,.1f} MB, SHA-256 {digest}"))
