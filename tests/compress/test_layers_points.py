from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from edgetl.base.errors import CompressionError
from edgetl.compress.export import export_onnx
from edgetl.compress.graph import load
from edgetl.compress.layers.points import Grid, Point, read_points
from edgetl.compress.quantize import quantize
from edgetl.compress.recipes import load_recipe, with_changes
from edgetl.inputs.image import Preprocess
from tests.compress.images import pictures
from tests.compress.models import PREPROCESS

RECIPES = ["ort-x86-int8", "ort-aarch64-int8", "tensorrt-int8", "openvino-int8"]
SAMPLES = [{"image": image[None]} for image in pictures(12, seed=1)]


def recipe_of(name: str, **changes: Any) -> Any:
    if name == "openvino-int8":
        pytest.importorskip("nncf", reason="nncf is not installed: OpenVINO models cannot be quantized")
    return with_changes(load_recipe(name), **changes)


@pytest.fixture(scope="module", params=RECIPES)
def points(request: pytest.FixtureRequest, small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = quantize(small_onnx, recipe_of(request.param), SAMPLES, tmp_path_factory.mktemp("points"))
    return read_points(made.path, small_onnx)


def weights_of(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    model = load(path)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {node.name: tensors[node.input[1]] for node in model.graph.node if node.op_type in ("Conv", "Gemm")}


def test_one_point_for_each_weighted_layer_in_order(points: tuple[Point, ...], small_onnx: Path) -> None:
    assert [point.node for point in points] == list(weights_of(small_onnx))
    assert [point.module for point in points][:2] == ["body.0", "body.3.layers.0"]
    assert points[-1].operator == "Gemm"


def test_weights_are_the_exported_ones_rounded_by_half_a_step_at_most(
    points: tuple[Point, ...], small_onnx: Path
) -> None:
    exact = weights_of(small_onnx)
    for point in points:
        own = exact[point.node]
        assert point.weight is not None
        assert point.weight.dtype == np.float32
        assert point.weight.shape == own.shape
        # 127 steps from 0 to the largest weight of an output channel.
        channels = own.reshape(len(own), -1)
        step = np.abs(channels).max(axis=1, keepdims=True) / 127
        # NNCF takes half the range for the first layer, whose 16-bit sums could overflow without VNNI.
        widest = 1.02 if point is points[0] else 0.51
        assert np.all(np.abs(point.weight.reshape(channels.shape) - channels) <= widest * step)
        assert point.per_channel is True
        assert not np.array_equal(point.weight, own)


def test_activations_have_grids_that_hold_what_calibration_saw(points: tuple[Point, ...]) -> None:
    by_name = {point.node: point for point in points}
    for point in points:
        assert point.grid is not None
        assert point.grid.levels in (255, 256)
        assert point.grid.low <= 0 < point.grid.high
    behind_relu6 = by_name["body.3.layers.3/Conv"].grid
    assert behind_relu6 is not None
    assert behind_relu6.high <= 6.05
    image = by_name["body.0/Conv"].grid
    assert image is not None
    # (x / 255 - mean) / std of the brightest and the darkest pixel; symmetric grids reach as far below as above.
    assert -2.9 < image.low < -1.5
    assert 2.0 < image.high <= 2.85


def test_multiply_accumulates_by_hand(points: tuple[Point, ...]) -> None:
    macs = {point.node: point.macs for point in points}
    assert macs["body.0/Conv"] == 16 * 16 * 16 * 3 * 3 * 3
    assert macs["body.3.layers.3/Conv"] == 16 * 16 * 64 * 3 * 3
    assert macs["body.4.layers.6/Conv"] == 8 * 8 * 24 * 64
    assert macs["head/Gemm"] == 24 * 7


def test_producers_are_the_nearest_layers_upstream(points: tuple[Point, ...]) -> None:
    producers = {point.node: point.producer for point in points}
    assert producers["body.0/Conv"] == ""
    assert producers["body.3.layers.3/Conv"] == "body.3.layers.0/Conv"
    # Behind an Add: the convolution that writes into it, not the one before the residual connection.
    assert producers["body.4.layers.0/Conv"] == "body.3.layers.6/Conv"
    assert producers["head/Gemm"] == "body.5.layers.6/Conv"


def test_one_scale_for_a_whole_tensor_is_recognised(small_onnx: Path, tmp_path: Path) -> None:
    made = quantize(small_onnx, recipe_of("ort-x86-int8", per_channel=False), SAMPLES, tmp_path)
    assert {point.per_channel for point in read_points(made.path, small_onnx)} == {False}


def test_layers_left_in_float_have_no_weights(small_onnx: Path, tmp_path: Path) -> None:
    recipe = recipe_of("ort-x86-int8", exclude_nodes=("body.5.layers.0/Conv",))
    made = quantize(small_onnx, recipe, SAMPLES, tmp_path)
    floating = [point for point in read_points(made.path, small_onnx) if point.weight is None]
    assert [point.node for point in floating] == ["body.5.layers.0/Conv"]
    assert floating[0].per_channel is None
    # What it reads is quantized all the same: the convolution before it writes it so.
    assert floating[0].grid is not None


def test_a_float_model_has_points_without_weights_or_grids(small_onnx: Path) -> None:
    assert {(p.weight is None, p.grid is None) for p in read_points(small_onnx, small_onnx)} == {(True, True)}


def test_a_model_made_from_another_graph_is_refused(small_onnx: Path, tmp_path: Path) -> None:
    other = load(small_onnx)
    for node in other.graph.node:
        if node.op_type == "Gemm":
            node.op_type = "MatMul"
            del node.attribute[:], node.input[2:]
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(CompressionError, match="has no layer head/Gemm"):
        read_points(tmp_path / "other.onnx", small_onnx)


def test_an_engine_tells_nothing(small_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="tells nothing of its layers"):
        read_points(tmp_path / "model.engine", small_onnx)


class Prepared(torch.nn.Module):
    def __init__(self, backbone: torch.nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.backbone((image.to(torch.float32).permute(0, 3, 1, 2) - 120.0) / 60.0)


@pytest.mark.parametrize("name", ["ort-x86-int8", "openvino-int8"])
def test_gates_and_inlined_activations_of_mobilenet(name: str, tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v3_small(num_classes=5)
    definition = Preprocess(32, 32, 32, "bilinear", PREPROCESS.mean, PREPROCESS.std)
    exported = export_onnx(Prepared(network).eval(), definition, tmp_path / "model.onnx")
    made = quantize(exported, recipe_of(name), SAMPLES[:2], tmp_path)
    found = {point.node: point for point in read_points(made.path, exported)}
    exact = weights_of(exported)
    assert list(found) == list(exact)
    for node, point in found.items():
        assert point.weight is not None
        assert point.grid is not None
        assert np.corrcoef(point.weight.ravel(), exact[node].ravel())[0, 1] > 0.999
    # The squeeze-and-excitation gate scales the depthwise layer's output: that layer is the producer, not the gate.
    projection = found["backbone.features.1.block.2.0/Conv"]
    assert projection.producer == "backbone.features.1.block.0.0/Conv"


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.float32, (2, 3), elements=st.floats(-20, 20, width=32)),
    st.floats(0.001, 0.5),
    st.integers(-128, 127),
    st.booleans(),
)
def test_grids_round_as_quantize_linear_does(x: Any, scale: float, zero: int, unsigned: bool) -> None:
    kind, shift = (np.uint8, 128) if unsigned else (np.int8, 0)
    point = np.array(zero + shift, kind)
    step = np.float32(scale)
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        "pair",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [numpy_helper.from_array(np.array(step), "s"), numpy_helper.from_array(point, "z")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    expected = onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})[0]
    ends = np.iinfo(kind)
    grid = Grid(
        float(ends.min - point.astype(int)) * float(step), float(ends.max - point.astype(int)) * float(step), 256
    )
    found = grid.apply(x)
    # Exactly between two steps, the last digit of the quotient decides.
    halves = np.abs(np.abs(x / step) % 1 - 0.5) < 1e-3
    assert np.allclose(found[~halves], expected[~halves], atol=1e-3 * scale)
    assert np.all(np.abs(found - expected) <= 1.001 * scale)


def test_grids_of_single_channels() -> None:
    grid = Grid(-2.0, 6.0, 256, ((0.0, 1.0), (-2.0, 6.0), (0.0, 0.0)))
    x = np.full((1, 3, 2), 0.7512, np.float32)
    found = grid.apply(x)[0, :, 0]
    assert found[0] == pytest.approx(round(0.7512 * 255) / 255)
    assert found[1] == pytest.approx(-2 + round(2.7512 / 8 * 255) / 255 * 8, abs=1e-6)
    assert found[2] == 0


def test_depthwise_weights_that_are_rounded_as_an_ir_is_loaded_are_read(small_onnx: Path, tmp_path: Path) -> None:
    """As NNCF and ``openvino.save_model`` write them by default: numbers behind a FakeQuantize."""
    pytest.importorskip("nncf", reason="nncf is not installed: OpenVINO models cannot be quantized")
    from tests.adoption.compressors import by_nncf

    file = by_nncf(small_onnx, tmp_path / "theirs.xml", SAMPLES)
    assert 'type="GroupConvolution"' in file.read_text()
    before = weights_of(small_onnx)
    for point in read_points(file, small_onnx):
        assert point.weight is not None
        step = 2 * np.abs(before[point.node]).max() / 254
        assert 0 < np.abs(point.weight - before[point.node]).max() < 1.01 * step
        # An 8-bit grid for each channel, or for all.
        assert max(len(np.unique(row)) for row in point.weight.reshape(len(point.weight), -1)) <= 256
