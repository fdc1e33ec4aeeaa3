"""From raw timings to the fields that bench.json promises."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from edgetl.base.errors import DeviceError
from edgetl.base.schema import from_json, to_json
from edgetl.core.bench import BenchRecord, Energy
from edgetl.latency import bench_record
from edgetl.runtime.measurement import Cold, Measurement, Schedule, Scheduled, Spent
from edgetl.runtime.plan import Plan
from edgetl.runtime.sessions import Executed

PROMISED = (
    "p50_ms",
    "p90_ms",
    "p99_ms",
    "mean_ms",
    "throughput_ips",
    "n",
    "warmup",
    "ci",
    "peak_rss_mb",
    "cold_start_ms",
    "threads",
    "precision_executed",
    "integer_macs",
    "device",
    "samples_ms",
)


def raw(
    n: int = 400, ratio: float | None = 0.5, noise: float = 0.02, batch: int = 1, told: Executed | None = None
) -> Measurement:
    """Timings whose deployed artifact takes ``ratio`` of its float twin's time; no twin when None."""
    rng = np.random.default_rng(0)
    slow = rng.gamma(100, 0.1, n)
    samples = {"deployed": tuple(map(float, slow * (ratio or 1) * rng.normal(1, noise, n)))}
    executed = {"deployed": told or Executed("int8", 0.97, {"int8": 49})}
    cold = {"deployed": Cold(81.5, 77.25)}
    if ratio is not None:
        samples["float"] = tuple(map(float, slow))
        executed["float"] = told or Executed("fp32", 0.0, {"fp32": 49})
        cold["float"] = Cold(60.5, 90.0)
    return Measurement(
        samples_ms=samples,
        executed=executed,
        cold=cold,
        schedules={role: Scheduled(schedule=Schedule(threads=2, batch=batch)) for role in samples},
        energy={role: Spent(energy=Energy(reason="no sensor")) for role in samples},
        plan=Plan(threads=2),
        stopped="duration",
        warmup=10,
        watch=(),
        device={"cpu_model": "a CPU", "governor": "performance"},
        before={"clock_mhz": [2000.0]},
        after={"clock_mhz": [1900.0]},
    )


def recorded(measured: Measurement) -> dict[str, Any]:
    """As ``bench.json`` has it."""
    record: dict[str, Any] = to_json(bench_record(measured))
    return record


def test_every_promised_field_is_there() -> None:
    given = raw()
    record = recorded(given)
    assert set(PROMISED) <= set(record)
    samples = given.samples_ms["deployed"]
    assert record["samples_ms"] == list(samples), "all of them, in order, unclipped"
    for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        assert record[f"{name}_ms"] == pytest.approx(np.quantile(samples, q))
        low, high = record["ci"][name]
        assert low <= record[f"{name}_ms"] <= high
    assert record["mean_ms"] == pytest.approx(np.mean(samples))
    assert record["throughput_ips"] == pytest.approx(1000 / np.mean(samples))
    assert (record["n"], record["warmup"], record["threads"]) == (400, 10, 2)
    assert (record["cold_start_ms"], record["peak_rss_mb"]) == (81.5, 77.25)
    assert (record["precision_executed"], record["integer_macs"]) == ("int8", 0.97)
    assert record["device"]["cpu_model"] == "a CPU"
    assert record["device"]["governor"] == "performance"
    assert record["device"]["before"] == {"clock_mhz": [2000.0]}
    assert record["device"]["after"] == {"clock_mhz": [1900.0]}
    assert record["float"]["precision_executed"] == "fp32"
    assert record["float"]["n"] == 400
    again = json.loads(json.dumps(record, allow_nan=False))
    assert again == record
    assert from_json(BenchRecord, again, "bench.json") == bench_record(given)


def test_a_faster_artifact_is_no_failure() -> None:
    record = recorded(raw(ratio=0.5))
    assert record["speedup"]["value"] == pytest.approx(2, rel=0.05)
    assert record["speedup"]["ci_low"] <= record["speedup"]["value"] <= record["speedup"]["ci_high"]
    assert record["slower_than_float"] is False
    assert record["failures"] == []


def test_a_slower_artifact_is_flagged() -> None:
    record = recorded(raw(ratio=2.5))
    assert record["slower_than_float"] is True
    assert len(record["failures"]) == 1
    assert "slower than its float twin" in record["failures"][0]
    assert "0.40x" in record["failures"][0]


def test_a_twin_of_equal_speed_is_not_flagged_by_chance() -> None:
    record = recorded(raw(ratio=1.015, noise=0.05))
    assert record["speedup"]["value"] < 1 < record["speedup"]["ci_high"]
    assert record["slower_than_float"] is False
    assert record["failures"] == []


def test_without_a_twin() -> None:
    record = recorded(raw(ratio=None))
    assert record["float"] is None
    assert record["speedup"] is None
    assert record["slower_than_float"] is False


@pytest.mark.parametrize(
    ("n", "refused"), [(5, ("p50", "p90", "p99")), (30, ("p90", "p99")), (367, ("p99",)), (368, ())]
)
def test_a_percentile_that_n_cannot_support_is_null(n: int, refused: tuple[str, ...]) -> None:
    record = recorded(raw(n))
    for summary in (record, record["float"]):
        assert set(summary["refused"]) == set(refused)
        for name in ("p50", "p90", "p99"):
            assert (summary[f"{name}_ms"] is None) == (name in refused)
            assert (summary["ci"][name] is None) == (name in refused)
    if "p99" in refused:
        assert record["refused"]["p99"] == f"{n} samples; 368 are needed"


def test_a_fixed_batch_counts_its_images() -> None:
    one, four = recorded(raw()), recorded(raw(batch=4))
    assert four["throughput_ips"] == pytest.approx(4 * one["throughput_ips"])
    assert four["p50_ms"] == one["p50_ms"]


def test_a_runtime_that_does_not_tell() -> None:
    record = recorded(raw(told=Executed("unknown", None, {})))
    assert record["integer_macs"] is None
    assert record["precision_executed"] == "unknown"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"samples_ms": {"float": [1.0]}}, "no samples of the deployed artifact"),
        ({"samples_ms": {"deployed": [1.0, 0.0], "float": [1.0, 1.0]}}, "took no time"),
        ({"samples_ms": {"deployed": [], "float": []}}, "none at all"),
        ({"samples_ms": {"deployed": [1.0], "float": [1.0, 2.0]}}, "not as often each"),
        ({"samples_ms": {"deployed": [1.0], "moon": [1.0]}}, "not all is told of it"),
        ({"cold": {}}, "not all is told of it"),
        ({"cold": {"deployed": {"cold_start_ms": "fast", "peak_rss_mb": 1}}}, 'cold.deployed.cold_start_ms is "fast"'),
        ({"schedules": {"deployed": {"streams": 0, "threads": 1, "batch": 1, "turns": 1}}}, "a query of no samples"),
        ({"watch": [{"at_s": 1}]}, "watch[0].cores is missing"),
        ({"plan": {"seconds": None}}, "plan.seconds is null"),
        ({"executed": None}, "executed is null"),
    ],
)
def test_what_a_device_answers_is_checked(change: dict[str, Any], what: str) -> None:
    with pytest.raises(DeviceError, match=re.escape(what)) as caught:
        from_json(Measurement, {**to_json(raw()), **change}, "the answer of board", DeviceError)
    assert "\n" not in str(caught.value)
