"""Writing ONNX graphs: a builder that names what it adds, and a grid as floating-point arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.extras import require
from edgetl.compress.layers.layout import Grid
from edgetl.runtime.ort import set_arithmetic

#: Written before every tensor that is added, so that none collides with the model's own.
_PREFIX = "edgetl:"
#: Quantizes the weights of layers that a recipe left in float between quantized neighbours.
REQUANTIZER = "WeightBiasQuantization"


@dataclass
class Builder:
    """Adds nodes to a copy of a model.

    Attributes:
        model: the protobuf that grows.
        count: nodes and constants added.
    """

    model: Any
    count: int = 0

    def __post_init__(self) -> None:
        self._onnx = require("onnx", "measuring layers")
        model = self._onnx.ModelProto()
        model.CopyFrom(self.model)
        self.model = model

    def constant(self, value: npt.ArrayLike, kind: Any = np.float32) -> str:
        """Add an initializer; returns its name."""
        name = self._name()
        self.model.graph.initializer.append(self._onnx.numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        name = self._name()
        self.model.graph.node.append(self._onnx.helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def like(self, node: Any, *inputs: str) -> str:
        """Add a node with another's operator and attributes; returns its output's name."""
        name = self._name()
        added = self._onnx.helper.make_node(node.op_type, inputs, [name], name=name)
        added.attribute.extend(node.attribute)
        self.model.graph.node.append(added)
        return name

    def input(self, name: str, kind: Any, shape: list[int]) -> str:
        """Declare a graph input."""
        element = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        self.model.graph.input.append(self._onnx.helper.make_tensor_value_info(name, element, shape))
        return name

    def expose(self, tensors: list[str], kind: Any = np.float32) -> None:
        """Make tensors of one type the graph's only outputs."""
        element = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        del self.model.graph.output[:]
        for name in tensors:
            self.model.graph.output.append(self._onnx.helper.make_tensor_value_info(name, element, None))

    def snapped(self, x: str, grid: Grid, rank: int) -> tuple[str, str, str]:
        """Round a tensor to a grid: (rounded step number, exact step number, rounded value)."""
        step, offset, first, last = grid.arrays(rank)
        moved = self.node("Sub", x, self.constant(offset)) if offset.any() else x
        exact = self.node("Div", moved, self.constant(step))
        above = self.node("Max", self.node("Round", exact), self.constant(first))
        rounded = self.node("Min", above, self.constant(last))
        value = self.node("Mul", rounded, self.constant(step))
        return rounded, exact, self.node("Add", value, self.constant(offset)) if offset.any() else value

    def _name(self) -> str:
        self.count += 1
        return f"{_PREFIX}{self.count}"


def session_of(model: Any, *, plain: bool = False, profile: str = "", threads: int = 0) -> Any:
    """Open a protobuf in ONNX Runtime.

    Args:
        model: of ONNX.
        plain: Q/DQ pairs stay in float, and a graph without any is executed as it stands.
        profile: prefix of a file that kernels are timed in; none without it.
        threads: of one run; all cores by default.
    """
    runtime = require("onnxruntime", "measuring layers")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # A thread that waits for the others of its run takes no core from them, nor from what else is at work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    content = model.SerializeToString()
    set_arithmetic(options, content if plain else None)
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return runtime.InferenceSession(
        content, options, providers=["CPUExecutionProvider"], disabled_optimizers=[REQUANTIZER]
    )
