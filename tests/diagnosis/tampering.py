"""Damaging artifacts behind their maker's back: stored weights and activation ranges of Q/DQ ONNX and OpenVINO IR."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import openvino
from onnx import numpy_helper

from edgetl.backends.openvino import save_network
from edgetl.compress import graph
from edgetl.runtime.ov import core

Array = npt.NDArray[Any]
Weights = Callable[[str, Array], Array]


def edit_onnx(
    path: Path, *, weights: Weights | None = None, ranges_of: Path | None = None, halve: bool = False
) -> None:
    """Change a Q/DQ file in place: weights through a function, ranges from another file, or unsigned ones halved."""
    model = onnx.load(str(path))
    if weights is not None:
        _onnx_weights(model, weights)
    if ranges_of is not None:
        _onnx_ranges(model, onnx.load(str(ranges_of)))
    if halve:
        _onnx_halve(model)
    _bias_scales(model)
    graph.save(model, path)


def _stored(model: Any) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _put(model: Any, name: str, array: Array) -> None:
    _stored(model)[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))


def _layers(model: Any) -> list[tuple[Any, Any]]:
    makers = {name: node for node in model.graph.node for name in node.output}
    nodes = [n for n in model.graph.node if n.op_type in graph.WEIGHTED and n.input[1] in makers]
    return [(node, makers[node.input[1]]) for node in nodes]


def _onnx_weights(model: Any, weights: Weights) -> None:
    for node, dequantize in _layers(model):
        name = dequantize.input[0]
        array = numpy_helper.to_array(_stored(model)[name]).copy()
        turned = node.op_type == "MatMul" or (
            node.op_type == "Gemm" and not any(a.name == "transB" and a.i for a in node.attribute)
        )
        changed = weights(node.name, array.T if turned else array)
        _put(model, name, changed.T if turned else changed)


def _activations(model: Any) -> list[tuple[str, str]]:
    """Names of scale and zero point of each quantized activation."""
    return [(n.input[1], n.input[2]) for n in model.graph.node if n.op_type == "QuantizeLinear"]


def _onnx_ranges(model: Any, other: Any) -> None:
    theirs = _stored(other)
    for names in _activations(model):
        for name in names:
            if name in theirs:
                _stored(model)[name].CopyFrom(theirs[name])


def _onnx_halve(model: Any) -> None:
    values = {name: numpy_helper.to_array(tensor) for name, tensor in _stored(model).items()}
    outputs = {n.input[1]: n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"}
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    for scale, zero in dict.fromkeys(_activations(model)):
        signed = values[zero].dtype == np.int8
        if not signed:
            # The numbers of an unsigned tensor in a signed one: 0…255 becomes -128…127 about the same zero.
            moved = int(values[zero]) - 128 if int(values[zero]) else 0
            _put(model, zero, np.array(moved, np.int8))
        elif makers.get(outputs[scale]) in ("Clip", "Relu"):
            # A scale meant for 255 steps above zero, where there are 127.
            _put(model, scale, np.array(values[scale] * 127 / 255, np.float32))


def _bias_scales(model: Any) -> None:
    """Integer biases have the scale of their input times that of their weights, whatever became of either."""
    makers = {name: node for node in model.graph.node for name in node.output}
    values = {name: numpy_helper.to_array(tensor) for name, tensor in _stored(model).items()}
    for node, dequantize in _layers(model):
        bias = makers.get(node.input[2]) if len(node.input) > 2 else None
        source = makers.get(node.input[0])
        if bias is None or bias.op_type != "DequantizeLinear" or source is None or source.op_type != "DequantizeLinear":
            continue
        old = values[bias.input[1]]
        new = (values[source.input[1]] * values[dequantize.input[1]]).astype(np.float32).reshape(old.shape)
        steps = np.clip(np.rint(values[bias.input[0]] * (old / new).astype(np.float64)), -(2**31), 2**31 - 1)
        _put(model, bias.input[0], steps.astype(np.int32))
        _put(model, bias.input[1], new)


def edit_ir(
    path: Path,
    *,
    weights: Weights | None = None,
    ranges_of: Path | None = None,
    halve: bool = False,
    one_scale: bool = False,
) -> None:
    """Change an OpenVINO file in place, as :func:`edit_onnx` does; ``one_scale`` quantizes depthwise layers again."""
    network = core().read_model(path)
    quantizers = [op for op in network.get_ordered_ops() if op.get_type_name() == "FakeQuantize"]
    if weights is not None:
        for op, stored in _ir_layers(network):
            _replace(stored, weights(op.get_friendly_name(), np.array(stored.data)))
    if ranges_of is not None:
        other = core().read_model(ranges_of)
        theirs = {op.get_friendly_name(): op for op in other.get_ordered_ops() if op.get_type_name() == "FakeQuantize"}
        for op in quantizers:
            for index in range(1, 5):
                _replace(_source(op, index), np.array(_source(theirs[op.get_friendly_name()], index).data))
    if halve:
        for op in quantizers:
            if not np.array(_source(op, 1).data).any():
                for index in (2, 4):
                    _replace(_source(op, index), np.array(_source(op, index).data) / np.float32(2))
    if one_scale:
        _ir_one_scale(network)
    save_network(network, path)


def _source(op: Any, index: int) -> Any:
    return op.input(index).get_source_output().get_node()


def _ir_layers(network: Any) -> list[tuple[Any, Any]]:
    """Operators with the constants of their integers."""
    found = []
    for op in network.get_ordered_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution", "MatMul"):
            stored = _source(op, 1)
            while stored.get_type_name() != "Constant":
                stored = _source(stored, 0)
            found.append((op, stored))
    return found


def _replace(constant: Any, array: Array) -> None:
    new = openvino.opset13.constant(np.ascontiguousarray(array))
    new.set_friendly_name(constant.get_friendly_name())
    for port in constant.output(0).get_target_inputs():
        port.replace_source_output(new.output(0))


def _ir_one_scale(network: Any) -> None:
    for op, stored in _ir_layers(network):
        if op.get_type_name() != "GroupConvolution":
            continue
        multiply = _source(op, 1)
        while multiply.get_type_name() != "Multiply":
            multiply = _source(multiply, 0)
        scale = _source(multiply, 1)
        values = np.array(stored.data).astype(np.float64) * np.array(scale.data)
        one = np.abs(values).max() / 127
        _replace(stored, np.rint(values / one).astype(np.int8))
        _replace(scale, np.full((1,) * values.ndim, one, np.float32))
