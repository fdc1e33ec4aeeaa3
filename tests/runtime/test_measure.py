"""Raw timings: every sample is there, and each is of what it says. No test looks at how long anything took."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import tiny

from edgetl.base.errors import BackendError, BundleError
from edgetl.base.schema import from_json, to_json
from edgetl.core.bundle import Bundle
from edgetl.core.tensors import Arrays, TensorSpec
from edgetl.latency import bench_record
from edgetl.runtime import open_session
from edgetl.runtime.machine import machine
from edgetl.runtime.measure import MIN_RUNS, WARMUP, bench, cold_start, interleave
from edgetl.runtime.measurement import Measurement
from edgetl.runtime.plan import Plan
from edgetl.runtime.sensors import state
from edgetl.runtime.sessions import Executed

MakeBundle = Callable[..., Bundle]


class Counting:
    """A session that writes down what it was given."""

    def __init__(self, log: list[tuple[str, int, int]], name: str, batch: int | None = None) -> None:
        self.log, self.name = log, name
        self.inputs = (TensorSpec("image", "uint8", (batch, tiny.HEIGHT, tiny.WIDTH, 3)),)

    def run(self, feeds: Arrays) -> dict[str, np.ndarray]:
        image = feeds["image"]
        self.log.append((self.name, int(image[0, 0, 0, 0]), len(image)))
        return {"logits": np.zeros((len(image), 4), np.float32)}

    def executed(self) -> Executed:
        return Executed("fp32", 0.0, {})

    def close(self) -> None:
        return


def numbered(n: int) -> list[Arrays]:
    images = tiny.pictures(n)
    images[:, 0, 0, 0] = np.arange(n)
    return [{"image": image[None]} for image in images]


@pytest.mark.parametrize("names", [("one",), ("a", "b"), ("a", "b", "c")])
def test_sessions_take_turns_and_nothing_is_dropped(names: tuple[str, ...]) -> None:
    log: list[tuple[str, int, int]] = []
    samples = interleave({n: Counting(log, n) for n in names}, numbered(3), seconds=0, warmup=4)
    assert {name: len(values) for name, values in samples.items()} == dict.fromkeys(names, MIN_RUNS)
    assert len(log) == (MIN_RUNS + 4) * len(names), "each inference after warm-up left one sample"
    rounds = [log[i : i + len(names)] for i in range(0, len(log), len(names))]
    for index, turn in enumerate(rounds):
        assert {name for name, _, _ in turn} == set(names)
        assert {image for _, image, _ in turn} == {index % 3}, "all are given the same image in a round"
    assert {turn[0][0] for turn in rounds} == set(names), "each goes first now and then"
    assert all(value > 0 for values in samples.values() for value in values)


def test_without_warmup_the_first_sample_counts() -> None:
    log: list[tuple[str, int, int]] = []
    samples = interleave({"one": Counting(log, "one")}, numbered(1), seconds=0, warmup=0)
    assert len(samples["one"]) == len(log) == MIN_RUNS


def test_time_goes_on_for_as_long_as_asked() -> None:
    log: list[tuple[str, int, int]] = []
    samples = interleave({"one": Counting(log, "one")}, numbered(2), seconds=0.2, warmup=2)
    assert len(samples["one"]) > MIN_RUNS
    assert len(log) == len(samples["one"]) + 2


def test_a_fixed_batch_is_fed_full() -> None:
    log: list[tuple[str, int, int]] = []
    interleave({"one": Counting(log, "one", batch=4)}, numbered(2), seconds=0)
    assert {size for _, _, size in log} == {4}


def test_bench_of_a_quantized_bundle(int8_bundle: MakeBundle) -> None:
    told: list[str] = []
    raw = bench(int8_bundle(), Plan(seconds=0, threads=2), progress=lambda task, *_, **__: told.append(task))
    assert {role: len(v) for role, v in raw.samples_ms.items()} == {"deployed": MIN_RUNS, "float": MIN_RUNS}
    assert raw.executed["deployed"].integer_macs == 1
    assert raw.executed["float"].integer_macs == 0
    assert raw.executed["float"].precision == "fp32"
    assert (raw.schedules["deployed"].schedule.threads, raw.warmup, raw.schedules["deployed"].schedule.batch) == (
        2,
        WARMUP,
        1,
    )
    for role in ("deployed", "float"):
        assert raw.cold[role].cold_start_ms > 0
        assert raw.cold[role].peak_rss_mb > 10
    assert raw.device["cores"] >= 1
    assert {"clock_mhz", "temperatures_c", "power_w", "load_1min"} <= set(raw.before) & set(raw.after)
    assert told
    assert from_json(Measurement, json.loads(json.dumps(to_json(raw), allow_nan=False)), "a device") == raw
    timing = bench_record(raw).deployed
    assert timing.n == MIN_RUNS
    assert timing.samples_ms == raw.samples_ms["deployed"]


def test_bench_of_a_fixed_batch(float_bundle: MakeBundle) -> None:
    raw = bench(float_bundle(batch=4), Plan(seconds=0))
    timing = bench_record(raw).deployed
    assert timing.batch == 4
    assert timing.throughput_ips == pytest.approx(4000 / timing.mean_ms)


def test_bench_without_golden_vectors(float_bundle: MakeBundle) -> None:
    bundle = float_bundle()
    (bundle.path / "golden.npz").unlink()
    with pytest.raises(BundleError, match="no golden vectors"):
        bench(bundle, Plan(seconds=0))


def test_an_artifact_that_does_not_start_is_one_line(float_bundle: MakeBundle) -> None:
    bundle = float_bundle()
    bundle.artifact().path.write_bytes(b"damaged after it was opened")
    with pytest.raises(BackendError, match="does not start in a fresh process") as caught:
        bench(bundle, Plan(seconds=0))
    assert "\n" not in str(caught.value)


def test_cold_start_is_measured_in_another_process(float_bundle: MakeBundle) -> None:
    """The fresh process neither has this one's modules nor answers for this one's memory."""
    ballast = np.ones(600 << 17)  # 600 MiB, touched
    raw = bench(float_bundle(), Plan(seconds=0))
    assert raw.cold["deployed"].peak_rss_mb < 500
    assert ballast[-1] == 1


def test_cold_start_here(float_bundle: MakeBundle) -> None:
    measured = cold_start(float_bundle().artifact(), {"image": tiny.pictures(1)}, 1)
    assert measured.cold_start_ms > 0
    assert measured.peak_rss_mb > 10


def test_the_machine_is_described_in_json() -> None:
    described = json.loads(json.dumps({**machine(), **state()}, allow_nan=False))
    assert described["cpu_model"]
    assert described["cores"] >= 1
    assert described["memory_mb"] is None or described["memory_mb"] > 100


def test_no_file_is_left_by_reading_back_what_was_executed(int8_bundle: MakeBundle) -> None:
    bundle = int8_bundle()
    before = sorted(bundle.path.rglob("*"))
    code = (
        "import os, sys, tempfile; from edgetl.core.bundle import load_bundle; from edgetl.runtime import open_session;"
        "from pathlib import Path; there = tempfile.mkdtemp(); os.chdir(there); tempfile.tempdir = there;"
        f"open_session(load_bundle({str(bundle.path)!r}).artifact()).executed(); print(list(Path(there).rglob('*')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert sorted(bundle.path.rglob("*")) == before


def test_sessions_of_every_role_open(int8_bundle: MakeBundle) -> None:
    bundle = int8_bundle()
    for role in ("deployed", "float"):
        open_session(bundle.artifact(role)).close()
