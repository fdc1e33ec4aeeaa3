"""``deploy --unless-worse``: the release in charge and the new one answer the same samples on the device."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import edgetl
from edgetl.base.errors import CertifyError
from edgetl.certify import PairedCounts, noninferiority
from edgetl.core.bundle import Bundle, load_bundle, write_manifest
from edgetl.devices import Device
from edgetl.workflow.certify_bundle import Terms
from edgetl.workflow.fleet import Outcome
from edgetl.workflow.update_gate import Update, judged
from tests.conftest import ROOT
from tests.devices.conftest import NAME, here

Cli = Callable[..., Any]
Deploy = Callable[..., Outcome]
MARGIN = 0.25


def altered(bundle: Path, folder: Path, change: Callable[[np.ndarray], np.ndarray], task: str = "") -> Bundle:
    """A copy whose head has other weights."""
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("certificate.json", "bench.json"))
    opened = load_bundle(folder)
    model = onnx.load(opened.artifact().path)
    head = next(
        given
        for node in reversed(model.graph.node)
        for given in model.graph.initializer
        if given.name in node.input and 3 in given.dims and len(given.dims) == 2
    )
    values = change(numpy_helper.to_array(head))
    head.CopyFrom(numpy_helper.from_array(values.astype(np.float32), head.name))
    onnx.save(model, opened.artifact().path)
    manifest = replace(opened.manifest, task=task or opened.manifest.task)
    artifacts = {role: opened.artifact(role) for role in ("deployed", "float")}
    write_manifest(folder, manifest, artifacts)
    return load_bundle(folder)


def a_little(weights: np.ndarray) -> np.ndarray:
    return weights * (1 + 1e-6)


def another_order(weights: np.ndarray) -> np.ndarray:
    return np.roll(weights, 1, axis=list(weights.shape).index(3))


@pytest.fixture
def photos(tiny_run: Path) -> Path:
    return tiny_run.parent / "photos"


@pytest.fixture
def deployed(photos: Path) -> Deploy:
    def deploy(bundle: Path | Bundle, device: str, margin: float | None = MARGIN) -> Outcome:
        (outcome,) = edgetl.deploy(bundle, [device], name=NAME, force=True, unless_worse=margin, data=photos)
        return outcome

    return deploy


def in_charge(there: Path) -> str:
    return load_bundle(there / "current").digest


def test_an_equal_one_goes_in_and_a_worse_one_stays_out(
    deployed: Deploy, there: Path, device: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    first = deployed(tiny_bundle, device)
    assert (first.state, first.update) == ("deployed", None)

    equal = altered(tiny_bundle, tmp_path / "equal", a_little)
    done = deployed(equal, device)
    assert done.state == "deployed", done.reason
    assert done.update is not None
    assert (done.update.verdict, done.update.replaces) == ("pass", load_bundle(tiny_bundle).digest)
    assert (done.update.difference, done.update.regressions) == (0.0, ())
    assert in_charge(there) == equal.digest

    worse = altered(tiny_bundle, tmp_path / "worse", another_order)
    kept = deployed(worse, device)
    assert (kept.state, kept.kept, kept.failed, kept.record) == ("kept", True, False, None)
    assert in_charge(there) == equal.digest
    update = kept.update
    assert update is not None
    assert update.verdict == "fail"
    assert len(update.regressions) == round(-update.difference * update.n) + update.improvements
    regression = update.regressions[0]
    labels = {sample.path: worse.labels[int(sample.label)] for sample in worse.dataset.split("certify")}
    assert labels[regression.path] == regression.label == regression.before != regression.after
    assert regression.path in kept.reason

    assert deployed(equal, device).state == "unchanged"
    assert deployed(worse, device, None).failed, "its golden vectors are those of the network before"


@here
def test_too_few_samples_to_tell(deployed: Deploy, there: Path, device: str, tiny_bundle: Path, tmp_path: Path) -> None:
    deployed(tiny_bundle, device)
    kept = deployed(altered(tiny_bundle, tmp_path / "equal", a_little), device, 0.001)
    assert kept.kept
    assert kept.update is not None
    assert kept.update.verdict == "underpowered"
    assert "would let it in" in kept.reason
    assert in_charge(there) == load_bundle(tiny_bundle).digest
    # That margin does.
    again = deployed(tmp_path / "equal", device, -kept.update.ci_low + 1e-6)
    assert again.state == "deployed", again.reason


@here
def test_what_cannot_be_compared(deployed: Deploy, there: Path, device: str, tiny_bundle: Path, tmp_path: Path) -> None:
    other = altered(tiny_bundle, tmp_path / "other", a_little, task="multi-label")
    assert deployed(other, device, None).state == "deployed"
    refused = deployed(tiny_bundle, device)
    assert refused.failed
    assert "is for multi-label" in refused.reason
    assert "without --unless-worse" in refused.reason
    assert in_charge(there) == other.digest
    with pytest.raises(CertifyError, match="margin"):
        deployed(tiny_bundle, device, 1.5)


@here
def test_the_command(
    deployed: Deploy, there: Path, device: str, tiny_bundle: Path, tmp_path: Path, photos: Path, edgetl: Cli
) -> None:
    deployed(tiny_bundle, device)
    worse = altered(tiny_bundle, tmp_path / "worse", another_order)
    options = ("--device", device, "--name", NAME, "--force", "--json", "--data", photos)
    done = edgetl("deploy", worse.path, *options, "--unless-worse", MARGIN)
    assert done.returncode == 3, done.stderr
    record = json.loads(done.stdout)
    assert (record["failed"], record["kept"]) == (0, 1)
    assert record["devices"][0]["update"]["verdict"] == "fail"
    assert record["devices"][0]["update"]["regressions"][0]["path"]
    assert "the release in charge stays" in done.stderr
    equal = altered(tiny_bundle, tmp_path / "equal", a_little)
    assert edgetl("deploy", equal.path, *options, "--unless-worse", "0.001").returncode == 4
    done = edgetl("deploy", equal.path, *options, "--unless-worse", MARGIN)
    assert done.returncode == 0, done.stderr
    assert in_charge(there) == equal.digest
    done = edgetl("deploy", tiny_bundle, *options, "--unless-worse", MARGIN, "--data", tmp_path / "nowhere")
    assert done.returncode == 2


@here
def test_killed_at_ten_moments(
    deployed: Deploy, there: Path, device: str, tiny_bundle: Path, photos: Path, tmp_path: Path
) -> None:
    deployed(tiny_bundle, device)
    old, equal = load_bundle(tiny_bundle), altered(tiny_bundle, tmp_path / "equal", a_little)
    given = f"[{device!r}], name={NAME!r}, force=True, data={str(photos)!r}"
    code = f"import edgetl; edgetl.deploy({str(equal.path)!r}, {given}, unless_worse={MARGIN})"
    command = [sys.executable, "-c", code]
    began = time.monotonic()
    subprocess.run([*command[:-1], code.replace(f"={MARGIN}", "=0.001")], cwd=ROOT, check=True)
    whole = time.monotonic() - began
    for moment in range(10):
        running = subprocess.Popen(command, cwd=ROOT)
        time.sleep(whole * moment / 10)
        running.send_signal(signal.SIGKILL)
        running.wait()
        assert in_charge(there) in (old.digest, equal.digest)
        if in_charge(there) == equal.digest:
            break
    assert deployed(equal, device).state in ("deployed", "unchanged")
    assert in_charge(there) == equal.digest


def test_an_emulated_arm_machine(
    deployed: Deploy, emulated: Device, monkeypatch: pytest.MonkeyPatch, tiny_run: Path, tmp_path: Path
) -> None:
    edgetl.export(tiny_run, targets=["arm64-generic"], out=tmp_path, precision="fp32", bench=False, repair=False)
    bundle = tmp_path / "arm64-generic"
    monkeypatch.setenv("EDGETL_HOME", str(Path(emulated.where).parents[2]))
    name, data = emulated.name, Path(emulated.where).parent / "data"
    shutil.rmtree(data, ignore_errors=True)
    assert deployed(bundle, name).state == "deployed"
    assert deployed(altered(bundle, tmp_path / "worse", another_order), name).kept
    done = deployed(altered(bundle, tmp_path / "equal", a_little), name)
    assert done.state == "deployed", done.reason
    shutil.rmtree(data)


def test_the_figures_are_those_of_the_paired_test(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    labels = bundle.dataset.labels("certify")
    rng = np.random.default_rng(5)
    before, after = (np.where(rng.random(len(labels)) < 0.8, labels, (labels + 1) % 3) for _ in range(2))
    outputs = {name: {"logits": np.eye(3, dtype=np.float32)[given]} for name, given in
               {"reference": before, "deployed": after}.items()}  # fmt: skip
    update: Update = judged(bundle, "old", outputs, Terms(0.1))
    expected = noninferiority(PairedCounts.from_predictions(before, after, labels), 0.1)
    assert (update.difference, update.ci_low) == (expected.difference, expected.ci_low)
    worse = (before == labels) & (after != labels)
    paths = [sample.path for sample, is_worse in zip(bundle.dataset.split("certify"), worse, strict=True) if is_worse]
    assert [regression.path for regression in update.regressions] == paths
    assert update.improvements == int(np.sum((before != labels) & (after == labels)))
