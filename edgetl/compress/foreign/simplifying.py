"""Sizes made fixed, what is constant computed, batch norms folded: by onnxscript's optimizer and rewriter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgetl.base.extras import require
from edgetl.compress.quiet import quiet

BATCH = "batch"
#: An axis as a graph has it: a size, or the name of an open one.
Axis = int | str


def shape_of(value: Any) -> list[int | None]:
    """Sizes of a graph's input or output; None where one is open."""
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims]


def resized(model: Any, shapes: Mapping[str, Sequence[Axis]]) -> None:
    """Give inputs these shapes, in place; what is known of the sizes in the graph is forgotten."""
    for value in model.graph.input:
        if value.name in shapes:
            set_shape(value, shapes[value.name])
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")


def set_shape(value: Any, axes: Sequence[Axis]) -> None:
    """Write the shape of a graph's input or output."""
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for axis in axes:
        shape.dim.add(**({"dim_value": axis} if isinstance(axis, int) else {"dim_param": axis}))


def simplified(model: Any) -> Any:
    """A model that computes the same with fewer nodes: constants computed, batch norms folded into what they follow."""
    rules = require("onnxscript.rewriter.rules.common", "simplifying ONNX models")
    onnxscript = require("onnxscript", "simplifying ONNX models")
    names = ("fuse_batchnorm_into_conv", "fuse_batchnorm_into_conv_transpose", "fuse_batchnorm_into_gemm")
    # A shape computed from the batch is one that a runtime of small devices refuses: only constants may say it. ORT's
    # quantizer makes a Gemm of a MatMul and its bias, and layers are found again by their names: so they are one here.
    chosen = [getattr(rules, f"{name}_rule") for name in (*names, "materialize_reshape_shape", "matmul_add_to_gemm")]
    onnx = require("onnx", "simplifying ONNX models")
    with quiet():
        smaller = onnxscript.optimizer.optimize(model, input_size_limit=1 << 20, output_size_limit=1 << 20)
        shaped = onnx.shape_inference.infer_shapes(smaller, data_prop=True)
        rewritten = onnxscript.rewriter.rewrite(shaped, pattern_rewrite_rules=chosen)
        return onnx.shape_inference.infer_shapes(rewritten)


def with_first(first: Axis, sizes: Sequence[int | None], name: str) -> list[Axis]:
    """A shape with another first axis; open ones are named after the input."""
    return [first, *(size or f"{name}_{axis}" for axis, size in enumerate(sizes[1:], 1))]


def opened(model: Any) -> Any | None:
    """A copy that takes any number of samples; None if it does already.

    Reshapes to one sample are made to keep what there is. That the outcome is right has to be tried out.
    """
    fixed = {value.name: shape for value in model.graph.input if (shape := shape_of(value)) and shape[0] is not None}
    if not fixed:
        return None
    onnx = require("onnx", "reading ONNX models")
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    resized(copied, {name: with_first(BATCH, sizes, name) for name, sizes in fixed.items()})
    _keep_first_axis(copied, onnx)
    return copied


def _keep_first_axis(model: Any, onnx: Any) -> None:
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for index, node in enumerate(model.graph.node):
        if node.op_type != "Reshape" or node.input[1] not in weights:
            continue
        sizes = onnx.numpy_helper.to_array(weights[node.input[1]]).copy()
        if len(sizes) < 2 or sizes[0] != 1:
            continue
        # 0 keeps the size that the axis has.
        sizes[0] = 0
        name = f"{node.input[1]}.{index}"
        model.graph.initializer.append(onnx.numpy_helper.from_array(sizes, name))
        node.input[1] = name
        kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
        del node.attribute[:]
        node.attribute.extend(kept)


def unused(model: Any, name: str) -> str:
    """The name, or the nearest that no tensor and no node of the graph has."""
    taken = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        taken |= {node.name, *node.output}
    while name in taken or f"{name}.shape" in taken:
        name += "_"
    return name
