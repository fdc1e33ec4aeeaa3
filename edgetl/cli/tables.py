"""How results look to people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgetl.reporting.console import print_results, print_table
from edgetl.reporting.outcome import print_certificate
from edgetl.reporting.summary import rows

if TYPE_CHECKING:
    from rich.console import Console

    from edgetl.pipeline import Exported


def bundles(console: Console, exported: Sequence[Exported], page: str = "") -> None:
    """The table of accuracies, verdicts and latencies, and where the bundles lie."""
    print_results(console, rows([item.bundle for item in exported]))
    for item in exported:
        if item.certificate.verdict == "fail" or item.certificate.findings:
            console.print(f"\n{item.bundle.target}", markup=False, style="bold")
            print_certificate(console, item.certificate.to_json())
    for item in exported:
        console.print(f"bundle   {item.bundle.path}", markup=False)
    if page:
        console.print(f"report   {page}", markup=False)


def latency(console: Console, record: Mapping[str, Any]) -> None:
    """Percentiles of a bundle, of its float twin and of a bundle it was compared with, side by side."""
    named = {"deployed": record, "float twin": record["float"], "against": record["against"]}
    sides = {name: side for name, side in named.items() if side}
    print_table(
        console,
        ["artifact", "p50 ms", "p90 ms", "p99 ms", "n", "cold start ms", "peak MB", "executed", "integer MACs"],
        [
            [
                name,
                *(_milliseconds(side, p) for p in ("p50", "p90", "p99")),
                side["n"],
                f"{side['cold_start_ms']:.0f}",
                f"{side['peak_rss_mb']:.0f}",
                side["precision_executed"],
                None if side["integer_macs"] is None else f"{side['integer_macs']:.0%}",
            ]
            for name, side in sides.items()
        ],
    )
    for line in _about(record):
        console.print(line, markup=False)


def _about(record: Mapping[str, Any]) -> Iterator[str]:
    """What the figures are of, what they come to, and what speaks against them, a line each."""
    timed = "by LoadGen" if record["harness"] == "loadgen" else "by edgetl"
    yield (
        f"{record['scenario']}, timed {timed}: {record['streams']} stream(s) of {record['threads']} thread(s), "
        f"{record['images_per_query']} image(s) a query, {record['throughput_ips']:.4g} images/s"
    )
    if record["energy_mj"] is not None:
        idle = record["energy"]["idle_w"]
        yield f"{record['energy_mj']:.1f} mJ an image ({record['energy']['sensor']}; idle {idle:.2f} W)"
    if record["speedup"]:
        yield f"{_ratio(record['speedup'])} as fast as its float twin"
    if record["against"]:
        other = record["against"]
        yield f"{_ratio(other['ratio'])} as fast as the {other['precision']} bundle for {other['target']}"
    goal = record["until"]
    if goal and not goal["reached"]:
        width = "unknown" if goal["width"] is None else f"{goal['width']:.1%}"
        yield f"p90 is known to {width} only, not to {goal['wanted']:.1%}: the time was over"
    for failure in record["failures"]:
        yield f"failure: {failure}"
    for reason in (record["disturbance"] or {}).get("reasons", ()):
        yield f"disturbed: {reason}"


def _ratio(gain: Mapping[str, float]) -> str:
    return f"{gain['value']:.2f}x (95 % interval {gain['ci_low']:.2f} to {gain['ci_high']:.2f})"


def _milliseconds(side: Mapping[str, Any], percentile: str) -> str | None:
    value = side[f"{percentile}_ms"]
    return None if value is None else f"{value:.2f}"
