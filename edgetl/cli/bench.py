"""``edgetl bench``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import edgetl
from edgetl.base.schema import to_json
from edgetl.cli.deploy import Jobs, Timeout
from edgetl.cli.output import Json, Quiet, output

_SCENARIO = "single-stream: one sample after another; multi-stream: several at once; offline: throughput."
_DURATION = "Seconds to measure (10 by default), at least 30 rounds in any case; with --until, the longest (120)."
_UNTIL = "Measure until the 95 % interval of p90 is narrower than this share of it, such as 2%."
_STREAMS = "Images at work at once (multi-stream, offline); by default as the cores allow."


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle made by edgetl export.")],
    device: Annotated[
        list[str] | None, typer.Option(help="Where to run; this machine by default. Several times: several devices.")
    ] = None,
    duration: Annotated[float | None, typer.Option(help=_DURATION)] = None,
    until: Annotated[str | None, typer.Option(help=_UNTIL)] = None,
    threads: Annotated[int, typer.Option(help="Worker threads of the runtime, for each stream.")] = 1,
    scenario: Annotated[str, typer.Option(help=_SCENARIO)] = "single-stream",
    streams: Annotated[int | None, typer.Option(help=_STREAMS)] = None,
    against: Annotated[Path | None, typer.Option(help="Another bundle, to take turns with this one.")] = None,
    harness: Annotated[str, typer.Option(help="edgetl, or loadgen: MLPerf's, for this artifact alone.")] = "edgetl",
    jobs: Jobs = 8,
    timeout: Timeout = 600.0,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Time a bundle against its float twin.

    The two take turns; every sample is kept; percentiles that the samples cannot support are refused; what disturbed
    the measurement is said.

    \b
    edgetl bench out/intel-cpu
    edgetl bench out/intel-cpu --until 2%
    edgetl bench out/intel-cpu --scenario offline
    edgetl bench out/intel-cpu --against other/intel-cpu
    edgetl bench out/intel-cpu --harness loadgen
    edgetl bench out/jetson --device my-jetson --duration 30 --json
    edgetl bench out/jetson --device shop-1 --device shop-2 --timeout 300

    Several devices: each one's record is bench-DEVICE.json in the bundle, written as it finishes; exit status 2 if at
    least one failed.
    """
    from edgetl.cli.tables import latency, outcomes

    with output(json=json, quiet=quiet) as shown:
        plan: dict[str, Any] = {
            "duration": duration,
            "until": None if until is None else share(until),
            "threads": threads,
            "scenario": scenario,
            "streams": streams,
            "harness": harness,
        }
        shared: dict[str, Any] = {"against": against, "progress": shown.progress}
        if device and len(device) > 1:
            done = edgetl.bench_devices(bundle, device, jobs=jobs, timeout=timeout, **plan, **shared)
            return outcomes(shown, done)
        record = edgetl.bench(bundle, device=device[0] if device else None, **plan, **shared)
        shown.show(to_json(record), lambda console: latency(console, record))
    return 0


def share(written: str) -> float:
    """A share of p90 as ``--until`` takes it: ``2%`` or ``0.02``.

    Raises:
        EdgetlError: it is no number.
    """
    try:
        return float(written.removesuffix("%")) / (100 if written.endswith("%") else 1)
    except ValueError as error:
        raise edgetl.EdgetlError(f"'{written}' is no share of p90", "give one such as --until 2%") from error
