"""The linear layer that a graph ends in, and a graph for one size of batch."""

from __future__ import annotations

from typing import Any

from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.compress.foreign.simplifying import resized, shape_of, with_first

#: What may follow the last layer: its bias, and what changes only the shape.
_AFTER = {"Add", "Identity", "Reshape", "Flatten", "Squeeze", "Cast"}


def head_input(model: Any) -> Any:
    """The part of a model that makes what its last linear layer reads, as its only output.

    Raises:
        CompressionError: it does not end in a Gemm or MatMul with constant weights.
    """
    fixed = {tensor.name for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(model.graph.output[0].name)
    while node is not None and node.op_type in _AFTER:
        node = next((makers[name] for name in node.input if name in makers), None)
    if node is None or node.op_type not in ("Gemm", "MatMul") or node.input[1] not in fixed:
        raise CompressionError(
            "the model does not end in one linear layer", "choose samples otherwise: --samples random"
        )
    onnx = require("onnx", "reading ONNX models")
    names = [value.name for value in model.graph.input]
    return onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model)).extract_model(names, [node.input[0]])


def with_batch(model: Any, size: int) -> Any:
    """A copy of a model that takes this many samples at once, no more and no fewer."""
    onnx = require("onnx", "changing ONNX models")
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    width = shape_of(copied.graph.output[0])[1:]
    shapes = {value.name: with_first(size, shape_of(value), value.name) for value in copied.graph.input}
    resized(copied, shapes)
    for dim in (size, *width):
        copied.graph.output[0].type.tensor_type.shape.dim.add(dim_value=dim)
    return onnx.shape_inference.infer_shapes(copied)
