"""The runner is compiled once a session, for this machine and for an emulated Arm one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from edgetl.base.extras import available
from tests.runner.built import Runner, build_folder, compiled, need, need_headers, packages


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes of this session."""
    base = tmp_path_factory.getbasetemp()
    return build_folder(base.parent if base.name.startswith("popen-") else base)


@pytest.fixture(scope="session")
def header(shared: Path) -> tuple[str, ...]:
    """CMake's option that leads to ONNX Runtime's header; none where the system has it, or nobody does."""
    found = packages("header", shared.parent / "header")
    return () if found is None else (f"-DONNXRUNTIME_INCLUDE_DIR={found}/usr/include/onnxruntime",)


@pytest.fixture(scope="session")
def runner(shared: Path, header: tuple[str, ...]) -> Runner:
    """The runner for this machine."""
    need("cmake", "cc", "c++", "dpkg-deb")
    need_headers("jpeglib.h", "png.h", "openssl/evp.h", "nlohmann/json.hpp")
    folder = compiled(shared / "host", header)
    with_ort = "EDGETL_ONNXRUNTIME" in _defined(folder)
    return Runner(folder, (str(folder / "edgetl-run"),), with_ort)


def _defined(folder: Path) -> str:
    files = [*folder.rglob("flags.make"), folder / "build.ninja"]
    return "".join(file.read_text() for file in files if file.is_file())


@pytest.fixture(scope="session")
def ort_library() -> Path:
    """ONNX Runtime's shared library, of the installed wheel."""
    spec = importlib.util.find_spec("onnxruntime") if available("onnxruntime") else None
    found = sorted(Path(str(spec.origin)).parent.glob("capi/libonnxruntime.so.*")) if spec else []
    if not found:
        pytest.skip("the installed ONNX Runtime brings no shared library of its own")
    return found[0]


@pytest.fixture(scope="session")
def ort(runner: Runner, ort_library: Path) -> Runner:
    """The runner with ONNX Runtime, on one thread."""
    if not runner.with_ort:
        pytest.skip("onnxruntime_c_api.h was not found, and apt does not offer libonnxruntime-dev here")
    options = ("--library", str(ort_library), "--threads", "1")
    return Runner(runner.folder, (*runner.start, *options), runner.with_ort)
