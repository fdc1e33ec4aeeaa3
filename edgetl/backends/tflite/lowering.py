"""What is known while an ONNX graph is converted: which tensor exists in which form, and what may be merged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.backends.tflite.graph import Grid, TfliteGraph
from edgetl.base.errors import BackendError
from edgetl.base.extras import require

TO_CHANNELS_FIRST = (0, 3, 1, 2)
TO_CHANNELS_LAST = (0, 2, 3, 1)


@dataclass
class Lowering:
    """A conversion under way. Names are ONNX's, numbers LiteRT's tensors.

    Attributes:
        graph: what is being written.
        constants: initializers, and quantized ones also by the name of their dequantized values.
        shapes: in ONNX's order of axes.
        readers: tensor → the nodes that read it.
        outputs: of the whole graph.
        grids: quantization of int8 tensors, of those still to be written too, and of quantized constants.
        floats, integers: tensor → its float32 (the image: uint8) or int8 form.
        plain: tensors stored in ONNX's order of axes whatever their rank: an image, and what is made of it before it is
            transposed.
        merged: outputs of activations that the operator before them applies.
    """

    graph: TfliteGraph
    constants: dict[str, npt.NDArray[Any]]
    shapes: dict[str, tuple[int, ...]]
    readers: dict[str, list[Any]]
    outputs: frozenset[str]
    grids: dict[str, Grid] = field(default_factory=dict)
    floats: dict[str, int] = field(default_factory=dict)
    integers: dict[str, int] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)
    merged: set[str] = field(default_factory=set)

    def stored(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor as it is stored."""
        shape = self.shapes[name]
        return tuple(shape[axis] for axis in TO_CHANNELS_LAST) if self.turned(name) else shape

    def turned(self, name: str) -> bool:
        """Whether a tensor is (n, C, H, W) in ONNX and (n, H, W, C) here."""
        return len(self.shapes[name]) == 4 and name not in self.plain

    def in_float(self, name: str) -> int:
        """A computed tensor's float form, dequantized if need be."""
        if name not in self.floats:
            if name not in self.integers:
                raise BackendError(f"{name} is read where a computed tensor is needed", "export the model again")
            made = self.graph.tensor(f"{name}/float", self.stored(name), np.float32)
            self.floats[name] = self.graph.operator("DEQUANTIZE", [self.integers[name]], made, "DequantizeOptions")
        return self.floats[name]

    def real(self, name: str) -> npt.NDArray[np.float32]:
        """A constant's real numbers, in ONNX's order of axes, whether it is quantized or not."""
        value, grid = self.constants[name], self.grids.get(name)
        if grid is None:
            return value.astype(np.float32)
        shape = [1] * value.ndim
        if value.ndim:
            shape[grid.axis] = -1
        scaled = (value.astype(np.float64) - grid.zero.reshape(shape)) * grid.scale.reshape(shape)
        return np.asarray(scaled, np.float32)

    def rounded(self, name: str) -> str | None:
        """The int8 tensor that a computed one becomes at once, if nothing reads it before it is rounded."""
        following = self.readers.get(name, [])
        alone = name not in self.outputs and len(following) == 1 and following[0].op_type == "QuantizeLinear"
        return str(following[0].output[0]) if alone else None

    def write(self, name: str, *, rounded: bool = False) -> int:
        """A new tensor for an operator to write, in float or in int8."""
        grid = self.grids[name] if rounded else None
        made = self.graph.tensor(name, self.stored(name), np.int8 if rounded else np.float32, grid)
        (self.integers if rounded else self.floats)[name] = made
        return made

    def alias(self, source: str, name: str) -> None:
        """Give a tensor a second name."""
        for forms in (self.floats, self.integers):
            if source in forms:
                forms[name] = forms[source]
        if source in self.grids:
            self.grids[name] = self.grids[source]
        if source in self.plain:
            self.plain.add(name)

    def transposed(self, tensor: int, name: str, order: tuple[int, ...], grid: Grid | None = None) -> int:
        """A rank-4 tensor's values in another order of axes; ``name`` is the tensor's in ONNX."""
        axes = self.graph.constant(f"{name}/order", np.array(order, np.int32))
        shape = self.shapes[name] if order == TO_CHANNELS_FIRST else self.stored(name)
        made = self.graph.tensor(f"{name}/turned", shape, np.int8 if grid else np.float32, grid)
        return self.graph.operator("TRANSPOSE", [tensor, axes], made, "TransposeOptions")

    def activation(self, node: Any) -> tuple[int, str]:
        """The activation that follows a node and can be part of it, and the tensor that both together write."""
        name = node.output[0]
        following = self.readers.get(name, [])
        kinds = self.graph.schema.ActivationFunctionType
        if name in self.outputs or len(following) != 1:
            return kinds.NONE, name
        limits = clip_limits(self, following[0])
        known = {(0.0, np.inf): kinds.RELU, (0.0, 6.0): kinds.RELU6, (-1.0, 1.0): kinds.RELU_N1_TO_1}
        if limits not in known:
            return kinds.NONE, name
        self.merged.add(following[0].output[0])
        return known[limits], str(following[0].output[0])


def clip_limits(state: Lowering, node: Any) -> tuple[float, float] | None:
    """Between which values a Relu or Clip keeps what it reads; None for any other node."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type != "Clip":
        return None
    low, high = [*node.input[1:], "", ""][:2]
    return float(state.real(low)) if low else -np.inf, float(state.real(high)) if high else np.inf


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes by name."""
    helper = require("onnx.helper", "compiling for LiteRT")
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def refused(node: Any, form: str = "") -> BackendError:
    """The error for an operator, or a ``form`` of it ("with a dilation"), that is not converted."""
    what = f"{node.op_type} {form}".strip()
    return BackendError(f"edgetl converts no {what} to LiteRT ({node.name})", "choose a target of another runtime")
