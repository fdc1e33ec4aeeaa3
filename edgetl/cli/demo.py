"""``edgetl demo``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgetl
from edgetl.cli.output import Json, Quiet, output


def command(
    out: Annotated[Path, typer.Option(help="Where the run, the bundles and the report go.")] = Path("demo"),
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the whole journey on embedded images.

    Trains, exports to three families of target, certifies, times and reports.

    \b
    edgetl demo
    edgetl demo --out /tmp/demo --json
    """
    from edgetl.cli.tables import bundles

    with output(json=json, quiet=quiet) as shown:
        result = edgetl.demo(out, progress=shown.progress)
        shown.show(result.to_json(), lambda console: bundles(console, result.bundles, str(result.report)))
