"""Sums, products, activations and normalisation, value by value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.backends.tflite.graph import Grid
from edgetl.backends.tflite.lowering import TO_CHANNELS_LAST, Lowering, attributes, clip_limits, refused

#: The only output that LiteRT's int8 sigmoid has.
_UNIT = Grid(np.array([1 / 256], np.float32), np.array([-128], np.int64))
#: ONNX operators with two operands; those that LiteRT also has in int8.
_BINARY = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV"}
_IN_INTEGERS = ("Add", "Sub", "Mul")
_UNARY = {"HardSwish": ("HARD_SWISH", "HardSwishOptions"), "Tanh": ("TANH", "")}


def _binary(state: Lowering, node: Any) -> None:
    left, right = node.input
    computed = [name for name in node.input if name not in state.constants]
    if len({len(state.shapes[name]) for name in computed}) > 1:
        raise refused(node, "of tensors of different rank")
    if any(name in state.plain for name in computed):
        state.plain.add(node.output[0])
    activation, name = state.activation(node)
    target = state.rounded(name) if node.op_type in _IN_INTEGERS else None
    whole = target is not None and all(operand in state.integers for operand in node.input)
    if whole:
        inputs = [state.integers[left], state.integers[right]]
    else:
        inputs = [_operand(state, operand, node) for operand in node.input]
    kind = _BINARY[node.op_type]
    output = state.write(target if whole and target else name, rounded=whole)
    state.graph.operator(kind, inputs, output, f"{node.op_type}Options", fusedActivationFunction=activation)


def _operand(state: Lowering, name: str, node: Any) -> int:
    if name not in state.constants:
        return state.in_float(name)
    value = state.real(name)
    if state.turned(node.output[0]):
        value = value.reshape((1,) * (4 - value.ndim) + value.shape).transpose(TO_CHANNELS_LAST)
    return state.graph.constant(f"{node.name}/{name}", value)


def _constant(state: Lowering, name: str, value: npt.ArrayLike) -> int:
    return state.graph.constant(name, np.asarray(value, np.float32))


def _scaled(state: Lowering, kind: str, source: int, value: npt.ArrayLike, output: int, label: str) -> int:
    options = f"{kind.capitalize()}Options" if kind in ("ADD", "MUL") else "MaximumMinimumOptions"
    return state.graph.operator(kind, [source, _constant(state, label, value)], output, options)


def _between(state: Lowering, node: Any, name: str) -> int:
    return state.graph.tensor(f"{node.output[0]}/{name}", state.stored(node.output[0]), np.float32)


def _normalisation(state: Lowering, node: Any) -> None:
    """Batch normalisation with fixed statistics: a product and a sum for each channel."""
    source = node.input[0]
    scale, shift, mean, variance = (state.real(name).astype(np.float64) for name in node.input[1:5])
    if len(state.shapes[source]) == 4 and not state.turned(source):
        raise refused(node, "of an image that is not transposed yet")
    factor = scale / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
    product = _between(state, node, "product")
    _scaled(state, "MUL", state.in_float(source), factor, product, f"{node.name}/factor")
    activation, name = state.activation(node)
    rest = _constant(state, f"{node.name}/shift", shift - mean * factor)
    state.graph.operator("ADD", [product, rest], state.write(name), "AddOptions", fusedActivationFunction=activation)


def _clip(state: Lowering, node: Any) -> None:
    limits = clip_limits(state, node)
    assert limits is not None
    source, names = state.in_float(node.input[0]), {(0.0, np.inf): "RELU", (0.0, 6.0): "RELU6"}
    if limits in names:
        state.graph.operator(names[limits], [source], state.write(node.output[0]))
        return
    raised = _scaled(state, "MAXIMUM", source, limits[0], _between(state, node, "raised"), f"{node.name}/low")
    _scaled(state, "MINIMUM", raised, limits[1], state.write(node.output[0]), f"{node.name}/high")


def _hard_sigmoid(state: Lowering, node: Any) -> None:
    given = attributes(node)
    source = state.in_float(node.input[0])
    slope, offset = given.get("alpha", 0.2), given.get("beta", 0.5)
    line = _scaled(state, "MUL", source, slope, _between(state, node, "line"), f"{node.name}/slope")
    line = _scaled(state, "ADD", line, offset, _between(state, node, "shifted"), f"{node.name}/offset")
    raised = _scaled(state, "MAXIMUM", line, 0.0, _between(state, node, "raised"), f"{node.name}/low")
    _scaled(state, "MINIMUM", raised, 1.0, state.write(node.output[0]), f"{node.name}/high")


def _sigmoid(state: Lowering, node: Any) -> None:
    source, target = node.input[0], state.rounded(node.output[0])
    if source not in state.integers or target is None:
        state.graph.operator("LOGISTIC", [state.in_float(source)], state.write(node.output[0]))
        return
    unit = state.graph.tensor(f"{node.output[0]}/unit", state.stored(node.output[0]), np.int8, _UNIT)
    state.graph.operator("LOGISTIC", [state.integers[source]], unit)
    state.graph.operator("QUANTIZE", [unit], state.write(target, rounded=True), "QuantizeOptions")


def _unary(state: Lowering, node: Any) -> None:
    kind, options = _UNARY[node.op_type]
    state.graph.operator(kind, [state.in_float(node.input[0])], state.write(node.output[0]), options)


OPERATORS: Mapping[str, Callable[[Lowering, Any], None]] = {
    **dict.fromkeys(_BINARY, _binary),
    **dict.fromkeys(_UNARY, _unary),
    "BatchNormalization": _normalisation,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "Relu": _clip,
    "Sigmoid": _sigmoid,
}
