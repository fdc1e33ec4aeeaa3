"""Small ONNX networks, written node by node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, HALF, INT8, UINT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8
INT32, INT64, DOUBLE = TensorProto.INT32, TensorProto.INT64, TensorProto.DOUBLE


def network(
    nodes: list[Any],
    *,
    given: int = FLOAT,
    made: int = FLOAT,
    shape: tuple[int, ...] = (1, 3, 8, 8),
    rank: int | None = None,
    constants: dict[str, Any] | None = None,
    opset: int = 18,
) -> Any:
    """A model from tensor ``x`` to tensor ``y``, whose rank is that of ``x`` if none is given."""
    sizes = [f"size{index}" for index in range(len(shape) if rank is None else rank)]
    inputs = [helper.make_tensor_value_info("x", given, shape)]
    outputs = [helper.make_tensor_value_info("y", made, sizes)]
    arrays = [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(operator: str, inputs: str = "x", output: str = "y", **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), output.split(), name=f"the {operator}", **attributes)


def quantized(zero: Any, *, bias: type[np.generic] | None = None) -> Any:
    """A convolution between quantizations, its bias behind DequantizeLinear where a type is given for it."""
    constants = {
        "s": np.float32(0.1),
        "z": zero,
        "w": np.ones((4, 3, 3, 3), np.int8),
        "zw": np.int8(0),
    }
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        helper.make_node("DequantizeLinear", ["w", "s", "zw"], ["dw"], name="weights"),
    ]
    if bias is not None:
        constants |= {"b": np.ones(4, bias), "zb": bias(0)}
        nodes.append(helper.make_node("DequantizeLinear", ["b", "s", "zb"], ["db"], name="bias"))
    nodes.append(node("Conv", "d dw" + (" db" if bias is not None else "")))
    return network(nodes, constants=constants)


TWICE = {"r": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2], np.float32)}
CASES: dict[str, Any] = {
    "relu": network([node("Relu")]),
    "relu in half precision": network([node("Relu")], given=HALF, made=HALF),
    "relu at opset 13": network([node("Relu")], opset=13),
    "double": network([node("Relu")], given=DOUBLE, made=DOUBLE),
    "uint8, cast first": network([node("Cast", to=FLOAT)], given=UINT8),
    "uint8, transposed first": network(
        [node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("Cast", "t", "y", to=FLOAT)], given=UINT8
    ),
    "uint8 inside": network([node("Cast", "x", "u", to=UINT8), node("Cast", "u", "y", to=FLOAT)]),
    "symmetric int8": quantized(np.int8(0)),
    "asymmetric int8": quantized(np.int8(3)),
    "int8 bias": quantized(np.int8(0), bias=np.int8),
    "int32 bias": quantized(np.int8(0), bias=np.int32),
    "bits": network([node("BitShift", "x x", direction="LEFT")], given=UINT8, made=UINT8),
    "determinant": network([node("Det")], shape=(2, 4, 4), rank=1),
    "unique": network([node("Unique")], shape=(6,)),
    "integer convolution": network(
        [node("ConvInteger", "x w")], given=INT8, made=INT32, constants={"w": np.ones((4, 3, 3, 3), np.int8)}
    ),
    "mean over constant axes": network([node("ReduceMean", "x a")], constants={"a": np.array([2, 3])}),
    "pool": network([node("MaxPool", kernel_shape=[2, 2])]),
    "pool with holes": network([node("MaxPool", kernel_shape=[2, 2], dilations=[2, 2])]),
    "pool with indices": network([node("MaxPool", "x", "y i", kernel_shape=[2, 2])]),
    "normalised": network([node("LayerNormalization", "x s")], constants={"s": np.ones(8, np.float32)}),
    "normalised, with its mean": network(
        [node("LayerNormalization", "x s", "y m"), node("Relu", "m", "r")], constants={"s": np.ones(8, np.float32)}
    ),
    "resized": network([node("Resize", "x r s", mode="linear")], constants=TWICE),
    "resized, antialiased": network([node("Resize", "x r s", mode="linear", antialias=1)], constants=TWICE),
    "a type that it lacks": network([node("Cast", to=TensorProto.UINT32)], made=TensorProto.UINT32),
    "largest": network([node("TopK", "x k", "y i")], constants={"k": np.array([2])}),
    "hard swish": network([node("HardSwish")]),
    "gelu": network([node("Gelu")], opset=20),
}


def saved(model: Any, folder: Path) -> Path:
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def parsed(text: str, **constants: Any) -> Any:
    """A model in ONNX's textual syntax, ``g (inputs) => (outputs) { nodes }``, with these initializers."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {text}')
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for index, made in enumerate(model.graph.node):
        made.name = f"{made.op_type}{index}"
    onnx.checker.check_model(model, full_check=True)
    return model


PAIR_WEIGHTS = {
    name: np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    for seed, (name, shape) in enumerate({"wa": (4, 6), "wb": (3, 6), "wc": (6, 2)}.items())
}


def pair_network(path: Path) -> Path:
    """Two inputs, two outputs: hidden = max(left wa + right wb, 0) and scores = hidden wc."""
    text = (
        "g (float[n, 4] left, float[n, 3] right) => (float[n, 6] hidden, float[n, 2] scores) "
        "{ a = MatMul(left, wa) b = MatMul(right, wb) s = Add(a, b) hidden = Relu(s) scores = MatMul(hidden, wc) }"
    )
    onnx.save(parsed(text, **PAIR_WEIGHTS), path)
    return path


def pair_outputs(left: Any, right: Any) -> dict[str, Any]:
    """What :func:`pair_network` gives for float32 (n, 4) and (n, 3)."""
    hidden = np.maximum(left @ PAIR_WEIGHTS["wa"] + right @ PAIR_WEIGHTS["wb"], 0)
    return {"hidden": hidden, "scores": hidden @ PAIR_WEIGHTS["wc"]}


TEXT_WEIGHTS = {
    "table": np.random.default_rng(5).normal(size=(11, 8)).astype(np.float32),
    "w": np.random.default_rng(6).normal(size=(8, 2)).astype(np.float32),
}


def text_network(path: Path) -> Path:
    """Token ids and a mask, int64 (n, T), any T: the mean of the vectors that the mask leaves, times w."""
    text = (
        "g (int64[n, t] input_ids, int64[n, t] attention_mask) => (float[n, 2] logits) { v = Gather(table, input_ids) "
        "m = Cast<to=1>(attention_mask) c = Unsqueeze(m, last) k = Mul(v, c) s = ReduceSum<keepdims=0>(k, tokens) "
        "d = ReduceSum<keepdims=0>(c, tokens) mean = Div(s, d) logits = MatMul(mean, w) }"
    )
    onnx.save(parsed(text, **TEXT_WEIGHTS, last=np.array([2]), tokens=np.array([1])), path)
    return path


def text_outputs(ids: Any, mask: Any) -> dict[str, Any]:
    """What :func:`text_network` gives."""
    kept = TEXT_WEIGHTS["table"][ids] * mask[..., None]
    return {"logits": kept.sum(axis=1) / mask.sum(axis=1, keepdims=True) @ TEXT_WEIGHTS["w"]}
