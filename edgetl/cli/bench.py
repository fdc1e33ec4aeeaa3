"""``edgetl bench``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetl.cli.deploy import Jobs, Timeout
from edgetl.cli.output import Json, Quiet, output


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle made by edgetl export.")],
    device: Annotated[
        list[str] | None, typer.Option(help="Where to run; this machine by default. Several times: several devices.")
    ] = None,
    duration: Annotated[float, typer.Option(help="Seconds to measure, at least 30 rounds in any case.")] = 10.0,
    threads: Annotated[int, typer.Option(help="Worker threads of the runtime.")] = 1,
    jobs: Jobs = 8,
    timeout: Timeout = 600.0,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Time a bundle against its float twin.

    The two take turns; every sample is kept; percentiles that the samples cannot support are refused.

    \b
    edgetl bench out/intel-cpu
    edgetl bench out/jetson --device my-jetson --duration 30 --json
    edgetl bench out/jetson --device shop-1 --device shop-2 --timeout 300

    Several devices: each one's record is bench-DEVICE.json in the bundle, written as it finishes; exit status 2 if at
    least one failed.
    """
    from edgetl import fleet, pipeline
    from edgetl.cli.tables import latency, outcomes

    with output(json=json, quiet=quiet) as shown:
        if device and len(device) > 1:
            options = {"duration": duration, "threads": threads}
            done = fleet.bench(bundle, device, jobs=jobs, timeout=timeout, progress=shown.progress, **options)
            return outcomes(shown, done)
        record = pipeline.bench(
            bundle, device=device[0] if device else None, duration=duration, threads=threads, progress=shown.progress
        )
        shown.show(record, lambda console: latency(console, record))
    return 0
