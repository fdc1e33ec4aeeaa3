"""The runner cross-compiled and under qemu: the same pixels as here, and the answers of ONNX Runtime's Arm kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgetl.base.storage import write_sealed
from edgetl.devices.base import DeviceProbe
from edgetl.devices.c_runner import predict_in_c
from edgetl.devices.emulated import EmulatedDevice
from edgetl.devices.placement import Placement
from edgetl.devices.rootfs import MARKER
from tests.runner import ugly
from tests.runner.built import Runner
from tests.runner.conftest import CPU
from tests.runner.test_answers import LABELS, colour_bundle
from tests.runner.test_pixels import definition, pixel_bundle, written


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
def test_the_same_pixels(arm: Runner, runner: Runner, tmp_path: Path, interpolation: str) -> None:
    preprocess = definition(interpolation=interpolation, mode="shorter" if interpolation != "lanczos" else "letterbox")
    paths = written(tmp_path / "pictures", (*ugly.jpegs(), *ugly.pngs(), *ugly.damaged()))
    bundle = pixel_bundle(tmp_path / "bundle", preprocess).path
    found = arm.pixels(bundle, paths)
    assert found == runner.pixels(bundle, paths)
    assert len(set(filter(None, found))) > 50


def test_the_same_answers(arm_ort: Runner, ort: Runner, tmp_path: Path) -> None:
    bundle = colour_bundle(tmp_path / "bundle", "classification", {"logits": 4}, LABELS).path
    paths = written(tmp_path / "pictures", list(ugly.jpegs())[:20])
    pairs = zip(*(one.lines("--outputs", bundle, paths=paths) for one in (arm_ort, ort)), strict=True)
    for there, here in pairs:
        assert there["answer"]["labels"][0]["label"] == here["answer"]["labels"][0]["label"]
        assert np.allclose(there["outputs"]["logits"], here["outputs"]["logits"], rtol=1e-5, atol=1e-5)
    done = arm_ort.run("--self-test", bundle)
    assert done.returncode == 0, done.stderr


def test_python_asks_it_on_an_emulated_machine(arm_ort: Runner, ort: Runner, tmp_path: Path) -> None:
    root = arm_ort.folder / "root"
    write_sealed(root / MARKER, {"schema": 1, "arch": "aarch64", "cpu": CPU, "python": "none", "packages": {}})
    bundle = colour_bundle(tmp_path / "bundle", "classification", {"logits": 4}, LABELS)
    paths = written(tmp_path / "pictures", list(ugly.jpegs())[:5])
    device = EmulatedDevice("pi", root)
    at = Placement(device, device.executed, DeviceProbe(reachable=True))
    found = predict_in_c(at, bundle, paths, arm_ort.folder / "edgetl-run")
    wanted = [line["outputs"]["logits"] for line in ort.lines("--outputs", bundle.path, paths=paths)]
    assert np.allclose(found["logits"], wanted, rtol=1e-5, atol=1e-5)
