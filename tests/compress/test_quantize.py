from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from onnxruntime import quantization

from edgetl.backends.tensorrt_check import build_for
from edgetl.base.errors import CompressionError
from edgetl.base.schema import from_json, to_json
from edgetl.base.storage import sha256_file
from edgetl.compress import engine_nncf
from edgetl.compress.export import export_onnx
from edgetl.compress.graph import before_weights, load
from edgetl.compress.quantize import QuantizedModel, quantize, to_float
from edgetl.compress.recipes import load_recipe, with_changes
from edgetl.core.compression import Quantization
from edgetl.core.tensors import Arrays
from edgetl.runtime.machine import machine, saturates
from edgetl.runtime.ov import core
from tests.compress.images import pictures
from tests.compress.models import PREPROCESS, logits_of, small_model

ONNX_RECIPES = ["ort-x86-int8", "ort-aarch64-int8", "tensorrt-int8"]
ALL_RECIPES = [*ONNX_RECIPES, "openvino-int8"]


def samples(count: int = 24) -> Iterator[Arrays]:
    return ({"image": image[None]} for image in pictures(count, seed=1))


@pytest.fixture(scope="module", params=ONNX_RECIPES)
def quantized(request: pytest.FixtureRequest, small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return quantize(small_onnx, load_recipe(request.param), samples(), tmp_path_factory.mktemp("quantized"))


def producers(model: Any) -> dict[str, Any]:
    return {name: node for node in model.graph.node for name in node.output}


def test_logits_follow_the_float_model(quantized: QuantizedModel, small_onnx: Path) -> None:
    images = pictures(40, seed=2)
    expected, found = logits_of(small_onnx, images), logits_of(quantized.path, images)
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
    assert set(preprocessing) <= set(quantized.record.left_in_float)
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
    assert merged.record.pairs_removed["before_activations"] == 7
    assert apart.record.pairs_removed["before_activations"] == 0


@pytest.mark.parametrize("name", ALL_RECIPES)
def test_every_process_quantizes_to_the_same_bytes_in_silence(name: str, small_onnx: Path, tmp_path: Path) -> None:
    if name == "openvino-int8":
        pytest.importorskip("nncf", reason="nncf is not installed: OpenVINO models cannot be quantized")
    script = (
        "import sys; from pathlib import Path\n"
        "from edgetl.compress.quantize import quantize\n"
        "from edgetl.compress.recipes import load_recipe\n"
        "from tests.compress.images import pictures\n"
        "images = [{'image': image[None]} for image in pictures(8)]\n"
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
    assert record.precision == "int8"
    assert record.samples == 24
    assert record.source_sha256 == sha256_file(small_onnx)
    assert record.recipe is not None
    assert record.recipe["estimator"] == "min-max"
    assert record.engine.startswith("onnxruntime ")
    assert from_json(Quantization, json.loads(json.dumps(to_json(record))), "a record") == record


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


def pairs(model: Any) -> int:
    return sum(node.op_type == "QuantizeLinear" for node in model.graph.node)


@pytest.mark.parametrize("name", ONNX_RECIPES)
def test_without_layers_in_integers_nothing_is_rounded(name: str, small_onnx: Path, tmp_path: Path) -> None:
    layers = [node.name for node in load(small_onnx).graph.node if node.op_type in ("Conv", "Gemm")]
    recipe = with_changes(load_recipe(name), exclude_nodes=tuple(layers))
    made = quantize(small_onnx, recipe, samples(), tmp_path)
    assert pairs(load(made.path)) == 0
    images = pictures(10, seed=2)
    assert np.abs(logits_of(made.path, images) - logits_of(small_onnx, images)).max() < 1e-4


def test_what_only_layers_in_float_read_is_not_rounded(small_onnx: Path, tmp_path: Path) -> None:
    recipe = with_changes(load_recipe("ort-x86-int8"), exclude_nodes=("body.4.layers.0/Conv", "head/Gemm"))
    made = quantize(small_onnx, recipe, samples(), tmp_path)
    model = load(made.path)
    made_by = producers(model)
    nodes = {node.name: node for node in model.graph.node}
    # The sum of the first residual feeds that convolution alone, and the head reads means of the last one.
    assert made_by[nodes["body.4.layers.0/Conv"].input[0]].op_type == "Add"
    assert made_by[nodes["head/Gemm"].input[0]].op_type in ("Reshape", "ReduceMean")
    assert made_by[nodes["pool/ReduceMean"].input[0]].op_type == "Add"
    # Its neighbours stay in integers.
    assert made_by[nodes["body.4.layers.3/Conv"].input[0]].op_type == "DequantizeLinear"
    assert made_by[nodes["body.3/Add"].input[1]].op_type == "DequantizeLinear"
    assert made.record.pairs_removed["beside_float"] >= 2


FORMATS = [("uint8", False), ("int8", True), ("int8", False)]


@pytest.mark.parametrize("estimator", ["min-max", "percentile", "mse", "entropy"])
@pytest.mark.parametrize(("activations", "symmetric"), FORMATS)
def test_every_estimator_in_every_format(
    estimator: str, activations: str, symmetric: bool, small_onnx: Path, tmp_path: Path
) -> None:
    changes = {"estimator": estimator, "activations": activations, "activations_symmetric": symmetric}
    recipe = with_changes(load_recipe("ort-x86-int8"), percentile=99.9, **changes)
    made = quantize(small_onnx, recipe, samples(), tmp_path)
    images = pictures(40, seed=2)
    expected, found = logits_of(small_onnx, images), logits_of(made.path, images)
    assert np.sqrt(((found - expected) ** 2).mean()) < 0.08 * np.ptp(expected)
    assert made.record.estimator["name"] == estimator
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in load(made.path).graph.initializer}
    zeros = {int(array) for name, array in tensors.items() if name.endswith("_zero_point") and array.ndim == 0}
    assert (zeros == {0}) == symmetric


def test_estimators_differ(small_onnx: Path, tmp_path: Path) -> None:
    recipe = load_recipe("ort-x86-int8")
    digests = {
        sha256_file(quantize(small_onnx, with_changes(recipe, **changes), samples(), tmp_path).path)
        for changes in (
            {},
            {"estimator": "mse"},
            {"estimator": "entropy"},
            {"estimator": "percentile"},
            {"estimator": "percentile", "percentile": 99.0},
            {"bias_correction": "fast"},
            {"bias_correction": "full"},
            {"equalize": True},
        )
    }
    assert len(digests) == 8


def test_ranges_are_those_of_onnxruntimes_own_calibration(small_onnx: Path, tmp_path: Path) -> None:
    own = load(quantize(small_onnx, load_recipe("ort-x86-int8"), samples(8), tmp_path).path)
    batches = samples(8)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
            return next(batches, None)

    quantization.quantize_static(
        str(small_onnx),
        str(tmp_path / "theirs.onnx"),
        Reader(),
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        nodes_to_exclude=before_weights(load(small_onnx)),
        extra_options={"WeightSymmetric": True},
    )
    theirs = {t.name: numpy_helper.to_array(t) for t in load(tmp_path / "theirs.onnx").graph.initializer}
    scales = [t for t in own.graph.initializer if t.name.endswith(("_scale", "_zero_point"))]
    assert len(scales) > 40
    for tensor in scales:
        assert np.array_equal(numpy_helper.to_array(tensor), theirs[tensor.name]), tensor.name


def test_observations_are_kept_for_other_recipes(small_onnx: Path, tmp_path: Path) -> None:
    cache, passes = tmp_path / "cache", []

    def told(task: str, done: int, total: int, detail: str = "") -> None:
        if task == "ranges of activations" and done == total:
            passes.append(total)

    def digest(folder: str, cache: Path | None, count: int = 12, **changes: Any) -> str:
        recipe = with_changes(load_recipe("ort-x86-int8"), **changes)
        made = quantize(small_onnx, recipe, samples(count), tmp_path / folder, told, cache=cache)
        return sha256_file(made.path)

    fresh = {name: digest("fresh", None, estimator=name) for name in ("min-max", "mse", "entropy")}
    assert passes == [12] * 3
    # The extremes alone need no histograms; once there are some, they serve every estimator.
    assert digest("kept", cache) == fresh["min-max"]
    assert digest("kept", cache) == fresh["min-max"]
    assert passes == [12] * 4
    assert digest("kept", cache, estimator="mse") == fresh["mse"]
    assert digest("kept", cache, estimator="entropy") == fresh["entropy"]
    assert digest("kept", cache) == fresh["min-max"]
    assert passes == [12] * 5
    assert digest("kept", cache, count=11, estimator="mse") != fresh["mse"]
    assert passes == [12] * 5 + [11]


def read_ir(path: Path) -> dict[str, Any]:
    pytest.importorskip("openvino", reason="openvino is not installed: its models cannot be read")
    return {op.get_friendly_name(): op for op in core().read_model(path).get_ordered_ops()}


def source(op: Any, index: int) -> Any:
    return op.input(index).get_source_output().get_node()


def in_integers(op: Any) -> bool:
    weight, read = source(op, 1), source(op, 0)
    while weight.get_type_name() in ("Multiply", "Subtract", "Convert", "Reshape"):
        weight = source(weight, 0)
    while read.get_type_name() in ("Reshape", "ReduceMean"):
        read = source(read, 0)
    return bool(read.get_type_name() == "FakeQuantize" and weight.get_element_type().get_type_name() == "i8")


@pytest.fixture(scope="module")
def nncf_made(small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    pytest.importorskip("nncf", reason="nncf is not installed: OpenVINO models cannot be quantized")

    def make(**changes: Any) -> QuantizedModel:
        recipe = with_changes(load_recipe("openvino-int8"), **changes)
        return quantize(small_onnx, recipe, samples(10), tmp_path_factory.mktemp("nncf"))

    return make


def test_excluded_nodes_stay_in_float_in_openvino(nncf_made: Any) -> None:
    left = ("body.4.layers.0/Conv", "body.5.layers.3/Conv", "head/Gemm")
    plain, mixed = read_ir(nncf_made().path), nncf_made(exclude_nodes=left)
    network = read_ir(mixed.path)
    layers = {name: op for name, op in network.items() if op.get_type_name() in engine_nncf.WEIGHTED}
    assert len(layers) == 11
    assert all(in_integers(op) for op in plain.values() if op.get_type_name() in engine_nncf.WEIGHTED)
    bare = {f"{name}/WithoutBiases" for name in left}
    assert {name for name, op in layers.items() if not in_integers(op)} == bare
    assert bare <= set(mixed.record.left_in_float)


@pytest.mark.parametrize(
    "changes",
    [
        {"estimator": "min-max"},
        {"estimator": "percentile", "percentile": 99.9},
        {"estimator": "mse"},
        {"bias_correction": "none"},
        {"bias_correction": "full"},
        {"activations_symmetric": False},
        {"equalize": True},
    ],
)
def test_what_nncf_is_told_matters(changes: dict[str, Any], nncf_made: Any, small_onnx: Path) -> None:
    plain, changed = nncf_made(), nncf_made(**changes)
    assert any(
        plain.path.with_suffix(kind).read_bytes() != changed.path.with_suffix(kind).read_bytes()
        for kind in (".xml", ".bin")
    )
    assert changed.record.estimator["name"] == changes.get("estimator", "mean-min-max")
    assert changed.record.bias_correction["method"] == changes.get("bias_correction", "fast")
    if saturates(machine()):
        pytest.skip("this CPU has no VNNI: products of OpenVINO's int8 layers saturate in 16 bits")
    pytest.importorskip("openvino", reason="openvino is not installed: its models cannot be run")
    compiled = core().compile_model(changed.path, "CPU")
    images = pictures(20, seed=2)
    expected, found = logits_of(small_onnx, images), compiled(images)[0]
    assert np.sqrt(((found - expected) ** 2).mean()) < 0.08 * np.ptp(expected)


def test_fixed_batch_models_are_calibrated_too(tmp_path: Path) -> None:
    path = export_onnx(small_model(), PREPROCESS, tmp_path / "four.onnx", batch=4)
    made = quantize(path, load_recipe("ort-x86-int8"), samples(10), tmp_path)
    images = pictures(8, seed=2)
    expected = logits_of(path, images)
    assert np.abs(logits_of(made.path, images) - expected).max() < 0.12 * np.ptp(expected)


def test_progress_counts_the_images(small_onnx: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    told = lambda task, done, total, detail="": seen.append((done, total))  # noqa: E731
    quantize(small_onnx, load_recipe("ort-x86-int8"), samples(5), tmp_path, told)
    assert seen == [(n, 5) for n in range(6)]


def test_no_images(small_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="no sample to take the ranges from"):
        quantize(small_onnx, load_recipe("ort-x86-int8"), iter(()), tmp_path)


def test_images_of_another_size(small_onnx: Path, tmp_path: Path) -> None:
    wrong = [{"image": np.zeros((1, 16, 16, 3), np.uint8)}]
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
    expected = logits_of(small_onnx, images)
    assert np.abs(logits_of(made.path, images) - expected).max() < 0.01 * np.ptp(expected)


def test_weights_beyond_float16_are_refused(small_onnx: Path, tmp_path: Path) -> None:
    model = load(small_onnx)
    weight = next(t for t in model.graph.initializer if t.name == "head.weight")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e6), weight.name))
    onnx.save(model, tmp_path / "large.onnx")
    with pytest.raises(CompressionError, match=r"'head\.weight' exceed float16"):
        to_float(tmp_path / "large.onnx", "tensorrt", "fp16", tmp_path)


