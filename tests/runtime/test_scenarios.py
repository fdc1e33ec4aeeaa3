"""What a query is in each scenario, when measuring ends, and who else may hold the clock. No test looks at a time."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny

from edgetl.base.errors import EdgetlError, MissingExtraError
from edgetl.base.schema import to_json
from edgetl.core.bundle import Artifact, Bundle, load_bundle, write_manifest
from edgetl.core.tensors import Arrays
from edgetl.latency import bench_record
from edgetl.runtime import loadgen, open_session
from edgetl.runtime.measure import MIN_RUNS, bench, golden_feeds, take_turns
from edgetl.runtime.plan import Plan
from edgetl.runtime.queries import Schedule, opened

MakeBundle = Callable[..., Bundle]


def samples(n: int) -> list[Arrays]:
    return [{"image": image[None]} for image in tiny.pictures(n)]


def test_a_single_stream_is_one_session(float_bundle: MakeBundle) -> None:
    with opened(float_bundle().artifact(), samples(3), Plan(threads=2)) as ready:
        assert len(ready.sessions) == 1
        assert ready.schedule == Schedule(1, 2, 1, 1)
        answer = ready.query(4)
    assert isinstance(answer, dict)
    assert np.abs(answer["logits"] - tiny.expected(tiny.pictures(3)[1:2])).max() < 1e-4, (
        "the fourth query asks image 4 mod 3"
    )


def test_texts_are_timed_at_their_own_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tokenizers", reason="tokenizers (edgetl[text]) cuts texts into tokens")
    bundle = tiny.text_bundle(tmp_path / "bundle")
    lengths = []
    assert {feeds["input_ids"].shape for feeds in golden_feeds(bundle)} == {(1, 3)}
    with opened(bundle.artifact(), golden_feeds(bundle), Plan()) as ready:

        def run(feeds: Arrays, real: Callable[..., object] = ready.sessions[0].run) -> object:
            lengths.append(feeds["input_ids"].shape)
            return real(feeds)

        monkeypatch.setattr(ready.sessions[0], "run", run)
        for number in range(3):
            ready.query(number)
    assert lengths == [(1, 3), (1, 1), (1, 3)]


def test_streams_work_at_once(int8_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of three real sessions waits for the other two inside its call: one after another would never end."""
    meeting = threading.Barrier(3, timeout=20)
    asked = []
    with opened(int8_bundle().artifact(), samples(5), Plan(scenario="multi-stream", streams=3)) as ready:
        for session in ready.sessions:

            def run(feeds: object, real: Callable[..., object] = session.run) -> object:
                meeting.wait()
                asked.append(feeds["image"].tobytes())  # type: ignore[index]
                return real(feeds)

            monkeypatch.setattr(session, "run", run)
        ready.query(1)
        assert ready.schedule.samples == len(asked) == 3
    assert set(asked) == {tiny.pictures(5)[i : i + 1].tobytes() for i in (1, 2, 3)}


def test_streams_in_a_record(int8_bundle: MakeBundle) -> None:
    raw = bench(int8_bundle(), Plan(seconds=0, scenario="multi-stream", streams=2))
    record = to_json(bench_record(raw))
    assert (record["scenario"], record["streams"], record["images_per_query"]) == ("multi-stream", 2, 2)
    assert record["throughput_ips"] == pytest.approx(2000 / record["mean_ms"])
    assert record["speedup"]["value"] > 0
    assert len(record["samples_ms"]) == MIN_RUNS


