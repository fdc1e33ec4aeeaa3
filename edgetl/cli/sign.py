"""``edgetl sign``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgetl
from edgetl.cli.output import Json, output, say


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle made by edgetl export.")],
    key: Annotated[Path, typer.Option(help="Ed25519 private key, in PEM or OpenSSH's format.")],
    json: Json = False,
) -> None:
    """Vouch for a bundle: sign the hash of every file in it.

    Whoever has the public key can then demand that nothing was changed, added or left out since. Sign last: verify and
    bench write records, and what is written later is not signed. EDGETL_KEY_PASSWORD holds the password of a key that
    has one.

    \b
    openssl genpkey -algorithm ed25519 -out key.pem
    openssl pkey -in key.pem -pubout -out key.pub
    edgetl sign out/jetson --key key.pem
    edgetl verify out/jetson --check --public-key key.pub
    edgetl deploy out/jetson --device shop-1 --public-key key.pub
    """
    with output(json=json, bars=False) as shown:
        public = edgetl.sign(bundle, key)
        answer = {"bundle": str(bundle), "public_key": public}
        shown.show(answer, lambda console: say(console, f"{bundle}: signed by the key {public}"))