MASKED = """
<ir_version: 10, opset_import: ["" : 18]>
agraph (float[n, 4] x) => (float[n, 4] y) <
    bool[4] seen = {1, 1, 1, 0}, float lowest = {-3.4028234e38}
> {
    scores = Where (seen, x, lowest)
    y = Softmax (scores)
}
"""


def test_what_masks_in_float32_masks_in_float16(tmp_path: Path) -> None:
    """Transformers put the lowest float32 where nothing is to be seen."""
    onnx.save(onnx.parser.parse_model(MASKED), tmp_path / "masked.onnx")
    made = to_float(tmp_path / "masked.onnx", "tensorrt", "fp16", tmp_path)
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    sessions = [onnxruntime.InferenceSession(file) for file in (tmp_path / "masked.onnx", made.path)]
    (before,), (after,) = sessions[0].run(None, {"x": x}), sessions[1].run(None, {"x": x.astype(np.float16)})
    assert np.abs(after.astype(np.float32) - before).max() < 2e-3
    assert not after[:, 3].any()


def test_fp32_passes_through(small_onnx: Path, tmp_path: Path) -> None:
    made = to_float(small_onnx, "onnxruntime", "fp32", tmp_path)
    assert made.path == small_onnx
    assert made.record.precision == "fp32"


