"""What the page shows of a benchmark: every sample, percentiles with their intervals, the machine."""

from __future__ import annotations

from dataclasses import dataclass

from edgetl.base.wording import ABSENT, count, number, percent, printable
from edgetl.core.bench import BenchRecord, Timing
from edgetl.reporting import charts
from edgetl.reporting.facts import facts
from edgetl.reporting.views import TableView


@dataclass(frozen=True)
class Latency:
    """A benchmark: ``timed`` says what one sample is the time of; ``machine`` is where."""

    timed: str
    chart: str
    table: TableView
    machine: list[tuple[str, str]]


def latency(bench: BenchRecord, precision: str, noun: str, identity: str) -> Latency:
    """Prepare a benchmark of an artifact of this precision; ``noun`` is what one sample is called."""
    sides = [(f"deployed, {precision}", "deployed", bench.deployed)]
    if bench.twin is not None:
        sides.append(("float twin", "floating", bench.twin))
    timed = timed_unit(bench, noun)
    curves = [charts.Curve(name, style, timing.samples_ms, _marks(timing)) for name, style, timing in sides]
    return Latency(
        timed=timed,
        chart=charts.latencies(f"{identity}-latency", curves, timed),
        table=_table(bench, [(name, timing) for name, _, timing in sides], noun),
        machine=facts(bench.device),
    )


def timed_unit(bench: BenchRecord | None, noun: str) -> str:
    """What one query of the benchmark is the time of, such as ``one image``."""
    size = bench.deployed.images_per_query if bench else 1
    return f"one {noun}" if size == 1 else f"a batch of {count(size)} {noun}s"


def _marks(timing: Timing) -> tuple[tuple[float, float], ...]:
    values = (timing.p50_ms, timing.p90_ms, timing.p99_ms)
    known = zip((share for share, _ in charts.PERCENTILES), values, strict=True)
    return tuple((share, value) for share, value in known if value is not None)


def _table(bench: BenchRecord, sides: list[tuple[str, Timing]], noun: str) -> TableView:
    timed = [timing for _, timing in sides]
    lines: list[tuple[str, ...]] = [
        ("p50", *(_percentile(t, "p50", t.p50_ms) for t in timed)),
        ("p90", *(_percentile(t, "p90", t.p90_ms) for t in timed)),
        ("p99", *(_percentile(t, "p99", t.p99_ms) for t in timed)),
        ("mean", *(number(t.mean_ms, "ms") for t in timed)),
        ("throughput", *(number(t.throughput_ips, f"{noun}s/s") for t in timed)),
        ("cold start", *(number(t.cold_start_ms, "ms") for t in timed)),
        ("peak memory", *(number(t.peak_rss_mb, "MB") for t in timed)),
        ("samples, all kept", *(count(t.n) for t in timed)),
        ("warm-up runs", *(count(t.warmup) for t in timed)),
        ("threads", *(count(t.threads) for t in timed)),
        ("streams", *(count(t.streams) for t in timed)),
    ]
    if any(t.energy_mj is not None for t in timed):
        lines.append((f"energy for one {noun}", *(number(t.energy_mj, "mJ") for t in timed)))
    lines.append(("scenario", *(printable(bench.scenario) for _ in timed)))
    lines.append(("executed as", *(printable(t.precision_executed) for t in timed)))
    lines.append(("integer MACs", *(percent(t.integer_macs, 1) for t in timed)))
    return TableView(("", *(name for name, _ in sides)), tuple(lines))


def _percentile(timing: Timing, name: str, value: float | None) -> str:
    if value is None:
        refused = printable(timing.refused.get(name, "too few samples"))
        return f"{ABSENT}\n" + refused.replace("; ", "\n")
    bounds = timing.ci.get(name)
    return number(value, "ms") + (f"\n{number(bounds[0])} to {number(bounds[1])}" if bounds else "")
