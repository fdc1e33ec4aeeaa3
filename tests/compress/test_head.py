"""The linear head of a compressed network: found, what reaches it, and other weights for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetl.base.errors import CompressionError
from edgetl.compress.head import features, find_head, with_head, with_quantized_head
from edgetl.compress.layers.topology import read_topology
from edgetl.compress.quantize import quantize
from edgetl.compress.recipes import load_recipe
from edgetl.core.tensors import Arrays

WIDTH, INSIDE = 3, 12


def body() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT, name="cast"),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2], name="turn"),
        helper.make_node("Mul", ["planes", "scale"], ["scaled"], name="scaling"),
        helper.make_node("Conv", ["scaled", "conv.w", "conv.b"], ["conv"], strides=[2, 2], name="conv"),
        helper.make_node("Relu", ["conv"], ["active"], name="relu"),
        helper.make_node("GlobalAveragePool", ["active"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["features"], name="flat"),
    ]


HEADS = {
    "gemm": [helper.make_node("Gemm", ["features", "head.w", "head.b"], ["logits"], name="head", transB=1)],
    "gemm, transposed": [helper.make_node("Gemm", ["features", "head.wt", "head.b"], ["logits"], name="head")],
    "product": [
        helper.make_node("MatMul", ["features", "head.wt"], ["product"], name="head"),
        helper.make_node("Add", ["head.b", "product"], ["logits"], name="bias"),
    ],
}
NO_HEADS = {
    "softmax": [helper.make_node("Softmax", ["features"], ["logits"], name="soft")],
    "scaled": [
        helper.make_node("Gemm", ["features", "head.w", "head.b"], ["logits"], name="head", transB=1, alpha=0.5)
    ],
    "two paths": [
        helper.make_node("Gemm", ["features", "head.w", "head.b"], ["a"], name="head", transB=1),
        helper.make_node("Gemm", ["features", "head.w", "head.b"], ["b"], name="other", transB=1),
        helper.make_node("Add", ["a", "b"], ["logits"], name="both"),
    ],
}


def weights() -> dict[str, npt.NDArray[np.float32]]:
    draw = np.random.default_rng(3)
    head = draw.normal(0, 1, (WIDTH, INSIDE)).astype(np.float32)
    return {
        "scale": np.float32([[[[1 / 255]]]]).reshape(1, 1, 1, 1),
        "conv.w": draw.normal(0, 0.4, (INSIDE, 3, 3, 3)).astype(np.float32),
        "conv.b": draw.normal(0, 0.1, INSIDE).astype(np.float32),
        "head.w": head,
        "head.wt": np.ascontiguousarray(head.T),
        "head.b": draw.normal(0, 0.1, WIDTH).astype(np.float32),
    }


def network(path: Path, head: list[onnx.NodeProto]) -> Path:
    nodes = [*body(), *head]
    read = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "headed",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 16, 16, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", None])],
        [numpy_helper.from_array(value, name) for name, value in weights().items() if name in read],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def samples(count: int = 24) -> list[Arrays]:
    return [{"image": np.random.default_rng(i).integers(0, 256, (1, 16, 16, 3), np.uint8)} for i in range(count)]


def logits(path: Path, given: list[Arrays]) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["logits"], dict(one))[0] for one in given])


@pytest.mark.parametrize("form", HEADS)
def test_what_reaches_the_head_gives_its_outputs(tmp_path: Path, form: str) -> None:
    """Of the float model, exactly; and another head gives others."""
    path = network(tmp_path / "float.onnx", HEADS[form])
    seen = features(path, path, samples(), simulated=False)
    assert seen.shape == (24, INSIDE)
    held = weights()
    np.testing.assert_allclose(seen @ held["head.w"].T + held["head.b"], logits(path, samples()), atol=1e-5)
    weight, bias = 2 * held["head.w"], held["head.b"] + 1
    out = with_head(path, find_head(read_topology(path)), weight, bias, tmp_path / "other.onnx")
    np.testing.assert_allclose(logits(out, samples()), seen @ weight.T + bias, atol=1e-5)
    with pytest.raises(CompressionError, match="the head has weights of"):
        with_head(path, find_head(read_topology(path)), weight[:, :-1], bias, tmp_path / "third.onnx")


@pytest.mark.parametrize("form", NO_HEADS)
def test_what_is_no_linear_head(tmp_path: Path, form: str) -> None:
    path = network(tmp_path / "float.onnx", NO_HEADS[form])
    with pytest.raises(CompressionError, match="no linear head"):
        features(path, path, samples(), simulated=False)


@pytest.mark.parametrize("recipe", ["ort-x86-int8", "ort-aarch64-int8", "openvino-int8", "tensorrt-int8"])
@pytest.mark.parametrize("simulated", [True, False])
def test_what_reaches_the_head_in_int8(tmp_path: Path, recipe: str, simulated: bool) -> None:
    """As the runtime computes it: the head's own arithmetic on it gives the compressed model's outputs."""
    path = network(tmp_path / "float.onnx", HEADS["gemm"])
    given = samples(48)
    made = quantize(path, load_recipe(recipe), given, tmp_path / "int8")
    seen = features(made.path, path, given, simulated=simulated)
    whole = features(path, path, given, simulated=False)
    apart = np.abs(seen - whole).max() / np.ptp(whole)
    assert 0 < apart < 0.1, "near the float features, and not the same"


@pytest.mark.parametrize("form", ["gemm", "gemm, transposed"])
@pytest.mark.parametrize("recipe", ["ort-x86-int8", "ort-aarch64-int8", "tensorrt-int8"])
def test_another_head_in_int8_is_what_quantizing_it_all_again_gives(tmp_path: Path, form: str, recipe: str) -> None:
    exported, given = network(tmp_path / "model.onnx", HEADS[form]), samples()
    head, draw = find_head(read_topology(exported)), np.random.default_rng(5)
    other = draw.normal(0, 0.3, (WIDTH, INSIDE)).astype(np.float32), draw.normal(0, 2, WIDTH).astype(np.float32)
    new = with_head(exported, head, *other, tmp_path / "other.onnx")
    first, again = (quantize(m, load_recipe(recipe), given, tmp_path / m.stem).path for m in (exported, new))
    with_quantized_head(first, new, tmp_path / "exchanged.onnx")
    found, wanted = (read_topology(path) for path in (tmp_path / "exchanged.onnx", again))
    assert {t.name for t in found.model.graph.initializer} == {t.name for t in wanted.model.graph.initializer}
    for tensor in wanted.model.graph.initializer:
        one, two = (of.constants[tensor.name] for of in (found, wanted))
        assert one.dtype == two.dtype
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1 if one.dtype.kind == "i" else 0)
    apart = np.abs(logits(tmp_path / "exchanged.onnx", given) - logits(again, given)).max()
    assert apart < 0.01 * np.ptp(logits(again, given))
    assert np.abs(logits(first, given) - logits(again, given)).max() > 0.5, "it is another head"


def test_a_head_that_is_not_quantized_is_not_exchanged(tmp_path: Path) -> None:
    exported = network(tmp_path / "model.onnx", HEADS["gemm"])
    with pytest.raises(CompressionError, match="no quantized head that could be exchanged"):
        with_quantized_head(exported, exported, tmp_path / "exchanged.onnx")
    assert not (tmp_path / "exchanged.onnx").exists()
