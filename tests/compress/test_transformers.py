"""Texts: export with open lengths, int8 without calibration, and what the model's kind changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from edgetl.base.errors import CompressionError
from edgetl.compress.export import check_parity, export_onnx, run_onnx
from edgetl.compress.graph import before_weights, kind_of, load
from edgetl.compress.layers.attribution import attribute
from edgetl.compress.layers.emulation import Emulation
from edgetl.compress.layers.points import read_points
from edgetl.compress.layers.profiling import profile_layers
from edgetl.compress.layers.taps import compare
from edgetl.compress.quantize import QuantizedModel, quantize
from edgetl.compress.recipes import load_recipe, with_changes
from edgetl.compress.sensitivity import costs
from edgetl.core.bundle import Artifact
from edgetl.runtime.sessions import open_session
from tests.compress.models import small_transformer
from tests.compress.texts import TOKENS, padded, sentences

LAYERS = 13


@pytest.fixture(scope="module")
def dynamic(words_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizedModel:
    return quantize(words_onnx, load_recipe("ort-x86-transformer-int8"), (), tmp_path_factory.mktemp("dynamic"))


def logits_of(path: Path, count: int = 24) -> npt.NDArray[np.float32]:
    return run_onnx(path, padded(sentences(count, seed=2)))["logits"]


def test_any_batch_and_any_length(words_onnx: Path) -> None:
    graph = load(words_onnx).graph
    shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)]
    assert shapes == [["batch", "length"], ["batch", "length"], ["batch", 2]]
    parity = check_parity(words_onnx, small_transformer(), padded(sentences(20)))
    assert (parity.n, parity.agreement) == (20, 1.0)


def test_padding_changes_no_answer(words_onnx: Path) -> None:
    texts = sentences(6)
    alone = np.concatenate([run_onnx(words_onnx, text)["logits"] for text in texts])
    np.testing.assert_allclose(run_onnx(words_onnx, padded(texts))["logits"], alone, atol=1e-5)


def test_a_fixed_batch_keeps_its_open_length(tmp_path: Path) -> None:
    model = small_transformer()
    path = export_onnx(model, TOKENS, tmp_path / "model.onnx", batch=2)
    assert check_parity(path, model, padded(sentences(5))).n == 5
    samples = sentences(8)
    assert len({text["input_ids"].shape for text in samples}) > 1
    with pytest.raises(CompressionError, match="samples of several sizes do not fit into a batch of 2"):
        quantize(path, load_recipe("openvino-int8"), samples, tmp_path / "out")


def test_a_table_of_embeddings_is_no_preprocessing(words_onnx: Path) -> None:
    model = load(words_onnx)
    kinds = {node.name: node.op_type for node in model.graph.node}
    assert {kinds[name] for name in before_weights(model)} <= {
        "Cast", "Concat", "Mul", "ReduceSum", "Shape", "Slice", "Sub", "Unsqueeze",
    }  # fmt: skip


def parsed(body: str) -> onnx.ModelProto:
    text = '<ir_version: 9, opset_import: ["" : 18]> g (float[1,4,8] x, float[1,1,4] m) => (float[1,4,8] y) '
    model = onnx.parser.parse_model(text + "{" + body + "}")
    for name, shape in (("w", (8, 8)), ("k", (4, 4, 1))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    return model


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("t = Transpose<perm=[0,2,1]>(x) s = MatMul(x, t) a = Softmax(s) y = MatMul(a, x)", "transformer"),
        (
            "t = Transpose<perm=[0,2,1]>(x) s = MatMul(x, t) n = Add(s, m) a = Softmax(n) b = IsNaN(a)"
            " c = Where(b, m, a) y = MatMul(c, x)",
            "transformer",
        ),
        ("h = MatMul(x, w) a = Softmax(h) y = Mul(a, x)", "dense"),
        ("h = MatMul(x, w) a = Softmax(h) y = MatMul(a, w)", "dense"),
        ("a = Softmax(x) t = Transpose<perm=[0,2,1]>(a) s = MatMul(x, t) y = MatMul(s, x)", "dense"),
        ("c = Conv(x, k) a = Softmax(c) y = Mul(a, x)", "convolutional"),
    ],
    ids=["attention", "masked", "gate", "softmax-layer", "no-weights", "convolution"],
)
def test_attention_makes_a_transformer(body: str, kind: str) -> None:
    assert kind_of(parsed(body)) == kind


def test_kinds_of_exported_models(words_onnx: Path, small_onnx: Path) -> None:
    assert [kind_of(load(path)) for path in (words_onnx, small_onnx)] == ["transformer", "convolutional"]


def test_dynamic_quantization_follows_the_float_model(words_onnx: Path, dynamic: QuantizedModel) -> None:
    exact = logits_of(words_onnx)
    assert np.abs(logits_of(dynamic.path) - exact).max() < 0.05 * np.ptp(exact)
    assert dynamic.path.stat().st_size < 0.6 * words_onnx.stat().st_size
    assert (dynamic.record.precision, dynamic.record.samples) == ("int8", 0)


def test_dynamic_quantization_gives_the_same_bytes_again(
    words_onnx: Path, dynamic: QuantizedModel, tmp_path: Path
) -> None:
    again = quantize(words_onnx, load_recipe("ort-x86-transformer-int8"), (), tmp_path)
    assert again.path.read_bytes() == dynamic.path.read_bytes()


def test_products_in_integers_are_exact_optimised_or_not(dynamic: QuantizedModel) -> None:
    """Without VNNI both would saturate, and ONNX Runtime's remedy is an optimisation."""
    samples = padded(sentences(12, seed=3))
    found = []
    for simulated in (True, False):
        session = open_session(Artifact("onnxruntime", dynamic.path, "int8"), simulated=simulated)
        found.append(session.run(samples)["logits"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-3 * np.ptp(found[1]))
    compared = compare((dynamic.path, True), (dynamic.path, False), sentences(3))
    assert min(tensor.sqnr_db for tensor in compared) > 40


def test_times_of_layers_are_told_by_the_names_of_the_exported_graph(words_onnx: Path, dynamic: QuantizedModel) -> None:
    points = read_points(dynamic.path, words_onnx)
    times = [profile_layers(path, words_onnx, sentences(1)[0], rounds=1) for path in (dynamic.path, words_onnx)]
    assert len(costs(points, *times).by_node) == LAYERS


def test_every_layer_of_a_dynamic_model_is_in_integers(words_onnx: Path, dynamic: QuantizedModel) -> None:
    points = read_points(dynamic.path, words_onnx)
    assert len(points) == LAYERS
    assert all(point.weight is not None and point.grid is None for point in points)
    noises = attribute(words_onnx, points, sentences(3))
    assert {noise.cause for noise in noises} == {"weights"}
    assert min(noise.sqnr_db for noise in noises) > 25


def test_what_a_recipe_leaves_out_stays_in_float(words_onnx: Path, tmp_path: Path) -> None:
    left = ("head/Gemm", "layers.0.query/MatMul")
    recipe = with_changes(load_recipe("ort-x86-transformer-int8"), exclude_nodes=left, exclude_operators=("Gather",))
    made = quantize(words_onnx, recipe, (), tmp_path)
    points = read_points(made.path, words_onnx)
    assert {point.node for point in points if point.weight is None} == set(left)
    assert made.record.left_in_float == tuple(sorted([*left, "words/Gather"]))


def test_weights_alone_explain_most_of_the_emulated_error(words_onnx: Path, dynamic: QuantizedModel) -> None:
    samples = padded(sentences(12, seed=3))
    emulation = Emulation(words_onnx, dynamic.path)
    exact, found = run_onnx(words_onnx, samples)["logits"], emulation.outputs(samples)["logits"]
    np.testing.assert_allclose(emulation.outputs(samples, set(emulation.names))["logits"], exact, atol=1e-4)
    assert 0 < np.abs(found - exact).max() < 0.05 * np.ptp(exact)


@pytest.fixture(scope="module")
def both_kinds(words_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, QuantizedModel]:
    pytest.importorskip("nncf", reason="nncf is not installed: OpenVINO models cannot be quantized")
    recipe = load_recipe("openvino-int8")
    return {
        kind: quantize(
            words_onnx, with_changes(recipe, model_type=kind), sentences(24, seed=1), tmp_path_factory.mktemp(kind)
        )
        for kind in ("auto", "none")
    }


def test_nncf_is_told_of_the_models_kind(words_onnx: Path, both_kinds: dict[str, QuantizedModel]) -> None:
    assert {kind: made.record.model_type for kind, made in both_kinds.items()} == {
        "auto": "transformer",
        "none": "none",
    }
    samples, exact, errors = padded(sentences(24, seed=2)), logits_of(words_onnx), {}
    for kind, made in both_kinds.items():
        # In float, as the file has it: without VNNI, products in integers may saturate, whatever NNCF was told.
        session = open_session(Artifact("openvino", made.path, "int8", "CPU"), simulated=True)
        errors[kind] = float(np.square(session.run(samples)["logits"] - exact).mean())
    assert errors["auto"] < errors["none"] / 2


def test_smoothed_channels_are_read_as_the_layers_see_them(
    words_onnx: Path, both_kinds: dict[str, QuantizedModel]
) -> None:
    """NNCF moves factors from activations to weights: neither alone is what the exported graph has."""
    points = read_points(both_kinds["auto"].path, words_onnx)
    assert len(points) == LAYERS
    smoothed = [point for point in points if point.grid is not None and point.grid.axis == -1]
    assert len(smoothed) >= 4
    assert min(noise.sqnr_db for noise in attribute(words_onnx, points, sentences(3))) > 15
