"""``edgetl unpack``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgetl
from edgetl.cli.output import Json, PublicKey, output, say


def command(
    archive: Annotated[Path, typer.Argument(help="A file that edgetl pack wrote.")],
    out: Annotated[Path, typer.Option(help="The bundle's folder, which is not there yet.")],
    public_key: PublicKey = None,
    json: Json = False,
) -> None:
    """Unpack a bundle, and check it before it is there.

    It may come from anybody: what is no archive of edgetl pack, to the last byte, or holds no whole bundle, is refused,
    and nothing of it is left. --public-key also refuses what this key did not sign.

    \b
    edgetl unpack jetson.zip --out there/jetson
    edgetl unpack jetson.zip --out there/jetson --public-key key.pub
    """
    with output(json=json, bars=False) as shown:
        bundle = edgetl.unpack(archive, out, public_key)
        answer = {"archive": str(archive), "bundle": str(bundle.path), "digest": bundle.digest, "target": bundle.target}
        signed = f"signed by the key {bundle.signed_by}" if bundle.signed_by else "no signature was asked for"
        shown.show(
            answer, lambda console: say(console, f"{bundle.path}: a bundle for {bundle.target}, whole; {signed}")
        )
