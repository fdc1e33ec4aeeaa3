"""``edgetl report``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgetl
from edgetl.cli.output import Json, output


def command(
    bundle: Annotated[list[Path], typer.Argument(help="One or more bundles.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    data: Annotated[Path | None, typer.Option(help="Where the images lie now, if they were moved.")] = None,
    json: Json = False,
) -> None:
    """Write one HTML page about bundles.

    Certificates in words, recall by class, latencies, lost and gained images; nothing is loaded from elsewhere.

    \b
    edgetl report out/jetson out/intel-cpu --out report.html
    """
    with output(json=json, bars=False) as shown:
        page = edgetl.report(bundle, out=out, data=data)
        answer = {"report": str(page), "bytes": page.stat().st_size}
        shown.show(answer, lambda console: console.print(f"wrote {page}", markup=False))
