from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgetl.base.errors import BundleError
from edgetl.core.bundle import BENCH, Bundle, load_bundle
from edgetl.reporting.summary import rows

MakeBundle = Callable[..., Bundle]
UNDERPOWERED = {"verdict": "underpowered", "ci_low": -0.02, "ci_high": 0.004, "n": 591, "n_needed": 2470}


def test_row_holds_what_the_records_say(make_bundle: MakeBundle) -> None:
    (row,) = rows([make_bundle(certificate=UNDERPOWERED)])
    assert (row.target, row.runtime, row.precision, row.executed) == ("x86-generic", "onnxruntime", "int8", "host")
    found, speedup = row.certificate, row.speedup
    assert found is not None
    assert speedup is not None
    assert (found.reference_score, found.deployed_score) == (15 / 16, 14 / 16)
    assert (found.ci_low, found.ci_high, row.verdict, found.n) == (-0.02, 0.004, "underpowered", 591)
    assert 2 < speedup.ci_low < speedup.value < speedup.ci_high < 2.5
    assert speedup.value == pytest.approx((row.float_p50_ms or 0.0) / (row.p50_ms or 1.0))
    assert 2 < (row.p50_ms or 0.0) < 2.6
    assert 4.6 < (row.float_p50_ms or 0.0) < 5.6
    assert (row.size_mb, row.float_size_mb) == (0.036, 0.134)
    assert row.failures == row.notes == ()


def test_rows_keep_the_order(make_bundle: MakeBundle) -> None:
    found = rows([make_bundle("rpi5"), make_bundle("intel-cpu", backend="openvino")])
    assert [(row.target, row.runtime) for row in found] == [("rpi5", "onnxruntime"), ("intel-cpu", "openvino")]


def test_simulated_bundle_has_no_latency_and_says_why(make_bundle: MakeBundle) -> None:
    (row,) = rows([make_bundle("jetson-orin-nano", backend="tensorrt", executed="simulated", bench=False)])
    assert (row.p50_ms, row.float_p50_ms, row.speedup) == (None, None, None)
    assert row.executed == "simulated"
    assert row.certificate is not None
    assert any("simulated time is not device time" in note for note in row.notes)


def test_times_of_a_simulation_are_never_shown(make_bundle: MakeBundle) -> None:
    (row,) = rows([make_bundle("rpi5", timing={"executed": "simulated"})])
    assert (row.p50_ms, row.float_p50_ms, row.speedup) == (None, None, None)
    assert any("simulated" in note for note in row.notes)


def test_bundle_without_records(make_bundle: MakeBundle) -> None:
    (row,) = rows([make_bundle(executed=None, bench=False)])
    assert (row.verdict, row.executed, row.certificate, row.p50_ms) == ("", "", None, None)
    assert [note.split(":")[0] for note in row.notes] == ["no certificate yet", "no latency yet"]


def test_missing_twin_and_refused_percentile_are_explained(make_bundle: MakeBundle) -> None:
    (row,) = rows([make_bundle(timing={"float": None, "speedup": None, "p50_ms": None, "n": 3})])
    assert (row.speedup, row.float_p50_ms) == (None, None)
    assert row.notes == ("no p50: 3 samples cannot support it", "no speed-up: the float twin was not benchmarked")


def test_times_of_batches_are_called_so(make_bundle: MakeBundle) -> None:
    (row,) = rows([make_bundle(timing={"batch": 8, "images_per_query": 8})])
    assert row.notes == ("times are of a batch of 8 images",)


def test_slow_artifact_is_a_failure_even_without_its_sentence(make_bundle: MakeBundle) -> None:
    said, unsaid = "slower than its float twin: 0.93x", {"slower_than_float": True}
    first, second = rows(
        [make_bundle("a", timing={**unsaid, "failures": [said]}), make_bundle("b", timing={**unsaid, "failures": []})]
    )
    assert first.failures == (said,)
    assert "slower than its float twin" in second.failures[0]


def test_record_of_another_bundle_is_refused(make_bundle: MakeBundle) -> None:
    mine, other = make_bundle("rpi5"), make_bundle("rpi4")
    (mine.path / BENCH).write_bytes((other.path / BENCH).read_bytes())
    with pytest.raises(BundleError, match="another bundle"):
        rows([mine])


def test_rows_of_a_bundle_opened_by_a_relative_path_name_its_folder(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make_bundle("rpi5").path)
    (row,) = rows([load_bundle(Path())])
    assert row.bundle == "rpi5"


def test_a_disturbed_timing_says_so(make_bundle: MakeBundle) -> None:
    reason = "noisy neighbour: other processes took 1.28 of 2 cores (0.10 is usual at most)"
    disturbed = {"disturbance": {"disturbed": True, "reasons": [reason], "evidence": {"seconds": 10.0, "cores": 2}}}
    (row,) = rows([make_bundle(timing=disturbed)])
    assert f"the timing was disturbed: {reason}" in row.notes
