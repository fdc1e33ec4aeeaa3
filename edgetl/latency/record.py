"""From raw timings (``edgetl.runtime.measure``) to ``bench.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgetl.latency.disturbance import disturbance
from edgetl.latency.stats import Estimate, mean, percentile, quantile_block, samples_needed, speedup

_PERCENTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99}


def bench_record(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Summarise the timings of a bundle, of its float twin, and of another bundle's artifact.

    Args:
        raw: what :func:`edgetl.runtime.measure.bench` returned.

    Returns:
        the deployed artifact's fields at the top (``p50_ms`` …, ``samples_ms``), the twin's under ``float``,
        ``speedup`` with its interval, ``slower_than_float`` (the whole interval lies below 1), and ``failures``:
        sentences, empty when all is well; ``scenario``, ``harness``, ``stopped`` and ``until``, and ``disturbance``.
        The other bundle's fields are under ``against``, with ``ratio``: its median over this one's.
    """
    plan: Mapping[str, Any] = raw.get("plan") or {}
    record = _summary(raw, "deployed")
    record["device"] = {**raw["device"], "before": raw["before"], "after": raw["after"]}
    record["scenario"] = plan.get("scenario", "single-stream")
    record["harness"] = plan.get("harness", "edgetl")
    record["stopped"] = raw.get("stopped", "duration")
    record["until"] = _goal(plan.get("until"), raw["samples_ms"]["deployed"])
    record["disturbance"] = disturbance(raw)
    record["against"] = record["float"] = record["speedup"] = record["loadgen"] = None
    record["slower_than_float"] = False
    record["failures"] = []
    if raw.get("loadgen"):
        record |= _by_loadgen(raw["loadgen"], record["scenario"])
    if "against" in raw["samples_ms"]:
        record["against"] = {**_summary(raw, "against"), "ratio": _ratio(raw, "against").to_json()}
    if "float" in raw["samples_ms"]:
        record |= _against_float(raw)
    return record


def _against_float(raw: Mapping[str, Any]) -> dict[str, Any]:
    gain = _ratio(raw, "float")
    # An fp32 artifact is its own twin: half the time its ratio is below 1 by chance alone.
    slower = gain.ci_high < 1
    told = (
        f"slower than its float twin on its own runtime: {gain.value:.2f}x "
        f"(95 % interval {gain.ci_low:.2f} to {gain.ci_high:.2f})"
    )
    return {
        "float": _summary(raw, "float"),
        "speedup": gain.to_json(),
        "slower_than_float": slower,
        "failures": [told] if slower else [],
    }


def _ratio(raw: Mapping[str, Any], role: str) -> Estimate:
    """Median of another artifact over the deployed one's, each for one image: their queries may differ in size."""
    images = {name: _schedule(raw, name)["images_per_query"] for name in (role, "deployed")}
    other, own = ([t / images[name] for t in raw["samples_ms"][name]] for name in (role, "deployed"))
    return speedup(other, own)


def _schedule(raw: Mapping[str, Any], role: str) -> Mapping[str, Any]:
    batch = raw.get("batch", 1)
    plain = {"streams": 1, "threads": raw["threads"], "batch": batch, "images_per_query": batch, "tried": []}
    schedules: Mapping[str, Mapping[str, Any]] = raw.get("schedules") or {}
    return schedules.get(role, plain)


def _goal(until: float | None, samples: Sequence[float]) -> dict[str, Any] | None:
    if until is None:
        return None
    found = percentile(samples, 0.9)
    width = None if found is None else found.width
    return {"wanted": until, "width": width, "reached": width is not None and width < until}


def _by_loadgen(told: Mapping[str, Any], scenario: str) -> dict[str, Any]:
    """LoadGen's own figures take the place of ours; offline it has no latencies of queries, only their rate."""
    names = ("p50_ms", "p90_ms", "p99_ms", "mean_ms") if scenario == "single-stream" else ()
    figures = {name: told[name] for name in (*names, "throughput_ips") if told.get(name) is not None}
    return {**figures, "loadgen": dict(told)}


def _summary(raw: Mapping[str, Any], role: str) -> dict[str, Any]:
    samples: Sequence[float] = raw["samples_ms"][role]
    executed, cold, schedule = raw["executed"][role], raw["cold"][role], _schedule(raw, role)
    estimates = {name: percentile(samples, q) for name, q in _PERCENTILES.items()}
    average = mean(samples)
    intervals = {**estimates, "mean": average}
    spent = (raw.get("energy") or {}).get(role) or {"energy_mj": None, "reason": "not measured"}
    return {
        **{f"{name}_ms": found.value if found else None for name, found in estimates.items()},
        "ci": {name: [found.ci_low, found.ci_high] if found else None for name, found in intervals.items()},
        "block_length": {name: quantile_block(samples, _PERCENTILES[name]) for name, it in estimates.items() if it},
        "refused": {
            name: f"{len(samples)} samples; {samples_needed(_PERCENTILES[name])} are needed"
            for name, found in estimates.items()
            if found is None
        },
        "mean_ms": average.value,
        "throughput_ips": 1000 * schedule["images_per_query"] / average.value,
        "batch": schedule["batch"],
        "streams": schedule["streams"],
        "images_per_query": schedule["images_per_query"],
        "tried": list(schedule["tried"]),
        "n": len(samples),
        "warmup": raw["warmup"],
        "threads": schedule["threads"],
        "peak_rss_mb": cold["peak_rss_mb"],
        "cold_start_ms": cold["cold_start_ms"],
        "energy_mj": spent["energy_mj"],
        "energy": {key: value for key, value in spent.items() if key != "energy_mj"},
        "precision_executed": executed["precision"],
        "integer_macs": executed["integer_macs"],
        "layers": executed["layers"],
        "samples_ms": list(samples),
    }