def test_offline_takes_the_fastest_way(int8_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetl.runtime.queries.TRIAL_S", 0.02)
    monkeypatch.setattr("edgetl.runtime.queries.OFFLINE_QUERY_S", 0.002)
    raw = bench(int8_bundle(), Plan(seconds=0, scenario="offline"))
    record = to_json(bench_record(raw))
    best = max(record["tried"], key=lambda way: way["images_per_s"])
    assert {way["batch"] for way in record["tried"]} == {1, 8}
    assert (record["streams"], record["threads"], record["batch"]) == (best["streams"], best["threads"], best["batch"])
    assert record["images_per_query"] % (best["streams"] * best["batch"]) == 0
    assert record["throughput_ips"] == pytest.approx(1000 * record["images_per_query"] / record["mean_ms"])


def test_offline_asks_every_image_of_a_query_once(float_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgetl.runtime.queries.TRIAL_S", 0.01)
    monkeypatch.setattr("edgetl.runtime.queries.OFFLINE_QUERY_S", 0.001)
    plan = Plan(scenario="offline", streams=2)
    asked: list[int] = []
    with opened(float_bundle(batch=4).artifact(), samples(2), plan) as ready:
        for session in ready.sessions:

            def run(feeds: object, real: Callable[..., object] = session.run) -> object:
                asked.append(len(feeds["image"]))  # type: ignore[index]
                return real(feeds)

            monkeypatch.setattr(session, "run", run)
        ready.query(0)
        assert ready.schedule.batch == 4, "a fixed batch leaves no choice"
        assert {schedule.batch for schedule in ready.tried} == {4}
        assert sum(asked) == ready.schedule.samples


def test_a_goal_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A query whose time hardly varies is known soon; the longest time is far away."""
    calls = []
    ticks = iter(range(10**9))
    # The clock is the query's own: each takes one millisecond to within a hundredth.
    monkeypatch.setattr(
        "time.perf_counter_ns", lambda: (n := next(ticks)) // 2 * 10**6 + n % 2 * (10**6 + n % 7 * 1000)
    )
    timed = take_turns({"one": calls.append}, Plan(seconds=60, until=0.02))
    assert timed.stopped == "interval"
    assert MIN_RUNS <= len(timed.samples_ms["one"]) <= 200
    watched = [look.n for look in timed.watch]
    assert watched == sorted(watched)
    assert watched[-1] == len(timed.samples_ms["one"])


def test_a_goal_out_of_reach_ends_with_the_time(int8_bundle: MakeBundle) -> None:
    raw = bench(int8_bundle(), Plan(seconds=0.2, until=1e-9))
    record = to_json(bench_record(raw))
    assert record["stopped"] == raw.stopped == "duration"
    assert record["until"]["wanted"] == 1e-9
    assert record["until"]["reached"] is False


def test_golden_vectors_beside_an_artifact_are_its_own(float_bundle: MakeBundle) -> None:
    bundle = float_bundle()
    own = tiny.pictures(2, seed=77)
    np.savez(bundle.artifact().path.with_name("golden.npz"), **{"in.image": own, "out.logits": tiny.expected(own)})
    listed = {role: bundle.artifact(role) for role in bundle.manifest.artifacts}
    write_manifest(bundle.path, bundle.manifest, listed)
    bundle = load_bundle(bundle.path)
    assert (np.concatenate([feeds["image"] for feeds in golden_feeds(bundle)]) == own).all()


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"seconds": -1}, "positive"),
        ({"seconds": float("nan")}, "positive"),
        ({"threads": 0}, "positive"),
        ({"until": 2.0}, "2%"),
        ({"until": 0.0}, "2%"),
        ({"scenario": "server"}, "multi-stream"),
        ({"harness": "stopwatch"}, "loadgen"),
        ({"streams": 2}, "multi-stream"),
        ({"scenario": "offline", "streams": 0}, "positive"),
        ({"harness": "loadgen", "until": 0.02}, "LoadGen"),
        ({"harness": "loadgen", "scenario": "multi-stream"}, "LoadGen"),
    ],
)
def test_plans_that_make_no_sense(wrong: dict[str, object], hint: str) -> None:
    with pytest.raises(EdgetlError, match=hint) as caught:
        Plan(**wrong)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


SUMMARY = """\
Scenario : SingleStream
90.0th percentile latency (ns) : 2143383
Result is : VALID
QPS w/ loadgen overhead         : 465.30
QPS w/o loadgen overhead        : 466.93

Mean latency (ns)               : 2141666
50.00 percentile latency (ns)   : 2109616
90.00 percentile latency (ns)   : 2143383
99.00 percentile latency (ns)   : 2814535
99.90 percentile latency (ns)   : 6466331
"""


def test_loadgens_own_log_is_read() -> None:
    told = loadgen.read_summary(SUMMARY, size=1)
    assert (told.p50_ms, told.p90_ms, told.p99_ms) == (2.109616, 2.143383, 2.814535)
    assert (told.mean_ms, told.throughput_ips, told.valid) == (2.141666, 466.93, True)


@pytest.mark.parametrize("scenario", ["single-stream", "offline"])
def test_loadgen_asks(int8_bundle: MakeBundle, scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen (edgetl[loadgen]) asks the queries")
    monkeypatch.setattr("edgetl.runtime.queries.TRIAL_S", 0.02)
    monkeypatch.setattr("edgetl.runtime.queries.OFFLINE_QUERY_S", 0.002)
    raw = bench(int8_bundle(), Plan(seconds=0.3, scenario=scenario, harness="loadgen"))  # type: ignore[arg-type]
    record = to_json(bench_record(raw))
    told = record["loadgen"]
    assert record["harness"] == "loadgen"
    assert record["n"] >= loadgen.MIN_QUERIES
    assert told["version"].startswith(("5", "6", "7"))
    assert "MLPerf Results Summary" in told["summary"]
    assert record["float"] is None, "LoadGen knows no turns"
    if scenario == "single-stream":
        assert record["p50_ms"] == told["p50_ms"]
        # LoadGen's clock starts before ours and stops after it, on the very same queries.
        assert told["p50_ms"] >= np.median(record["samples_ms"])
    else:
        assert record["throughput_ips"] == told["throughput_ips"]


def test_without_loadgen_one_line_says_what_to_install(
    int8_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlperf_loadgen", None)
    with pytest.raises(MissingExtraError, match=r"mlcommons-loadgen.*edgetl\[loadgen\]"):
        bench(int8_bundle(), Plan(seconds=0, harness="loadgen"))


def test_three_take_turns(int8_bundle: MakeBundle, tmp_path: Path) -> None:
    """A bundle with another one's artifact beside its own: all three are timed in one process, by their own images."""
    bundle = int8_bundle()
    folder = tmp_path / "three"
    for role in ("model", "float"):
        shutil.copytree(bundle.path / role, folder / role)
    shutil.copytree(bundle.path / "float", folder / "against")
    roles = [Artifact("onnxruntime", folder / role / "model.onnx", "fp32") for role in ("model", "float")]
    tiny.seal(folder, *roles, more={"against": Artifact("onnxruntime", folder / "against" / "model.onnx", "fp32")})
    from edgetl.core.bundle import load_bundle

    raw = bench(load_bundle(folder), Plan(seconds=0))
    assert {role: len(v) for role, v in raw.samples_ms.items()} == dict.fromkeys(
        ("deployed", "float", "against"), MIN_RUNS
    )
    record = to_json(bench_record(raw))
    assert record["against"]["ratio"]["ci_low"] <= record["against"]["ratio"]["value"]
    assert record["against"]["cold_start_ms"] > 0
    open_session(load_bundle(folder).artifact("against")).close()
