"""From export to devices: deployed, certified and timed behind a real sshd, and on an emulated Arm machine."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgetl as toolkit
from edgetl.base.extras import version
from edgetl.core.bundle import BENCH, CERTIFICATE, load_bundle
from edgetl.devices import Device, add_device
from edgetl.devices.connection import disconnect
from tests.devices.conftest import HOST_TARGET
from tests.devices.real_sshd import Sshd

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def for_arm(tiny_run: Path) -> Path:
    """The tiny run in float for any Arm machine."""
    out = tiny_run.parent / "arm"
    toolkit.export(tiny_run, targets=["arm64-generic"], out=out, precision="fp32", bench=False, repair=False)
    return out / "arm64-generic"


@pytest.fixture(scope="module")
def for_here(request: pytest.FixtureRequest) -> Path:
    """The same for this machine."""
    name = "for_arm" if HOST_TARGET == "arm64-generic" else "tiny_bundle"
    bundle: Path = request.getfixturevalue(name)
    return bundle


def certified(bundle: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((bundle / CERTIFICATE).read_text())
    return record


def test_a_board_behind_ssh(for_here: Path, own_home: Path, sshd: Sshd, edgetl: Cli, tmp_path: Path) -> None:
    disconnect()
    for name in (".cache", ".local"):
        shutil.rmtree(sshd.home / name, ignore_errors=True)
    bundle = shutil.copytree(for_here, tmp_path / "bundle")
    (bundle / BENCH).unlink(missing_ok=True)
    add_device("board", sshd.url(sshd.client("good")))
    at = ("--device", "board", "--quiet", "--json")

    deployed = edgetl("deploy", bundle, *at, EDGETL_HOME=str(own_home))
    assert deployed.returncode == 0, deployed.stderr
    current = sshd.home / f".local/share/edgetl/{HOST_TARGET}/current"
    assert load_bundle(current).digest == load_bundle(bundle).digest

    samples = load_bundle(for_here).dataset.root
    verified = edgetl("verify", bundle, *at, "--data", samples, EDGETL_HOME=str(own_home))
    assert verified.returncode in (0, 4), verified.stderr
    certificate = certified(bundle)
    assert certificate["executed"] == "device"
    assert certificate["isa"].replace("-", "_") == certificate["executed_on"]["arch"] == platform.machine()
    assert certificate["executed_on"]["device"] == "board"
    assert certificate["runtime"] == f"onnxruntime {version('onnxruntime')} CPUExecutionProvider"
    assert [rung["name"] for rung in certificate["ladder"]][-2:] == ["host runtime", "deployed"]
    assert certificate["ladder"][-1]["agreement"] == 1.0

    timed = edgetl("bench", bundle, *at, "--duration", "0", EDGETL_HOME=str(own_home))
    assert timed.returncode == 0, timed.stderr
    record = load_bundle(bundle).record(BENCH)
    assert record is not None
    assert (record["executed"], record["precision_executed"]) == ("device", "fp32")
    assert record["p50_ms"] > 0


def test_an_emulated_arm_machine(for_arm: Path, emulated: Device, edgetl: Cli, tmp_path: Path) -> None:
    bundle = shutil.copytree(for_arm, tmp_path / "bundle")
    here = {"EDGETL_HOME": str(Path(emulated.where).parents[2])}
    data = Path(emulated.where).parent / "data"
    shutil.rmtree(data, ignore_errors=True)
    at = ("--device", emulated.name, "--quiet", "--json")

    deployed = edgetl("deploy", bundle, *at, **here)
    assert deployed.returncode == 0, deployed.stderr
    assert load_bundle(data / "edgetl/arm64-generic/current").digest == load_bundle(bundle).digest
    shutil.rmtree(data)

    verified = edgetl("verify", bundle, *at, "--data", load_bundle(for_arm).dataset.root, **here)
    assert verified.returncode in (0, 4), verified.stderr
    certificate = certified(bundle)
    assert (certificate["executed"], certificate["isa"]) == ("simulated", "aarch64")
    assert certificate["executed_on"]["arch"] == "aarch64"
    assert certificate["executed_on"]["device"] == emulated.name
    assert certificate["runtime"].startswith("onnxruntime ")
    assert certificate["runtime"].endswith(" CPUExecutionProvider")
    last = certificate["ladder"][-1]
    assert (last["name"], last["agreement"]) == ("deployed", 1.0)

    timed = edgetl("bench", bundle, *at, **here)
    assert timed.returncode == 2
    assert "emulated time is not device time" in timed.stderr or "simulated time is not device time" in timed.stderr
    assert load_bundle(bundle).record(BENCH) is None
