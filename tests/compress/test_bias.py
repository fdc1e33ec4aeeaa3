from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.base.errors import CompressionError
from edgetl.compress import bias
from edgetl.compress.graph import load, save
from edgetl.compress.quantize import QuantizedModel, quantize
from edgetl.compress.recipes import Recipe, load_recipe, with_changes
from tests.compress.images import pictures

IMAGES = pictures(24, seed=1)
#: One scale for the weights of all channels errs more on average: something to correct.
COARSE = with_changes(load_recipe("ort-x86-int8"), per_channel=False)


def made(model: Path, recipe: Recipe, method: str, out: Path) -> QuantizedModel:
    samples = ({"image": image[None]} for image in IMAGES)
    return quantize(model, with_changes(recipe, bias_correction=method), samples, out / method)


def means(model: Any, tensors: list[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Mean of each channel over :data:`IMAGES`, in unfused arithmetic."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    del exposed.graph.output[:]
    exposed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = session.run(tensors, {"image": IMAGES})
    return {n: v.mean(axis=(0, *range(2, v.ndim)), dtype=np.float64) for n, v in zip(tensors, values, strict=True)}


def drift(floating: Path, quantized: Path) -> dict[str, npt.NDArray[np.float64]]:
    """How far quantization moved the mean of each channel of each layer, before the activation."""
    before, after = load(floating), load(quantized)
    layers = {node.name: node.output[0] for node in before.graph.node if node.op_type in ("Conv", "Gemm")}
    theirs = {node.name: node.output[0] for node in after.graph.node if node.name in layers}
    expected = means(before, list(layers.values()))
    found = means(after, list(theirs.values()))
    return {name: found[theirs[name]] - expected[layers[name]] for name in layers}


def spread(errors: dict[str, npt.NDArray[np.float64]]) -> float:
    return float(np.mean([np.abs(error).mean() for error in errors.values()]))


@pytest.mark.parametrize("name", ["ort-x86-int8", "tensorrt-int8"])
def test_full_correction_leaves_no_drift_anywhere(name: str, small_onnx: Path, tmp_path: Path) -> None:
    recipe = with_changes(load_recipe(name), per_channel=False)
    before = drift(small_onnx, made(small_onnx, recipe, "none", tmp_path).path)
    result = made(small_onnx, recipe, "full", tmp_path)
    after = drift(small_onnx, result.path)
    assert result.record.bias_correction["layers"] == list(after)
    assert result.record.bias_correction["skipped"] == []
    assert spread(before) > 5e-3
    # Activations are rounded to 256 steps after each correction, so that the means move by less than one of them.
    assert spread(after) < 0.02 * spread(before)
    assert np.abs(after["head/Gemm"]).max() < 0.02 * np.abs(before["head/Gemm"]).max()


def test_fast_correction_takes_off_what_each_layer_adds(small_onnx: Path, tmp_path: Path) -> None:
    before = drift(small_onnx, made(small_onnx, COARSE, "none", tmp_path).path)
    after = drift(small_onnx, made(small_onnx, COARSE, "fast", tmp_path).path)
    # The first layer reads the same in both models, so nothing but its own error was there to correct.
    assert np.abs(after["body.0/Conv"]).max() < 1e-3
    assert np.abs(after["body.0/Conv"]).max() < 0.1 * np.abs(before["body.0/Conv"]).max()
    assert spread(after) < 0.7 * spread(before)


def test_biases_stay_integers_in_their_steps(small_onnx: Path, tmp_path: Path) -> None:
    plain = {t.name: t for t in load(made(small_onnx, COARSE, "none", tmp_path).path).graph.initializer}
    moved = {t.name: t for t in load(made(small_onnx, COARSE, "fast", tmp_path).path).graph.initializer}
    assert plain.keys() == moved.keys()
    different = [name for name in plain if plain[name].SerializeToString() != moved[name].SerializeToString()]
    assert len(different) == 11
    assert {moved[name].data_type for name in different} == {TensorProto.INT32}


def test_none_changes_nothing(small_onnx: Path, tmp_path: Path) -> None:
    result = made(small_onnx, COARSE, "none", tmp_path)
    model = load(result.path)
    untouched = model.SerializeToString(deterministic=True)
    record = bias.correct(model, small_onnx, [{"image": IMAGES[:1]}], "none")
    assert model.SerializeToString(deterministic=True) == untouched
    assert record == result.record.bias_correction == {"method": "none", "samples": 0, "layers": [], "skipped": []}


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A convolution without a bias, pooling, and a MatMul."""
    draw = np.random.default_rng(0)
    kernel, matrix = draw.normal(size=(8, 3, 3, 3)), draw.normal(size=(8, 7))
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], "transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["conv"], "bare/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"], "relu"),
        helper.make_node("ReduceMean", ["relu", "axes"], ["mean"], "mean", keepdims=0),
        helper.make_node("MatMul", ["mean", "matrix"], ["logits"], "bare/MatMul"),
    ]
    constants = {"kernel": kernel.astype(np.float32), "matrix": matrix.astype(np.float32), "axes": np.array([2, 3])}
    graph = helper.make_graph(
        nodes,
        "bare",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 32, 32, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 7])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return save(onnx.shape_inference.infer_shapes(model), tmp_path / "bare.onnx")


@pytest.mark.parametrize("method", ["fast", "full"])
def test_layers_without_a_bias_get_one_where_they_can(method: str, bare: Path, tmp_path: Path) -> None:
    result = made(bare, COARSE, method, tmp_path)
    assert result.record.bias_correction == {
        "method": method, "samples": 24, "layers": ["bare/Conv"], "skipped": ["bare/MatMul"],
    }  # fmt: skip
    before, after = load(made(bare, COARSE, "none", tmp_path).path), load(result.path)
    outputs = [next(n.output[0] for n in model.graph.node if n.name == "bare/Conv") for model in (before, after)]
    expected = means(load(bare), ["conv"])["conv"]
    drifts = [np.abs(means(m, [o])[o] - expected).max() for m, o in zip((before, after), outputs, strict=True)]
    assert drifts[1] < 0.05 * drifts[0]


def test_layers_in_float_are_left_alone_by_the_fast_method(small_onnx: Path, tmp_path: Path) -> None:
    recipe = with_changes(COARSE, exclude_nodes=("body.0/Conv", "head/Gemm"))
    record = made(small_onnx, recipe, "fast", tmp_path).record.bias_correction
    assert record["skipped"] == ["body.0/Conv", "head/Gemm"]
    assert len(record["layers"]) == 9
    assert len(made(small_onnx, recipe, "full", tmp_path).record.bias_correction["layers"]) == 11


def test_unknown_method(small_onnx: Path) -> None:
    with pytest.raises(CompressionError, match="'slow': use one of none, fast, full"):
        bias.correct(load(small_onnx), small_onnx, [{"image": IMAGES[:1]}], "slow")


def test_models_that_do_not_belong_together(small_onnx: Path, bare: Path, tmp_path: Path) -> None:
    model = load(made(small_onnx, COARSE, "none", tmp_path).path)
    for method in ("fast", "full"):
        with pytest.raises(CompressionError, match=r"has no layer 'body\.0/Conv'"):
            bias.correct(model, bare, [{"image": IMAGES[:1]}], method)
