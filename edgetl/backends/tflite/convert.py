"""From ONNX, float or Q/DQ, to LiteRT's ``.tflite``.

No converter of today fits beside the versions that edgetl needs: ``litert-torch`` 0.10 wants torch < 2.15, jax and
transformers; ``onnx2tf`` 2.6 wants Python 3.12 and pins numpy, onnx and onnxruntime to older ones. An exported image
classifier uses few operators, and the recipes' Q/DQ pairs say already what LiteRT's quantization scheme asks for: int8
activations with a zero point, symmetric int8 weights with a scale for each channel, int32 biases.

ONNX keeps images as (n, C, H, W), LiteRT as (n, H, W, C). Every rank-4 tensor is stored the second way here, so the
transposition behind the image input vanishes. A tensor may exist in float, in int8, or in both; the form that is
missing is made where it is first read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.backends.tflite import elementwise, layers, shaping
from edgetl.backends.tflite.graph import Grid, TfliteGraph
from edgetl.backends.tflite.lowering import TO_CHANNELS_FIRST, TO_CHANNELS_LAST, Lowering, attributes, refused
from edgetl.base.errors import BackendError
from edgetl.base.extras import require

_PURPOSE = "compiling for LiteRT"


def convert(model: Any) -> bytes:
    """A ``.tflite`` file of an ONNX model that :func:`edgetl.compress.export.export_onnx` or a recipe wrote.

    A batch left open is fixed to one.

    Args:
        model: parsed ONNX model; its inputs are uint8 (images, n×H×W×C) or float32, its outputs float32.

    Raises:
        BackendError: it has an operator, or a form of one, that is not converted; the message names it.
    """
    model = _with_shapes(model)
    state = _state(model)
    inputs = [_input(state, value) for value in model.graph.input]
    for node in model.graph.node:
        lower = _OPERATORS.get(node.op_type)
        if lower is None:
            raise refused(node)
        if node.output[0] not in state.merged:
            lower(state, node)
    outputs = [_output(state, value.name) for value in model.graph.output]
    return state.graph.to_bytes(inputs, outputs, "edgetl")


def _input(state: Lowering, value: Any) -> int:
    helper, name = require("onnx.helper", _PURPOSE), str(value.name)
    kind = np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
    if kind not in (np.uint8, np.float32):
        raise BackendError(
            f"edgetl converts no input of {kind} to LiteRT ({name})", "choose a target of another runtime"
        )
    tensor = state.floats[name] = state.graph.tensor(name, state.shapes[name], kind)
    if kind == np.uint8 or len(state.shapes[name]) != 4:
        state.plain.add(name)
    else:
        state.floats[name] = state.transposed(tensor, name, TO_CHANNELS_LAST)
    return tensor


def _output(state: Lowering, name: str) -> int:
    tensor = state.in_float(name)
    if state.turned(name):
        tensor = state.transposed(tensor, name, TO_CHANNELS_FIRST)
    state.graph.tensors[tensor].name = name.encode()
    return tensor


def _with_shapes(model: Any) -> Any:
    onnx = require("onnx", _PURPOSE)
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in (*fixed.graph.input, *fixed.graph.output):
        batch = value.type.tensor_type.shape.dim[0]
        if not batch.HasField("dim_value"):
            batch.dim_value = 1
    # What was inferred for an open batch would contradict a fixed one.
    del fixed.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True)


def _state(model: Any) -> Lowering:
    helper = require("onnx.numpy_helper", _PURPOSE)
    graph = model.graph
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    shapes = {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    constants = {tensor.name: helper.to_array(tensor) for tensor in graph.initializer}
    shapes |= {name: value.shape for name, value in constants.items()}
    rounding = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    grids = {node.output[0]: _grid(node, constants) for node in rounding}
    return Lowering(TfliteGraph(), constants, shapes, readers, frozenset(v.name for v in graph.output), grids)


def _grid(node: Any, constants: Mapping[str, npt.NDArray[Any]]) -> Grid:
    scale = np.atleast_1d(constants[node.input[1]]).astype(np.float32)
    given = constants[node.input[2]] if len(node.input) > 2 and node.input[2] else np.zeros(1, np.uint8)
    if given.dtype not in (np.int8, np.int32):
        raise refused(node, f"with {given.dtype} (LiteRT has int8)")
    axis = attributes(node).get("axis", 1) if scale.size > 1 else 0
    return Grid(scale, np.broadcast_to(np.atleast_1d(given), scale.shape).astype(np.int64), axis)


def _quantize(state: Lowering, node: Any) -> None:
    source, output = node.input[0], node.output[0]
    if output in state.integers:
        return
    if source in state.plain:
        state.plain.add(output)
    if source in state.integers and state.grids[source].same(state.grids[output]):
        state.alias(source, output)
        return
    # From int8, this operator changes the grid.
    given = state.integers[source] if source in state.integers else state.in_float(source)
    state.graph.operator("QUANTIZE", [given], state.write(output, rounded=True), "QuantizeOptions")


def _dequantize(state: Lowering, node: Any) -> None:
    source, output = node.input[0], node.output[0]
    if source in state.constants:
        state.constants[output] = state.constants[source]
        state.grids[output] = _grid(node, state.constants)
    else:
        state.alias(source, output)


_OPERATORS: Mapping[str, Callable[[Lowering, Any], None]] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    **elementwise.OPERATORS,
    **layers.OPERATORS,
    **shaping.OPERATORS,
}
