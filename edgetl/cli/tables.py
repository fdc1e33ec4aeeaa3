"""How results look to people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from edgetl.base.errors import EdgetlError
from edgetl.base.wording import counted, fixed, number, percent, printable, times
from edgetl.cli.output import note, say
from edgetl.core.bench import BenchRecord, Estimate
from edgetl.reporting.console import print_results, print_table
from edgetl.reporting.outcome import print_certificate
from edgetl.reporting.summary import rows
from edgetl.runtime.machine import Jetson, SensorFile

if TYPE_CHECKING:
    from rich.console import Console

    from edgetl.cli.output import Output
    from edgetl.devices import DeviceProbe
    from edgetl.workflow.exported import Exported
    from edgetl.workflow.fleet import Outcome
    from edgetl.workflow.monitor import Watched


def bundles(console: Console, exported: Sequence[Exported], page: str = "") -> None:
    """The table of accuracies, verdicts and latencies, and where the bundles lie."""
    print_results(console, rows([item.bundle for item in exported]))
    for item in exported:
        if item.certificate.verdict == "fail" or item.certificate.findings:
            console.print(f"\n{printable(item.bundle.target)}", markup=False, style="bold")
            print_certificate(console, item.certificate)
    for item in exported:
        say(console, f"bundle   {item.bundle.path}")
    if page:
        say(console, f"report   {page}")


def latency(console: Console, record: BenchRecord) -> None:
    """Percentiles of a bundle, of its float twin and of a bundle it was compared with, side by side."""
    named = {"float": "float twin"}
    print_table(
        console,
        ["artifact", "p50 ms", "p90 ms", "p99 ms", "n", "cold start ms", "peak MB", "executed", "integer MACs"],
        [
            [
                named.get(role, role),
                *(_milliseconds(value) for value in (side.p50_ms, side.p90_ms, side.p99_ms)),
                side.n,
                fixed(side.cold_start_ms, 0),
                None if side.peak_rss_mb is None else fixed(side.peak_rss_mb, 0),
                side.precision_executed,
                percent(side.integer_macs, 0),
            ]
            for role, side in record.timings.items()
        ],
    )
    for line in _about(record):
        say(console, line)


def _about(record: BenchRecord) -> Iterator[str]:
    """What the figures are of, what they come to, and what speaks against them, a line each."""
    timed, of = "by LoadGen" if record.harness == "loadgen" else "by edgetl", record.deployed
    yield (
        f"{record.scenario}, timed {timed}: {counted(of.streams, 'stream')} of {counted(of.threads, 'thread')}, "
        f"{counted(of.images_per_query, 'sample')} a query, {number(of.throughput_ips)} samples/s"
    )
    if of.energy_mj is not None:
        yield f"{number(of.energy_mj)} mJ a sample ({of.energy.sensor}; idle {number(of.energy.idle_w or 0)} W)"
    if record.speedup:
        yield f"{_ratio(record.speedup)} as fast as its float twin"
    if record.against:
        other = record.against
        yield f"{_ratio(other.ratio)} as fast as the {other.precision} bundle for {other.target}"
    goal = record.until
    if goal and not goal.reached:
        width = "unknown" if goal.width is None else percent(goal.width, 1)
        yield f"p90 is known to {width} only, not to {percent(goal.wanted, 1)}: the time was over"
    for failure in record.failures:
        yield f"failure: {failure}"
    for reason in record.disturbance.reasons if record.disturbance else ():
        yield f"disturbed: {reason}"


def _ratio(gain: Estimate) -> str:
    return f"{times(gain.value)} (95 % interval {fixed(gain.ci_low, 2)} to {fixed(gain.ci_high, 2)})"


def outcomes(shown: Output, done: Sequence[Outcome]) -> int:
    """What came of each device: a table, one line of error for each that failed, and the exit status."""
    failed = [item for item in done if item.failed]
    rows = [[item.device, item.state, _reason(item), fixed(item.seconds, 1)] for item in done]
    columns = ["device", "state", "reason or result", "seconds"]
    kept = [item for item in done if item.kept]
    value = {"devices": [item.to_json() for item in done], "failed": len(failed), "kept": len(kept)}
    shown.show(value, lambda console: print_table(console, columns, rows))
    for item in failed:
        said = item.reason if item.reason.startswith(item.device) else f"{item.device}: {item.reason}"
        note(f"error: {said}")
    for item in kept:
        note(f"{item.device}: the release in charge stays: {item.reason}")
    worse = any(item.update is not None and item.update.verdict == "fail" for item in kept)
    return EdgetlError.exit_status if failed else 3 if worse else 4 if kept else 0


def probed(console: Console, name: str, found: DeviceProbe) -> None:
    """What a device is, one fact a line, and whether a bundle can run there."""
    facts, jetson = found.machine, found.machine.jetson or Jetson()
    rows = [
        ("CPU", facts.cpu_model),
        ("board", facts.board),
        ("architecture", facts.arch),
        ("cores", facts.cores),
        ("ISA features", ", ".join(facts.isa_features)),
        ("memory", f"{fixed(facts.memory_mb / 1024, 1)} GB" if facts.memory_mb else None),
        ("kernel", facts.kernel),
        ("governor", facts.governor),
        ("power mode", facts.power_mode),
        ("Python", found.python),
        *found.packages.items(),
        *((f"{kind} sensors", ", ".join(map(_sensor, there))) for kind, there in (facts.sensors or {}).items()),
        ("L4T", jetson.l4t),
        ("JetPack", jetson.jetpack),
        ("TensorRT (system)", jetson.tensorrt),
    ]
    print_table(console, ["fact", name], [[title, str(value)] for title, value in rows if value])
    sentence = "can be used" if found.reachable else f"{found.reason}: {found.remedy}"
    say(console, f"{name}: {sentence}")


def _sensor(sensor: SensorFile) -> str:
    return sensor.name + ("" if sensor.readable else " (not readable)")


def watched(console: Console, found: Watched) -> None:
    """What samples look like beside those that were certified, and what that says."""
    columns = ["characteristic", "certified median", "seen median", "evidence"]
    rows = [
        [one.name, number(one.certified), number(one.seen), fixed(min(one.evidence, 1e6), 1)]
        for one in found.departures
    ]
    print_table(console, columns, rows)
    say(console, found.sentence, *([f"alarm at {found.file}"] if found.file else []))


def _reason(item: Outcome) -> str:
    if item.kept and item.update is not None:
        return f"{item.update.verdict} against {item.update.replaces[:12]}"
    return item.reason or _found(item)


def _found(item: Outcome) -> str:
    if isinstance(item.record, BenchRecord):
        return f"p50 {_milliseconds(item.record.deployed.p50_ms) or '–'} ms"
    return item.record.path if item.record else ""


def _milliseconds(value: float | None) -> str | None:
    return None if value is None else fixed(value, 2)
