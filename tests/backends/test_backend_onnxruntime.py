from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgetl.backends import BACKENDS
from edgetl.base.errors import BackendError
from edgetl.compress.quantize import to_float
from edgetl.core.targets import find_target
from tests.backends.contract import BackendContract


class TestOnnxRuntimeOnX86(BackendContract):
    name = "onnxruntime"
    target_name = "x86-generic"
    recipe = "ort-x86-int8"
    files = frozenset({"model.onnx"})


def test_fp16_is_refused_with_the_reason(small_onnx: Path, tmp_path: Path) -> None:
    backend, target = BACKENDS["onnxruntime"], find_target("x86-generic")
    assert "no fp16 convolutions" in (backend.refuses(target, "fp16") or "")
    half = to_float(small_onnx, "tensorrt", "fp16", tmp_path).path
    with pytest.raises(BackendError, match=r"no fp16 convolutions worth using.*: use fp32 or int8"):
        backend.compile(half, target, tmp_path / "out")


def test_the_arm_artifact_is_made_and_checked_on_any_machine(small_int8: Callable[[str], Path], tmp_path: Path) -> None:
    artifact = BACKENDS["onnxruntime"].compile(small_int8("ort-aarch64-int8"), find_target("rpi5"), tmp_path)
    assert artifact.path.read_bytes() == small_int8("ort-aarch64-int8").read_bytes()
