"""``edgetl bench``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetl.cli.output import Json, Quiet, output


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle made by edgetl export.")],
    device: Annotated[str | None, typer.Option(help="Where to run; this machine by default.")] = None,
    duration: Annotated[float, typer.Option(help="Seconds to measure, at least 30 rounds in any case.")] = 10.0,
    threads: Annotated[int, typer.Option(help="Worker threads of the runtime.")] = 1,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time a bundle against its float twin.

    The two take turns; every sample is kept; percentiles that the samples cannot support are refused.

    \b
    edgetl bench out/intel-cpu
    edgetl bench out/jetson --device my-jetson --duration 30 --json
    """
    from edgetl import pipeline
    from edgetl.cli.tables import latency

    with output(json=json, quiet=quiet) as shown:
        record = pipeline.bench(bundle, device=device, duration=duration, threads=threads, progress=shown.progress)
        shown.show(record, lambda console: latency(console, record))
