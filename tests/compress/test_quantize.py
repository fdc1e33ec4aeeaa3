from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edgetl.compress.export import export_onnx, run_onnx
from edgetl.compress.graph import before_weights, load
from edgetl.compress.quantize import QuantizedModel, quantize, to_float
from edgetl.compress.recipes import load_recipe, with_changes
from edgetl.errors import CompressionError
from edgetl.storage import sha256_file
from tests.compress.images import pictures
from tests.compress.models import PREPROCESS, small_model

ONNX_RECIPES = ["ort-x86-int8", "ort-aarch64-int8", "tensorrt-int8"]
ALL_RECIPES = [*ONNX_RECIPES, "openvino-int8"]


def samples(count: int = 24) -> Iterator[npt.NDArray[np.uint8]]:
    return (image[None] for image in pictures(count, seed=1))


@pytest.fixture(scope="module", params=ONNX_RECIPES)
def quantized(request: pytest.FixtureRequest, small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return quantize(small_onnx, load_recipe(request.param), samples(), tmp_path_factory.mktemp("quantized"))


def producers(model: Any) -> dict[str, Any]:
    return {name: node for node in model.graph.node for name in node.output}


def test_logits_follow_the_float_model(quantized: QuantizedModel, small_onnx: Path) -> None:
    images = pictures(40, seed=2)
    expected, found = run_onnx(small_onnx, images), run_onnx(quantized.path, images)
    assert np.abs(found - expected).max() < 0.12 * np.ptp(expected)
    # Sixty-four levels of difference or more: the logits themselves are not rounded to 256 steps.
    assert len(np.unique(found)) > 256


def test_every_weighted_operator_reads_quantized_values(quantized: QuantizedModel) -> None:
    model = load(quantized.path)
    made_by = producers(model)
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            assert [made_by[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2, node.name


def test_preprocessing_stays_in_float(quantized: QuantizedModel, small_onnx: Path) -> None:
    model = load(quantized.path)
    preprocessing = before_weights(load(small_onnx))
    assert len(preprocessing) == 4
    assert set(preprocessing) <= set(quantized.record["left_in_float"])
    made_by = producers(model)
    for node in model.graph.node:
        if node.name in preprocessing:
            kinds = {made_by[name].op_type for name in node.input if name in made_by}
            assert not kinds & {"QuantizeLinear", "DequantizeLinear"}


def test_weights_have_a_scale_for_each_channel(quantized: QuantizedModel) -> None:
    model = load(quantized.path)
    made_by = producers(model)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv":
            dequantize = made_by[node.input[1]]
            weight, scale = (numpy_helper.to_array(tensors[name]) for name in dequantize.input[:2])
            assert weight.dtype == np.int8
            assert scale.shape == (weight.shape[0],)


def test_tensorrt_recipe_is_signed_symmetric_with_float_biases(small_onnx: Path, tmp_path: Path) -> None:
    model = load(quantize(small_onnx, load_recipe("tensorrt-int8"), samples(), tmp_path).path)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero = tensors[node.input[2]]
        assert zero.data_type == TensorProto.INT8
        assert not numpy_helper.to_array(zero).any()
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            assert tensors[node.input[2]].data_type == TensorProto.FLOAT


def test_nothing_stands_between_convolution_and_activation_for_tensorrt(small_onnx: Path, tmp_path: Path) -> None:
    recipe = load_recipe("tensorrt-int8")
    merged = quantize(small_onnx, recipe, samples(), tmp_path / "merged")
    apart = quantize(small_onnx, with_changes(recipe, merge_activations=False), samples(), tmp_path / "apart")
    for made, before in ((merged, "Conv"), (apart, "DequantizeLinear")):
        model = load(made.path)
        made_by = producers(model)
        assert {made_by[n.input[0]].op_type for n in model.graph.node if n.op_type == "Clip"} == {before}
    assert merged.record["pairs_removed"]["before_activations"] == 7
    assert apart.record["pairs_removed"]["before_activations"] == 0


@pytest.mark.parametrize("name", ALL_RECIPES)
def test_every_process_quantizes_to_the_same_bytes_in_silence(name: str, small_onnx: Path, tmp_path: Path) -> None:
    if name == "openvino-int8":
        pytest.importorskip("nncf", reason="nncf is not installed: OpenVINO models cannot be quantized")
    script = (
        "import sys; from pathlib import Path\n"
        "from edgetl.compress.quantize import quantize\n"
        "from edgetl.compress.recipes import load_recipe\n"
        "from tests.compress.images import pictures\n"
        "images = [image[None] for image in pictures(8)]\n"
        "for name in sys.argv[3:]:\n"
        "    quantize(Path(sys.argv[1]), load_recipe(sys.argv[2]), images, Path(name))\n"
    )
    digests = []
    for seed, folders in (("1", ("a", "b")), ("2", ("c",))):
        done = subprocess.run(
            [sys.executable, "-c", script, str(small_onnx), name, *(str(tmp_path / folder) for folder in folders)],
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
        for folder in folders:
            digests.append({file.name: sha256_file(file) for file in (tmp_path / folder).iterdir()})
    assert digests[0] == digests[1] == digests[2]


def test_record_tells_how_it_was_made(quantized: QuantizedModel, small_onnx: Path) -> None:
    record = quantized.record
    assert record["precision"] == "int8"
    assert record["images"] == 24
    assert record["source_sha256"] == sha256_file(small_onnx)
    assert record["recipe"]["estimator"] == "min-max"
    assert record["engine"].startswith("onnxruntime ")


def test_excluded_nodes_and_operators_stay_in_float(small_onnx: Path, tmp_path: Path) -> None:
    recipe = load_recipe("ort-x86-int8")
    by_name = with_changes(recipe, exclude_nodes=("body.0/Conv",))
    model = load(quantize(small_onnx, by_name, samples(), tmp_path / "name").path)
    first = next(node for node in model.graph.node if node.name == "body.0/Conv")
    assert first.input[1] in {tensor.name for tensor in model.graph.initializer}
    by_kind = with_changes(recipe, exclude_operators=("Gemm",))
    model = load(quantize(small_onnx, by_kind, samples(), tmp_path / "kind").path)
    head = next(node for node in model.graph.node if node.op_type == "Gemm")
    assert head.input[1] in {tensor.name for tensor in model.graph.initializer}


def test_fixed_batch_models_are_calibrated_too(tmp_path: Path) -> None:
    path = export_onnx(small_model(), PREPROCESS, tmp_path / "four.onnx", batch=4)
    made = quantize(path, load_recipe("ort-x86-int8"), samples(10), tmp_path)
    images = pictures(8, seed=2)
    expected = run_onnx(path, images)
    assert np.abs(run_onnx(made.path, images) - expected).max() < 0.12 * np.ptp(expected)


def test_progress_counts_the_images(small_onnx: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    told = lambda task, done, total, detail="": seen.append((done, total))  # noqa: E731
    quantize(small_onnx, load_recipe("ort-x86-int8"), samples(5), tmp_path, told)
    assert seen == [(n, 5) for n in range(6)]


def test_no_images(small_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="no image to take the ranges from"):
        quantize(small_onnx, load_recipe("ort-x86-int8"), iter(()), tmp_path)


def test_images_of_another_size(small_onnx: Path, tmp_path: Path) -> None:
    wrong = [np.zeros((1, 16, 16, 3), np.uint8)]
    with pytest.raises(CompressionError, match="onnxruntime cannot quantize"):
        quantize(small_onnx, load_recipe("ort-x86-int8"), wrong, tmp_path)


def test_fp16_for_tensorrt_is_strongly_typed(small_onnx: Path, tmp_path: Path) -> None:
    made = to_float(small_onnx, "tensorrt", "fp16", tmp_path)
    model = onnx.shape_inference.infer_shapes(load(made.path), strict_mode=True)
    kinds = {value.type.tensor_type.elem_type for value in model.graph.value_info}
    assert TensorProto.FLOAT16 in kinds
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    weights = {t.data_type for t in model.graph.initializer if len(t.dims) > 1}
    assert weights == {TensorProto.FLOAT16}
    images = pictures(20)
    expected = run_onnx(small_onnx, images)
    assert np.abs(run_onnx(made.path, images) - expected).max() < 0.01 * np.ptp(expected)


def test_weights_beyond_float16_are_refused(small_onnx: Path, tmp_path: Path) -> None:
    model = load(small_onnx)
    weight = next(t for t in model.graph.initializer if t.name == "head.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e6), weight.name))
    onnx.save(model, tmp_path / "large.onnx")
    with pytest.raises(CompressionError, match=r"'head\.weight' exceed float16"):
        to_float(tmp_path / "large.onnx", "tensorrt", "fp16", tmp_path)


def test_fp32_passes_through(small_onnx: Path, tmp_path: Path) -> None:
    made = to_float(small_onnx, "onnxruntime", "fp32", tmp_path)
    assert made.path == small_onnx
    assert made.record["precision"] == "fp32"


def test_fp16_is_refused_where_it_makes_no_sense(small_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="onnxruntime does not take fp16"):
        to_float(small_onnx, "onnxruntime", "fp16", tmp_path)
