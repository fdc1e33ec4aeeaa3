"""``edgetl report``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgetl
from edgetl.cli.output import Json, output, say


def command(
    sources: Annotated[list[Path], typer.Argument(metavar="BUNDLE|RUN...", help="One or more bundles and runs.")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("report.html"),
    data: Annotated[Path | None, typer.Option(help="Where the samples lie now, if they were moved.")] = None,
    json: Json = False,
) -> None:
    """Write one HTML page about bundles and runs.

    Of a bundle: its certificate in words, scores, latencies, what was lost and gained. Of a run: learning curves,
    answers on val, the data, and the most confident mistakes. Nothing is loaded from elsewhere.

    \b
    edgetl report run --out run.html
    edgetl report out/jetson out/intel-cpu --out report.html
    """
    with output(json=json, bars=False) as shown:
        page = edgetl.report(sources, out=out, data=data)
        answer = {"report": str(page), "bytes": page.stat().st_size}
        shown.show(answer, lambda console: say(console, f"wrote {page}"))
