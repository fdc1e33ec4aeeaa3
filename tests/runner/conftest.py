"""The runner is compiled once a session, for this machine and for an emulated Arm one."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from edgetl.base.extras import available, version
from tests.runner.built import Runner, compiled, need, need_headers, packages


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes of this session; ``EDGETL_TEST_RUNNER`` names one that stays for the next."""
    if kept := os.environ.get("EDGETL_TEST_RUNNER"):
        return Path(kept)
    base = tmp_path_factory.getbasetemp()
    return (base.parent if base.name.startswith("popen-") else base) / "runner"


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
