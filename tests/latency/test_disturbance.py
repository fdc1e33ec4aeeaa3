"""What disturbed a benchmark: from counters as kernels give them, and from a real process that takes the cores."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from edgetl.base.schema import from_json
from edgetl.core.bench import Energy
from edgetl.latency.disturbance import disturbance
from edgetl.runtime.measure import take_turns
from edgetl.runtime.measurement import Cold, Look, Measurement, Schedule, Scheduled, Spent
from edgetl.runtime.plan import Plan
from edgetl.runtime.sessions import Executed

LOOKS = 13


def raw(change: Callable[[int], dict[str, Any]] = lambda _: {}, drift: float = 0.0, streams: int = 1) -> Measurement:
    """Ten quiet seconds on 2 cores; ``change`` alters what is seen at each look."""
    watch = []
    for i in range(LOOKS):
        at = 10 * i / (LOOKS - 1)
        seen = {
            "at_s": 100 + at,
            "busy_s": 1000 + 1.02 * at,
            "own_s": 5 + at,
            "steal_s": 3.0,
            "cores": 2,
            "involuntary": 10 + int(2 * at),
            "waited_s": 0.001 * at,
            "pressure_s": 0.01 * at,
            "throttled": 7,
            "quota_s": None,
            "capped": [],
            "clock_mhz": 2400.0,
            "temperatures_c": {"cpu": 50 + at},
            "trips_c": {"cpu": 85.0},
        }
        watch.append(from_json(Look, {**seen, **change(i)}, "a look"))
    values = np.random.default_rng(0).gamma(400, 0.01, 500) * np.linspace(1, 1 + drift, 500)
    return measured({"deployed": values.tolist()}, watch, streams)


def measured(samples: Mapping[str, Sequence[float]], watch: Sequence[Look], streams: int = 1) -> Measurement:
    return Measurement(
        samples_ms={role: tuple(values) for role, values in samples.items()},
        executed={role: Executed("fp32", 0.0, {}) for role in samples},
        cold={role: Cold(1.0, 1.0) for role in samples},
        schedules={role: Scheduled(schedule=Schedule(streams)) for role in samples},
        energy={role: Spent(energy=Energy(reason="no sensor")) for role in samples},
        plan=Plan(),
        stopped="duration",
        warmup=0,
        watch=tuple(watch),
        device={},
        before={},
        after={},
    )


def told(given: Measurement) -> list[str]:
    found = disturbance(given)
    assert found is not None
    assert found.disturbed == bool(found.reasons)
    return list(found.reasons)


def test_a_quiet_run_is_not_flagged() -> None:
    found = disturbance(raw())
    assert found is not None
    assert found.disturbed is False
    assert found.reasons == ()
    evidence = found.evidence
    assert evidence.others_cores == pytest.approx(0.02)
    assert evidence.own_cores == pytest.approx(1)
    assert evidence.clock_mhz == (2400, 2400)
    assert evidence.hottest_c == {"cpu": 60}


@pytest.mark.parametrize(
    ("change", "kind", "figure"),
    [
        (lambda i: {"busy_s": 1000 + 1.9 * i}, "noisy neighbour", "1.28 of 2 cores"),
        (lambda i: {"steal_s": 0.05 * i}, "noisy neighbour", "6.0% of a core"),
        (lambda i: {"waited_s": 0.2 * i}, "noisy neighbour", "24.0% of the time"),
        (lambda i: {"waited_s": None, "involuntary": 100 * i}, "noisy neighbour", "120 involuntary"),
        (lambda i: {"quota_s": 0.1 * i}, "throttling", "1.20 s"),
        (lambda i: {"clock_mhz": 2400.0 if i < 6 else 1800.0}, "throttling", "from 2400 to 1800 MHz"),
        (lambda i: {"throttled": 7 + i}, "throttling", "12 throttle events"),
        (
            lambda i: {"gpu_clock_mhz": 1020.0 if i < 6 else 612.0},
            "throttling",
            "the GPU's clock fell from 1020 to 612",
        ),
        (lambda i: {"capped": ["cpufreq-cpu0 (cooling_device1)"] if i == 8 else []}, "throttling", "cooling_device1"),
        (lambda i: {"temperatures_c": {"cpu": 80.0 + i}}, "throttling", "reached 92 °C"),
    ],
)
def test_each_disturbance_is_named_with_its_figures(
    change: Callable[[int], dict[str, Any]], kind: str, figure: str
) -> None:
    (reason,) = told(raw(change))
    assert reason.startswith(kind)
    assert figure in reason


def test_drift() -> None:
    (reason,) = told(raw(drift=0.3))
    assert reason.startswith("drift: the deployed artifact's latency changed by +2")
    (back,) = told(raw(drift=-0.3))
    assert "by -2" in back or "by -3" in back
    assert told(raw(drift=0.1)) == [], "significant, but too small to matter"


def test_more_threads_than_cores_take_their_own_cores() -> None:
    waiting = raw(lambda i: {"waited_s": 0.5 * i}, streams=4)
    assert told(waiting) == []


def test_a_kernel_that_says_nothing_still_shows_drift() -> None:
    names = ("busy_s", "steal_s", "waited_s", "pressure_s", "throttled", "clock_mhz", "temperatures_c")
    assert told(raw(lambda _: dict.fromkeys(names))) == []
    assert len(told(raw(lambda _: dict.fromkeys(names), drift=0.3))) == 1


def test_what_nobody_watched_is_not_judged() -> None:
    assert disturbance(measured({"deployed": [1.0]}, ())) is None


def test_a_process_that_burns_all_cores_is_seen() -> None:
    """Real burners, one for each core, while a real query is timed."""
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        time.sleep(0.3)
        matrix = np.random.default_rng(0).normal(size=(200, 200))
        timed = take_turns({"deployed": lambda _: np.sort(matrix, axis=None)}, Plan(seconds=2))
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    found = disturbance(measured(timed.samples_ms, timed.watch))
    assert found is not None
    assert found.disturbed is True
    assert any("other processes took" in reason for reason in found.reasons)
