"""The runner is compiled once a session, for this machine and for an emulated Arm one."""

from __future__ import annotations

import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from edgetl.base.extras import available, version
from edgetl.devices.arm_kernel import write_kernel_files
from tests.runner.built import Runner, compiled, need, need_headers, packages

_CROSS = Path("/usr/aarch64-linux-gnu/lib")
#: Of the emulated machine.
CPU = "cortex-a76"


@pytest.fixture(scope="session")
def shared(of_all_processes: Path) -> Path:
    """Where the runner is built; ``EDGETL_TEST_RUNNER`` names a folder that stays for the next session."""
    return Path(os.environ.get("EDGETL_TEST_RUNNER") or of_all_processes / "runner")


@pytest.fixture(scope="session")
def header(shared: Path) -> tuple[str, ...]:
    """CMake's options that lead to the headers of runtimes, those that this machine has or apt offers."""
    found = packages("header", shared / "header")
    options = () if found is None else (f"-DONNXRUNTIME_INCLUDE_DIR={found}/usr/include/onnxruntime",)
    wheel = importlib.util.find_spec("openvino") if available("openvino") else None
    if wheel is not None:
        options = (*options, f"-DOPENVINO_INCLUDE_DIR={Path(str(wheel.origin)).parent / 'include'}")
    return options


@pytest.fixture(scope="session")
def runner(shared: Path, header: tuple[str, ...]) -> Runner:
    """The runner for this machine."""
    need("cmake", "cc", "c++", "dpkg-deb")
    need_headers("jpeglib.h", "png.h", "openssl/evp.h", "nlohmann/json.hpp")
    folder = compiled(shared / "host", header)
    return Runner(folder, (str(folder / "edgetl-run"),))


@pytest.fixture(scope="session")
def ort_library() -> Path:
    """ONNX Runtime's shared library, of the installed wheel."""
    spec = importlib.util.find_spec("onnxruntime") if available("onnxruntime") else None
    found = sorted(Path(str(spec.origin)).parent.glob("capi/libonnxruntime.so.*")) if spec else []
    if not found:
        pytest.skip("the installed ONNX Runtime brings no shared library of its own")
    return found[0]


@pytest.fixture(scope="session")
def openvino(runner: Runner) -> Runner:
    """The runner with OpenVINO, on one thread."""
    wheel = importlib.util.find_spec("openvino") if available("openvino") else None
    found = sorted(Path(str(wheel.origin)).parent.glob("libs/libopenvino_c.so.*")) if wheel else []
    if not found or not runner.compiled_with("EDGETL_OPENVINO"):
        pytest.skip("openvino (edgetl[openvino]) brings the headers and the library")
    return Runner(runner.folder, (*runner.start, "--library", str(found[0]), "--threads", "1"))


@pytest.fixture(scope="session")
def litert(runner: Runner) -> Runner:
    """The runner with LiteRT, on one thread."""
    wheel = importlib.util.find_spec("ai_edge_litert") if available("ai_edge_litert") else None
    library = Path(str(wheel.origin)).parent / "libLiteRt.so" if wheel else Path()
    if not library.is_file() or not str(version("ai_edge_litert")).startswith("2.3."):
        pytest.skip("ai-edge-litert 2.3 (edgetl[litert]) brings the library whose functions the runner knows")
    return Runner(runner.folder, (*runner.start, "--library", str(library), "--threads", "1"))


@pytest.fixture(scope="session")
def ort(runner: Runner, ort_library: Path) -> Runner:
    """The runner with ONNX Runtime, on one thread."""
    if not runner.compiled_with("EDGETL_ONNXRUNTIME"):
        pytest.skip("onnxruntime_c_api.h was not found, and apt does not offer libonnxruntime-dev here")
    return Runner(runner.folder, (*runner.start, "--library", str(ort_library), "--threads", "1"))


@pytest.fixture(scope="session")
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
        write_kernel_files(root, CPU)
    start = ("qemu-aarch64-static", "-cpu", CPU, "-L", str(root), "-E", f"LD_LIBRARY_PATH={_CROSS}")
    return Runner(folder, (*start, str(folder / "edgetl-run")))


@pytest.fixture(scope="session")
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
