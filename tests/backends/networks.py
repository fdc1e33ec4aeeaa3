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
