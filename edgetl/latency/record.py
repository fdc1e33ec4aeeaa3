"""From the timings of a device (:class:`edgetl.runtime.measurement.Measurement`) to ``bench.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgetl.core.bench import Against, BenchRecord, Estimate, Goal, LoadGen, Timing
from edgetl.latency.disturbance import disturbance
from edgetl.latency.stats import effective_samples, mean, percentile, quantile_block, samples_needed, speedup
from edgetl.runtime.measurement import Measurement

_PERCENTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99}


def bench_record(measured: Measurement) -> BenchRecord:
    """Summarise the timings of a bundle, of its float twin, and of another bundle's artifact."""
    plan, told = measured.plan, measured.loadgen
    deployed, roles = _timing(measured, "deployed"), measured.samples_ms
    gain = _ratio(measured, "float") if "float" in roles else None
    # An fp32 artifact is its own twin: half the time its ratio is below 1 by chance alone.
    slower = gain is not None and gain.ci_high < 1
    return BenchRecord(
        deployed=deployed if told is None else _by_loadgen(deployed, told, plan.scenario),
        twin=_timing(measured, "float") if "float" in roles else None,
        against=Against(timing=_timing(measured, "against"), ratio=_ratio(measured, "against"))
        if "against" in roles
        else None,
        speedup=gain,
        slower_than_float=slower,
        failures=(_failure(gain),) if gain is not None and slower else (),
        device={**measured.device, "before": measured.before, "after": measured.after},
        scenario=plan.scenario,
        harness=plan.harness,
        stopped=measured.stopped,
        until=_goal(plan.until, roles["deployed"]),
        disturbance=disturbance(measured),
        loadgen=told,
    )


def _failure(gain: Estimate) -> str:
    return (
        f"slower than its float twin on its own runtime: {gain.value:.2f}x "
        f"(95 % interval {gain.ci_low:.2f} to {gain.ci_high:.2f})"
    )


def _ratio(measured: Measurement, role: str) -> Estimate:
    """Median of another artifact over the deployed one's, each for one sample: their queries may differ in size."""
    images = {name: measured.schedules[name].schedule.samples for name in (role, "deployed")}
    other, own = ([t / images[name] for t in measured.samples_ms[name]] for name in (role, "deployed"))
    return speedup(other, own)


def _goal(until: float | None, samples: Sequence[float]) -> Goal | None:
    if until is None:
        return None
    found = percentile(samples, 0.9)
    width = None if found is None else found.width
    return Goal(until, width, width is not None and width < until)


def _by_loadgen(timing: Timing, told: LoadGen, scenario: str) -> Timing:
    """LoadGen's own figures take the place of ours; offline it has no latencies of queries, only their rate."""
    names = ("p50_ms", "p90_ms", "p99_ms", "mean_ms") if scenario == "single-stream" else ()
    figures: dict[str, Any] = {name: getattr(told, name) for name in (*names, "throughput_ips")}
    return replace(timing, **{name: value for name, value in figures.items() if value is not None})


def _refused(samples: Sequence[float], q: float) -> str:
    """Why a percentile cannot be told."""
    needed, enough = samples_needed(q), int(effective_samples(samples, q))
    if len(samples) < needed:
        return f"{len(samples)} samples; {needed} are needed"
    return f"{len(samples)} samples tell as much as {enough} independent ones; {needed} are needed: bench longer"


def _timing(measured: Measurement, role: str) -> Timing:
    samples, executed, cold = measured.samples_ms[role], measured.executed[role], measured.cold[role]
    scheduled, spent = measured.schedules[role], measured.energy[role]
    found = {name: percentile(samples, q) for name, q in _PERCENTILES.items()}
    average, schedule = mean(samples), scheduled.schedule
    values = {name: it.value if it else None for name, it in found.items()}
    return Timing(
        p50_ms=values["p50"],
        p90_ms=values["p90"],
        p99_ms=values["p99"],
        ci={name: (it.ci_low, it.ci_high) if it else None for name, it in {**found, "mean": average}.items()},
        block_length={name: quantile_block(samples, _PERCENTILES[name]) for name, it in found.items() if it},
        refused={name: _refused(samples, _PERCENTILES[name]) for name, it in found.items() if it is None},
        mean_ms=average.value,
        throughput_ips=1000 * schedule.samples / average.value,
        batch=schedule.batch,
        streams=schedule.streams,
        threads=schedule.threads,
        images_per_query=schedule.samples,
        tried=scheduled.tried,
        n=len(samples),
        warmup=measured.warmup,
        cold_start_ms=cold.cold_start_ms,
        peak_rss_mb=cold.peak_rss_mb,
        energy_mj=spent.energy_mj,
        energy=spent.energy,
        precision_executed=executed.precision,
        integer_macs=executed.integer_macs,
        layers=executed.layers,
        samples_ms=samples,
    )
