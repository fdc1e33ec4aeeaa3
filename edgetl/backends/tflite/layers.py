"""Convolutions, products with weights and pooling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.backends.tflite.graph import Grid
from edgetl.backends.tflite.lowering import Lowering, attributes, refused


@dataclass(frozen=True)
class _Window:
    """A window that slides over (H, W): sizes, and rows and columns added (before, after) on both axes."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]

    def same(self, size: Sequence[int]) -> bool:
        """Whether the padding is what TensorFlow calls SAME on an image of this size."""
        return all(
            (before, after) == _same(size[axis], self.stride[axis], (self.kernel[axis] - 1) * self.dilation[axis] + 1)
            for axis, (before, after) in enumerate(self.pads)
        )


def _same(size: int, stride: int, reach: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _window(node: Any, kernel: Sequence[int], size: Sequence[int]) -> _Window:
    given = attributes(node)
    if len(kernel) != 2:
        raise refused(node, f"over {len(kernel)} axes")
    stride, dilation = (tuple(given.get(key, (1, 1))) for key in ("strides", "dilations"))
    wanted = given.get("auto_pad", b"NOTSET")
    if wanted == b"SAME_UPPER":
        ends = [_same(size[i], stride[i], (kernel[i] - 1) * dilation[i] + 1) for i in range(2)]
    elif wanted in (b"NOTSET", b"VALID"):
        top, left, bottom, right = given.get("pads", (0, 0, 0, 0))
        ends = [(top, bottom), (left, right)]
    else:
        raise refused(node, f"with the padding {wanted.decode()}")
    if given.get("ceil_mode"):
        raise refused(node, "with sizes rounded up")
    return _Window(tuple(kernel), stride, dilation, (ends[0], ends[1]))  # type: ignore[arg-type]


def _slid(state: Lowering, source: int, window: _Window, fill: float | None = None) -> tuple[int, dict[str, int]]:
    """The tensor that a window slides over, padded where LiteRT's own ways of padding differ, and its options.

    ``fill`` is the value to pad with where it is not zero.
    """
    kinds = state.graph.schema.Padding
    shape = state.graph.shape(source)
    padding = kinds.VALID
    if window.pads != ((0, 0), (0, 0)):
        if window.same(shape[1:3]):
            padding = kinds.SAME
        else:
            source = _padded(state, source, window.pads, fill)
    return source, {"padding": padding, "strideH": window.stride[0], "strideW": window.stride[1]}


def _padded(state: Lowering, source: int, pads: Sequence[tuple[int, int]], fill: float | None) -> int:
    tensor, shape = state.graph.tensors[source], state.graph.shape(source)
    ends = np.array([(0, 0), *pads, (0, 0)], np.int32)
    wide = tuple(int(size + ends[axis].sum()) for axis, size in enumerate(shape))
    integer = tensor.type == state.graph.schema.TensorType.INT8
    kind = np.dtype(np.int8 if integer else np.float32)
    grid = Grid(tensor.quantization.scale, tensor.quantization.zeroPoint) if integer else None
    name = f"{tensor.name.decode()}/padded{len(state.graph.tensors)}"
    output = state.graph.tensor(name, wide, kind, grid)
    inputs = [source, state.graph.constant(f"{name}/ends", ends)]
    if fill is None:
        return state.graph.operator("PAD", inputs, output, "PadOptions")
    value = np.array([-128], np.int8) if integer else np.array([fill], np.float32)
    return state.graph.operator(
        "PADV2", [*inputs, state.graph.constant(f"{name}/fill", value, grid)], output, "PadV2Options"
    )


def _weights(state: Lowering, name: str, order: Sequence[int], axis: int, whole: bool) -> int:
    if name not in state.constants:
        raise refused(state.readers[name][0], "with computed weights")
    grid = state.grids.get(name)
    if not whole or grid is None:
        return state.graph.constant(name, state.real(name).transpose(order))
    return state.graph.constant(name, state.constants[name].transpose(order), Grid(grid.scale, grid.zero, axis))


def _bias(state: Lowering, node: Any, channels: int, whole: bool) -> int:
    given = node.input[2] if len(node.input) > 2 else ""
    name = f"{node.name}/bias"
    if not whole:
        real = np.broadcast_to(state.real(given), channels) if given else np.zeros(channels)
        return state.graph.constant(name, real.astype(np.float32))
    scale = state.grids[node.input[0]].scale * state.grids[node.input[1]].scale
    grid = Grid(scale, np.zeros(scale.shape, np.int64))
    if given in state.grids:
        return state.graph.constant(name, state.constants[given], grid)
    steps = state.real(given).astype(np.float64) / scale if given else np.zeros(channels)
    return state.graph.constant(name, np.rint(steps).astype(np.int32), grid)


def _convolution(state: Lowering, node: Any) -> None:
    source, weight = node.input[:2]
    outputs, depth, *kernel = state.shapes[weight]
    groups, channels = attributes(node).get("group", 1), state.shapes[source][1]
    window = _window(node, kernel, state.shapes[source][2:])
    activation, name = state.activation(node)
    target = state.rounded(name)
    whole = target is not None and source in state.integers and weight in state.grids
    alone = groups > 1 and groups == channels and depth == 1
    order, axis = ((1, 2, 3, 0), 3) if alone else ((0, 2, 3, 1), 0)
    given = state.integers[source] if whole else state.in_float(source)
    given, options = _slid(state, given, window)
    inputs = [given, _weights(state, weight, order, axis, whole), _bias(state, node, outputs, whole)]
    dilation = {"dilationHFactor": window.dilation[0], "dilationWFactor": window.dilation[1]}
    settings = {**options, **dilation, "fusedActivationFunction": activation}
    output = state.write(target if whole and target else name, rounded=whole)
    if alone:
        settings["depthMultiplier"] = outputs // channels
        state.graph.operator("DEPTHWISE_CONV_2D", inputs, output, "DepthwiseConv2DOptions", **settings)
    else:
        state.graph.operator("CONV_2D", inputs, output, "Conv2DOptions", **settings)


def _product(state: Lowering, node: Any) -> None:
    """A Gemm, or a MatMul with constant weights.

    Where its result stays in float (that of the last layer: 256 steps would make ties among logits), LiteRT rounds the
    float input to 8 bits by each row's own range, multiplies integers, and scales the sums.
    """
    source, weight = node.input[:2]
    given = attributes(node)
    if given.get("transA") or given.get("alpha", 1.0) != 1.0 or given.get("beta", 1.0) != 1.0:
        raise refused(node, "with factors or a transposed input")
    if len(state.shapes[weight]) != 2 or len(state.shapes[source]) > 3:
        raise refused(node, "of more than two axes")
    order = (0, 1) if given.get("transB") else (1, 0)
    outputs = state.shapes[weight][order[0]]
    activation, name = state.activation(node)
    target = state.rounded(name)
    whole = target is not None and source in state.integers and weight in state.grids
    inputs = [
        state.integers[source] if whole else state.in_float(source),
        _weights(state, weight, order, 0, True),
        _bias(state, node, outputs, whole),
    ]
    settings = {"keepNumDims": len(state.shapes[source]) > 2, "asymmetricQuantizeInputs": not whole}
    output = state.write(target if whole and target else name, rounded=whole)
    state.graph.operator(
        "FULLY_CONNECTED", inputs, output, "FullyConnectedOptions", fusedActivationFunction=activation, **settings
    )


def _pool(state: Lowering, node: Any) -> None:
    source, given = node.input[0], attributes(node)
    window = _window(node, given["kernel_shape"], state.shapes[source][2:])
    largest = node.op_type == "MaxPool"
    padded = window.pads != ((0, 0), (0, 0))
    if window.dilation != (1, 1) or len(node.output) > 1:
        raise refused(node, "with a dilation or indices")
    if not largest and padded and (given.get("count_include_pad") or not window.same(state.shapes[source][2:])):
        raise refused(node, "over padded values")
    target = state.rounded(node.output[0])
    whole = target is not None and source in state.integers and state.grids[source].same(state.grids[target])
    lowest = float(np.finfo(np.float32).min) if largest else None
    tensor, options = _slid(state, state.integers[source] if whole else state.in_float(source), window, lowest)
    settings = {**options, "filterHeight": window.kernel[0], "filterWidth": window.kernel[1]}
    output = state.write(target if whole and target else node.output[0], rounded=whole)
    state.graph.operator("MAX_POOL_2D" if largest else "AVERAGE_POOL_2D", [tensor], output, "Pool2DOptions", **settings)


def _mean(state: Lowering, node: Any) -> None:
    source, given = node.input[0], attributes(node)
    axes: npt.ArrayLike
    if node.op_type == "GlobalAveragePool":
        axes, keep = (2, 3), True
    else:
        named = len(node.input) > 1 and node.input[1]
        axes = state.constants[node.input[1]] if named else given.get("axes", ())
        keep = bool(given.get("keepdims", 1))
    rank = len(state.shapes[source])
    wanted = sorted(int(axis) % rank for axis in np.atleast_1d(axes))
    if state.turned(source):
        if wanted != [2, 3]:
            raise refused(node, f"over the axes {wanted}")
        wanted = [1, 2]
    target = state.rounded(node.output[0])
    whole = target is not None and source in state.integers
    tensor = state.integers[source] if whole else state.in_float(source)
    inputs = [tensor, state.graph.constant(f"{node.name}/axes", np.array(wanted, np.int32))]
    output = state.write(target if whole and target else node.output[0], rounded=whole)
    state.graph.operator("MEAN", inputs, output, "ReducerOptions", keepDims=keep)


OPERATORS: Mapping[str, Callable[[Lowering, Any], None]] = {
    "AveragePool": _pool,
    "Conv": _convolution,
    "Gemm": _product,
    "GlobalAveragePool": _mean,
    "MatMul": _product,
    "MaxPool": _pool,
    "ReduceMean": _mean,
}
