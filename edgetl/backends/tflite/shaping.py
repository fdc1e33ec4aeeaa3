"""Operators that change a tensor's type, shape or order of axes, and no value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgetl.backends.tflite.lowering import TO_CHANNELS_FIRST, TO_CHANNELS_LAST, Lowering, attributes, refused


def _cast(state: Lowering, node: Any) -> None:
    source, output = node.input[0], node.output[0]
    if source in state.integers or source not in state.floats:
        raise refused(node, "of anything but the image")
    if state.graph.tensors[state.floats[source]].type != state.graph.schema.TensorType.UINT8:
        state.alias(source, output)
        return
    if source in state.plain:
        state.plain.add(output)
    state.graph.operator("CAST", [state.floats[source]], state.write(output), "CastOptions")


def _transpose(state: Lowering, node: Any) -> None:
    source, output, order = node.input[0], node.output[0], tuple(attributes(node)["perm"])
    if len(order) != 4 or order != (TO_CHANNELS_LAST if state.turned(source) else TO_CHANNELS_FIRST):
        raise refused(node, f"by {order}")
    # The same values in the same order: only what ONNX calls the axes differs.
    turned = state.turned(source)
    state.alias(source, output)
    (state.plain.add if turned else state.plain.discard)(output)


def _reshape(state: Lowering, node: Any) -> None:
    source, output = node.input[0], node.output[0]
    before, after = state.shapes[source], state.shapes[output]
    # One channel, or one place: the values stand in the same order whichever comes first.
    if len(after) == 4 and after[2:] != (1, 1) and after[1] != 1:
        raise refused(node, f"to {after}")
    if len(before) == 4 and not state.turned(source):
        raise refused(node, "of an image that is not transposed yet")
    integer = source in state.integers
    tensor = state.integers[source] if integer else state.in_float(source)
    grid = state.grids[source] if integer else None
    if len(before) == 4 and min(before[1], before[2] * before[3]) > 1:
        tensor = state.transposed(tensor, source, TO_CHANNELS_FIRST, grid)
    made = state.graph.tensor(output, state.stored(output), np.int8 if integer else np.float32, grid)
    (state.integers if integer else state.floats)[output] = made
    if grid is not None:
        state.grids[output] = grid
    shape = np.array(state.stored(output), np.int32)
    inputs = [tensor, state.graph.constant(f"{node.name}/shape", shape)]
    state.graph.operator("RESHAPE", inputs, made, "ReshapeOptions", newShape=shape)


def _identity(state: Lowering, node: Any) -> None:
    state.alias(node.input[0], node.output[0])


def _split(state: Lowering, node: Any) -> None:
    """A matrix into parts of its columns, such as the outputs of several tasks: a slice for each."""
    source, given = node.input[0], attributes(node)
    rows, *columns = state.shapes[source]
    if len(columns) != 1 or given.get("axis", 0) not in (1, -1):
        raise refused(node, f"of {state.shapes[source]} along axis {given.get('axis', 0)}")
    tensor, first = state.in_float(source), 0
    for output in node.output:
        width = state.shapes[output][1]
        places = (("begin", (0, first)), ("size", (rows, width)))
        ends = [state.graph.constant(f"{output}/{name}", np.array(at, np.int32)) for name, at in places]
        state.graph.operator("SLICE", [tensor, *ends], state.write(output), "SliceOptions")
        first += width


OPERATORS: Mapping[str, Callable[[Lowering, Any], None]] = {
    "Cast": _cast,
    "Dropout": _identity,
    "Flatten": _reshape,
    "Identity": _identity,
    "Reshape": _reshape,
    "Split": _split,
    "Squeeze": _reshape,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
