"""The stages joined: the same bundle again, whatever interrupted the first attempt, and certificates that bind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import edgetl
from edgetl.base.errors import CertifyError, EdgetlError
from edgetl.base.schema import to_json
from edgetl.core.bundle import BENCH, BILL, CERTIFICATE, MODEL_CARD, PREDICTIONS, load_bundle
from tests.conftest import ROOT

TARGETS = ("jetson", "intel-cpu", "x86-generic")
#: What is written anew when a bundle is judged again.
JUDGED = (CERTIFICATE, BILL, MODEL_CARD)


def start_export(run: Path, out: Path) -> subprocess.Popen[bytes]:
    chosen = [argument for name in TARGETS for argument in ("--target", name)]
    command = ["export", str(run), *chosen, "--out", str(out), "--no-bench", "--no-repair", "--quiet"]
    script = "import sys; from edgetl.cli import main; main(sys.argv[1:])"
    return subprocess.Popen([sys.executable, "-c", script, *command], cwd=ROOT, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def whole(tiny_run: Path) -> Path:
    """Three int8 bundles made without interruption."""
    out = tiny_run.parent / "whole"
    process = start_export(tiny_run, out)
    _, errors = process.communicate()
    assert process.returncode in (0, 3), errors.decode()
    return out


def manifests(out: Path) -> dict[str, str]:
    return {name: load_bundle(out / name).digest for name in TARGETS}


def outcome(out: Path) -> dict[str, object]:
    """All that a certificate says of each bundle."""
    return {name: json.loads((out / name / CERTIFICATE).read_text()) for name in TARGETS}


def visible(out: Path) -> set[str]:
    return {p.name for p in out.iterdir() if not p.name.startswith(".")} if out.is_dir() else set()


@pytest.mark.parametrize("wanted", [1, 3, 5])
def test_export_killed_at_any_stage_resumes_to_the_same_outcome(
    tiny_run: Path, whole: Path, tmp_path: Path, wanted: int
) -> None:
    """Killed with SIGKILL once ``wanted`` stages or bundles stand, and again later; then left alone."""
    out = tmp_path / "out"
    for target_count in (wanted, wanted + 1):
        process = start_export(tiny_run, out)
        while process.poll() is None:
            standing = len(list(out.glob(".work/*-*"))) + len(visible(out)) if out.is_dir() else 0
            if standing >= target_count:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.02)
        process.communicate()
        for name in visible(out):
            load_bundle(out / name)
    process = start_export(tiny_run, out)
    _, errors = process.communicate()
    assert process.returncode in (0, 3), errors.decode()
    assert manifests(out) == manifests(whole)
    assert outcome(out) == outcome(whole)
    assert not list(out.rglob("*.partial"))


def test_the_same_export_again_does_nothing(tiny_run: Path, whole: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.is_file() and p.name not in JUDGED}
    process = start_export(tiny_run, whole)
    process.communicate()
    after = {p: p.stat().st_mtime_ns for p in whole.rglob("*") if p.is_file() and p.name not in JUDGED}
    assert before == after


def test_a_damaged_bundle_is_made_again(tiny_run: Path, whole: Path) -> None:
    digest = load_bundle(whole / "jetson").digest
    (whole / "jetson" / "labels.json").write_text("[]")
    start_export(tiny_run, whole).communicate()
    assert load_bundle(whole / "jetson").digest == digest


def test_a_folder_of_the_users_is_never_replaced(tiny_run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "x86-generic"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(EdgetlError, match="is no bundle"):
        edgetl.export(tiny_run, targets=["x86-generic"], out=tmp_path, bench=False)
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_what_a_certificate_holds(whole: Path) -> None:
    """The fields that the contract names, and the truth about where it was executed."""
    fields = {
        *("verdict", "reference_accuracy", "deployed_accuracy", "difference", "ci_low", "ci_high", "margin", "alpha"),
        *("n", "n_needed", "flips", "classes", "transfer_gain_retained", "ladder", "first_divergence", "executed"),
        *("runtime", "isa", "precision", "hashes"),
    }
    for name in TARGETS:
        record = json.loads((whole / name / CERTIFICATE).read_text())
        assert fields <= set(record)
        assert set(record["flips"]) == {"lost", "gained"}
        assert {"model", "splits", "preprocess"} <= set(record["hashes"])
        assert record["executed"] == ("simulated" if name == "jetson" else "host")
        between = [] if name == "jetson" else ["Q/DQ in float"]
        assert [rung["name"] for rung in record["ladder"]] == ["reference", "float ONNX", *between, "deployed"]
        dataset = load_bundle(whole / name).dataset
        assert record["n"] == len(dataset.split("certify"))


def test_jetson_bundle_was_built_by_a_real_builder(whole: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx (edgetl[tensorrt]) builds engines without a GPU")
    parse = json.loads((whole / "jetson" / "model" / "parse.json").read_text())
    assert parse["checked"]
    assert parse["stand_in"]
    assert (parse["compute_capability"], parse["engine_bytes"] > 0) == ("8.6", True)


def test_calibration_images_come_from_their_split_alone(whole: Path) -> None:
    for name in TARGETS:
        bundle = load_bundle(whole / name)
        chosen = json.loads((bundle.path / "calibration.json").read_text())["samples"]
        allowed = {s.sha256 for s in bundle.dataset.split("calibration")}
        assert chosen
        assert {image["sha256"] for image in chosen} <= allowed


def test_judging_again_needs_no_images_and_keeps_what_was_executed(whole: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "moved"
    shutil.copytree(whole / "jetson", bundle)
    saved = (bundle / PREDICTIONS).read_bytes()
    wide, narrow = edgetl.verify(bundle, margin=0.5), edgetl.verify(bundle, margin=0.0001)
    assert (wide.verdict, wide.executed) == ("pass", "simulated")
    assert narrow.verdict != "pass"
    assert narrow.margin == 0.0001
    assert (bundle / PREDICTIONS).read_bytes() == saved
    assert edgetl.verify(bundle, margin=0.5).difference == wide.difference


def test_certify_images_are_found_by_their_content(tiny_run: Path, whole: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "renamed"
    for index, file in enumerate(sorted((tiny_run.parent / "photos").rglob("*.png"))):
        elsewhere.mkdir(exist_ok=True)
        shutil.copy(file, elsewhere / f"{index}.png")
    before = json.loads((whole / "x86-generic" / CERTIFICATE).read_text())
    again = edgetl.verify(whole / "x86-generic", data=elsewhere)
    assert (again.n, again.deployed_accuracy) == (before["n"], before["deployed_accuracy"])
    for file in list(elsewhere.iterdir())[:80]:
        file.unlink()
    with pytest.raises(CertifyError, match="certify images are missing"):
        edgetl.verify(whole / "x86-generic", data=elsewhere)


def test_a_certificate_of_another_bundle_is_refused(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "x86-generic", tmp_path / "a")
    shutil.copy(whole / "intel-cpu" / CERTIFICATE, tmp_path / "a" / CERTIFICATE)
    assert edgetl.check(tmp_path / "a") is not None
    assert edgetl.check(whole / "x86-generic") is None


def test_float_bundle_is_timed_without_a_twin(tiny_bundle: Path) -> None:
    record = json.loads((tiny_bundle / BENCH).read_text())
    assert record["float"] is None
    assert record["precision_executed"] == "fp32"
    assert record["integer_macs"] == 0
    assert not record["failures"]


def test_bench_record_holds_what_the_contract_names(tiny_bundle: Path) -> None:
    record = to_json(edgetl.bench(tiny_bundle, duration=0.2))
    fields = {
        *("p50_ms", "p90_ms", "p99_ms", "mean_ms", "throughput_ips", "n", "warmup", "ci", "peak_rss_mb"),
        *("cold_start_ms", "threads", "precision_executed", "integer_macs", "device", "samples_ms"),
    }
    assert fields <= set(record)
    assert len(record["samples_ms"]) == record["n"]
    assert {"cpu_model", "governor", "before", "after"} <= set(record["device"])


def test_arrays_from_anywhere() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 4000)
    reference = np.where(rng.random(4000) < 0.9, labels, (labels + 1) % 3)
    assert edgetl.verify(reference=reference, deployed=reference, labels=labels, margin=0.01).verdict == "pass"
    worse = np.where(rng.random(4000) < 0.1, (labels + 2) % 3, reference)
    assert edgetl.verify(reference=reference, deployed=worse, labels=labels, margin=0.01).verdict == "fail"
    few = edgetl.verify(reference=reference[:30], deployed=reference[:30], labels=labels[:30], margin=0.01)
    assert few.verdict == "underpowered"
    assert few.n_needed > 30
