"""``edgetl deploy``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgetl
from edgetl.cli.output import Json, PublicKey, Quiet, note, output

Devices = Annotated[list[str], typer.Option("--device", help="Where to; give it several times for several devices.")]
Jobs = Annotated[int, typer.Option(help="Devices that are worked on at once.")]
Timeout = Annotated[float, typer.Option(help="Seconds that each device may take.")]


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle made by edgetl export.")],
    device: Devices,
    name: Annotated[str | None, typer.Option(help="What it is called there; its target's name by default.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Even if its certificate fails or is missing.")] = False,
    unless_worse: Annotated[
        float | None,
        typer.Option(help="Only if no loss of this much against the release in charge there; 0.01 is one point."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Where the certify samples lie now; for --unless-worse.")] = None,
    public_key: PublicKey = None,
    jobs: Jobs = 8,
    timeout: Timeout = 600.0,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Put a bundle in charge on devices.

    It is sent once, by hash; stands beside the old one; passes its self-test on the golden vectors there; and then one
    rename puts it in charge. Whatever fails, the old one stays. Programs there open
    ~/.local/share/edgetl/NAME/current. A bundle whose certificate fails or is missing takes --force.
    With --unless-worse the release in charge and the new one answer the same certify samples on the device, in pairs;
    the new one stays out unless a loss of that much is ruled out, and no class collapsed.

    \b
    edgetl deploy out/x86-generic --device local
    edgetl deploy out/jetson --device shop-1 --device shop-2 --name camera
    edgetl deploy out/jetson --device shop-1 --name camera --unless-worse 0.01
    edgetl rollback --device shop-1 --name camera

    Exit status: 0 all are deployed, 2 at least one failed; else 3 a release in charge stays, as the new
    one is worse, or 4, as too few samples tell.
    """
    from edgetl.cli.tables import outcomes

    with output(json=json, quiet=quiet) as shown:
        done = edgetl.deploy(
            bundle,
            device,
            name=name,
            force=force,
            unless_worse=unless_worse,
            data=data,
            public_key=public_key,
            jobs=jobs,
            timeout=timeout,
            progress=shown.progress,
        )
        for doubt in {outcome.doubt for outcome in done} - {""}:
            note(f"note: deployed all the same: {doubt}")
        return outcomes(shown, done)