def test_fp16_is_refused_where_it_makes_no_sense(small_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="onnxruntime does not take fp16"):
        to_float(small_onnx, "onnxruntime", "fp16", tmp_path)


HARD_SWISH = """
<ir_version: 10, opset_import: ["" : 18]>
agraph (float[1, 3, 16, 16] x) => (float[1, 4] y) <
    float three = {3.0}, float six = {6.0}, float zero = {0.0}
> {
    a = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    shifted = Add (a, three)
    cut = Clip (shifted, zero, six)
    gated = Mul (a, cut)
    halved = Div (gated, six)
    c = Conv (halved, v, d)
    pooled = GlobalAveragePool (c)
    y = Flatten (pooled)
}
"""


def test_tensorrt_builds_a_hard_swish_in_int8(tmp_path: Path) -> None:
    """Its builder refuses the 3 in integers."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed: nothing builds engines")
    draw = np.random.default_rng(0)
    model = onnx.parser.parse_model(HARD_SWISH)
    shapes = {"w": (8, 3, 3, 3), "b": (8,), "v": (4, 8, 1, 1), "d": (4,)}
    for name, shape in shapes.items():
        model.graph.initializer.append(numpy_helper.from_array(draw.normal(size=shape).astype(np.float32), name))
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}{number}"
    onnx.save(model, tmp_path / "float.onnx")
    pictures = [{"x": draw.normal(size=(1, 3, 16, 16)).astype(np.float32)} for _ in range(4)]
    made = quantize(tmp_path / "float.onnx", load_recipe("tensorrt-int8"), iter(pictures), tmp_path / "out")
    assert made.record.pairs_removed["on_constants"] >= 1
    assert build_for(made.path, "8.7", "8.6").checked
    before, after = (
        onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, pictures[0])[0]
        for file in (tmp_path / "float.onnx", made.path)
    )
    assert np.abs(after - before).max() < 0.1 * np.ptp(before)
