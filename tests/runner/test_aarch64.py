"""The runner cross-compiled and under qemu: the same pixels as here, and the answers of ONNX Runtime's Arm kernels."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgetl.base.extras import version
from edgetl.base.storage import write_sealed
from edgetl.devices.arm_kernel import write_kernel_files
from edgetl.devices.base import DeviceProbe
from edgetl.devices.c_runner import predict_in_c
from edgetl.devices.emulated import EmulatedDevice
from edgetl.devices.placement import Placement
from edgetl.devices.rootfs import MARKER
from tests.runner import ugly
from tests.runner.built import Runner, compiled, need, packages
from tests.runner.test_answers import LABELS, colour_bundle
from tests.runner.test_pixels import definition, pixel_bundle, written

_CROSS = Path("/usr/aarch64-linux-gnu/lib")
_CPU = "cortex-a76"


@pytest.fixture(scope="module")
def arm(shared: Path, header: tuple[str, ...]) -> Runner:
    """The runner for aarch64, with what an Arm machine's kernel says."""
    if platform.machine() == "aarch64":
        pytest.skip("this machine is one already")
    need("cmake", "aarch64-linux-gnu-g++", "qemu-aarch64-static", "dpkg-deb")
    libraries = packages("arm64", shared / "arm64")
    if libraries is None:
        pytest.skip("apt offers no arm64 packages of libjpeg, libpng and libcrypto here")
    toolchain = Path(__file__).parents[2] / "runner/cmake/aarch64.cmake"
    cross = (f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", f"-DEDGETL_SYSROOT={libraries}", "-DEDGETL_STATIC_DEPENDENCIES=ON")
    folder = compiled(shared / "arm64-build", (*cross, *header))
    root = folder / "root"
    root.mkdir(exist_ok=True)
    if not (root / "lib").exists():
        (root / "lib").symlink_to(_CROSS)
        write_kernel_files(root, _CPU)
    start = ("qemu-aarch64-static", "-cpu", _CPU, "-L", str(root), "-E", f"LD_LIBRARY_PATH={_CROSS}")
    return Runner(folder, (*start, str(folder / "edgetl-run")))


@pytest.fixture(scope="module")
def arm_ort(arm: Runner, shared: Path) -> Runner:
    """With ONNX Runtime's aarch64 library, of the wheel of the version that is installed here."""
    if not arm.compiled_with("EDGETL_ONNXRUNTIME"):
        pytest.skip("onnxruntime_c_api.h was not found, and apt does not offer libonnxruntime-dev here")
    folder = arm.folder / "root/usr/local/lib/python3/dist-packages"
    if not list(folder.rglob("libonnxruntime.so.*")):
        tags = [argument for minor in (34, 28, 27) for argument in ("--platform", f"manylinux_2_{minor}_aarch64")]
        chosen = [*tags, "--only-binary=:all:", "--no-deps", "--target", str(folder), "--no-compile", "--quiet"]
        command = [sys.executable, "-m", "pip", "install", *chosen, f"onnxruntime=={version('onnxruntime')}"]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("pip offers no aarch64 wheel of ONNX Runtime here")
    (library,) = folder.rglob("libonnxruntime.so.*")
    return Runner(arm.folder, (*arm.start, "--library", str(library), "--threads", "1"))


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
    write_sealed(root / MARKER, {"schema": 1, "arch": "aarch64", "cpu": _CPU, "python": "none", "packages": {}})
    bundle = colour_bundle(tmp_path / "bundle", "classification", {"logits": 4}, LABELS)
    paths = written(tmp_path / "pictures", list(ugly.jpegs())[:5])
    device = EmulatedDevice("pi", root)
    at = Placement(device, device.executed, DeviceProbe(reachable=True))
    found = predict_in_c(at, bundle, paths, arm_ort.folder / "edgetl-run")
    wanted = [line["outputs"]["logits"] for line in ort.lines("--outputs", bundle.path, paths=paths)]
    assert np.allclose(found["logits"], wanted, rtol=1e-5, atol=1e-5)
