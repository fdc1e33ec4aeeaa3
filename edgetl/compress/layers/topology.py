"""The exported float graph as layers: weighted nodes, their sizes, and which layer made the tensor that one reads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.extras import require
from edgetl.compress import graph

#: Operators whose output has the values of their input, so that a grid holds for both sides.
SAME_VALUES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "MaxPool", "Dropout")
#: A gate scales a tensor between 0 and 1: the tensor's structure comes from what is gated.
_GATES = ("Sigmoid", "HardSigmoid", "Softmax")


@dataclass(frozen=True, eq=False)
class Topology:
    """An exported float ONNX file, indexed.

    Attributes:
        model: the protobuf.
        nodes: name → node, in order.
        makers: tensor → the node that writes it.
        readers: tensor → nodes that read it.
        constants: initializers and constants by name.
        shapes: tensor → shape with a batch of 1; tensors of unknown shape are missing.
    """

    model: Any
    nodes: Mapping[str, Any]
    makers: Mapping[str, Any]
    readers: Mapping[str, tuple[Any, ...]]
    constants: Mapping[str, npt.NDArray[Any]]
    shapes: Mapping[str, tuple[int, ...]]

    def weighted(self) -> list[Any]:
        """Nodes with a constant weight, in order."""
        return [
            node
            for node in self.nodes.values()
            if node.op_type in graph.WEIGHTED and len(node.input) > 1 and node.input[1] in self.constants
        ]

    def macs(self, node: Any) -> int:
        """Multiply-accumulates of a weighted node for one sample; 0 where a shape is unknown."""
        weight = self.constants[node.input[1]].shape
        output, source = self.shapes.get(node.output[0]), self.shapes.get(node.input[0])
        if output is None or source is None:
            return 0
        if node.op_type == "Conv":
            return math.prod(output) * math.prod(weight[1:])
        if node.op_type == "ConvTranspose":
            return math.prod(source) * math.prod(weight[1:])
        return math.prod(output) * math.prod(weight) // output[-1]

    def producer(self, tensor: str) -> str:
        """Name of the nearest weighted node upstream of a tensor; "" where only the input is."""
        return self._nearest(tensor, _GATES) or self._nearest(tensor, ())

    def _nearest(self, tensor: str, barred: tuple[str, ...]) -> str:
        weighted = [node.name for node in self.weighted()]
        level, seen = [tensor], {tensor}
        while level:
            makers = [self.makers[name] for name in level if name in self.makers]
            found = [node.name for node in makers if node.name in weighted]
            if found:
                # Of two that an Add joins, the later one: the other's tensor came through the residual connection.
                return str(max(found, key=weighted.index))
            level = []
            for name in (name for node in makers if node.op_type not in barred for name in node.input):
                if name not in seen:
                    seen.add(name)
                    level.append(name)
        return ""


def read_topology(exported: Path) -> Topology:
    """Read an exported float ONNX file.

    Raises:
        CompressionError: it cannot be read.
    """
    model = graph.load(exported)
    onnx = require("onnx", "reading ONNX models")
    inferred = onnx.shape_inference.infer_shapes(model)
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        # An optional input that is left out is called "".
        for name in filter(None, dict.fromkeys(node.input)):
            readers.setdefault(name, []).append(node)
    values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    return Topology(
        model,
        {node.name: node for node in model.graph.node},
        {name: node for node in model.graph.node for name in node.output},
        {name: tuple(nodes) for name, nodes in readers.items()},
        constants(model),
        {value.name: _shape(value) for value in values if value.type.tensor_type.HasField("shape")},
    )


def constants(model: Any) -> dict[str, npt.NDArray[Any]]:
    """Initializers of a graph and outputs of its Constant nodes, by name."""
    to_array = require("onnx.numpy_helper", "reading ONNX models").to_array
    found = {tensor.name: np.asarray(to_array(tensor)) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = np.asarray(to_array(node.attribute[0].t))
    return found


def module_of(node: Any) -> str:
    """Dotted name of the torch module that a node came from; "" if it is not known."""
    return next((str(entry.value) for entry in node.metadata_props if entry.key == graph.MODULE), "")


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(size.dim_value if size.HasField("dim_value") else 1 for size in value.type.tensor_type.shape.dim)
