"""``edgetl rollback``"""

from __future__ import annotations

from typing import Annotated

import typer

import edgetl
from edgetl.cli.deploy import Devices, Jobs, Timeout
from edgetl.cli.output import Json, Quiet, output


def command(
    device: Devices,
    name: Annotated[str, typer.Option(help="What the bundle is called there: --name of edgetl deploy, or its target.")],
    jobs: Jobs = 8,
    timeout: Timeout = 600.0,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Put the previous release in charge again.

    It must pass its self-test there first. A second rollback returns to the newer one.

    \b
    edgetl rollback --device shop-1 --device shop-2 --name camera

    Exit status: 0 all are rolled back, 2 at least one failed.
    """
    from edgetl.cli.tables import outcomes

    with output(json=json, quiet=quiet) as shown:
        done = edgetl.rollback(device, name=name, jobs=jobs, timeout=timeout, progress=shown.progress)
        return outcomes(shown, done)
