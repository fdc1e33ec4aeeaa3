"""An IR's integer kernels against its own arithmetic in float."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.base.errors import CompressionError
from edgetl.compress.layers.taps_ir import _Tapped, compare_ir
from edgetl.compress.layers.topology import read_topology
from edgetl.compress.quantize import quantize
from edgetl.compress.recipes import load_recipe
from edgetl.core.bundle import Artifact
from edgetl.runtime.machine import machine, saturates
from edgetl.runtime.sessions import open_session
from tests.compress.images import pictures

pytest.importorskip("openvino", reason="openvino is not installed")
pytest.importorskip("nncf", reason="nncf is not installed")
IMAGES = [{"image": image[None]} for image in pictures(4, seed=3)]


@pytest.fixture(scope="module")
def quantized(small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = [{"image": image[None]} for image in pictures(12, seed=1)]
    return quantize(small_onnx, load_recipe("openvino-int8"), samples, tmp_path_factory.mktemp("ir")).path


@pytest.mark.skipif(
    saturates(machine()), reason="this CPU has no VNNI: products of OpenVINO's int8 layers saturate in 16 bits"
)
def test_integer_kernels_follow_the_file(quantized: Path, small_onnx: Path) -> None:
    found = compare_ir(quantized, small_onnx, IMAGES)
    assert [t.sqnr_db for t in found] == sorted(t.sqnr_db for t in found)
    assert {t.module for t in found} >= {"body.0", "head"}
    assert all(t.sqnr_db > 20 for t in found)
    in_order = sorted(found, key=lambda t: t.order)
    assert in_order[0].module == "body.0"
    assert in_order[-1].module == "head"


def test_taps_leave_the_integer_kernels_alone(quantized: Path, small_onnx: Path) -> None:
    """The runtime model has as many integer layers with the taps as without."""
    tapped = _Tapped(quantized, read_topology(small_onnx), simulated=False).compiled
    kinds = [
        str(node.get_rt_info()["runtimePrecision"].astype(str))
        for node in tapped.get_runtime_model().get_ops()
        if str(node.get_rt_info()["layerType"].astype(str)) == "Convolution"
    ]
    session = open_session(Artifact("openvino", quantized, "int8", "CPU"))
    assert session.executed().integer_macs == 1.0
    assert kinds
    assert set(kinds) <= {"u8", "i8"}


def test_a_file_without_integers_is_refused(small_onnx: Path, tmp_path: Path) -> None:
    from edgetl.compress.quantize import to_float

    path = to_float(small_onnx, "openvino", "fp32", tmp_path).path
    with pytest.raises(CompressionError, match="quantizes no layer"):
        compare_ir(path, small_onnx, IMAGES)
