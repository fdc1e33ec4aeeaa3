"""Groups of layers between which a channel can be scaled freely."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.compress import graph
from edgetl.compress.layers.topology import Topology

Weights = dict[str, npt.NDArray[Any]]
#: f(s·x) = s·f(x) for s > 0 in each channel by itself.
_HOMOGENEOUS = (
    "Add", "Sub", "Identity", "Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool",
)  # fmt: skip
_REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceSum")
_RESHAPES = ("Flatten", "Reshape", "Squeeze")


@dataclass(frozen=True)
class Group:
    """Layers joined by tensors whose channels have to be scaled alike.

    Attributes:
        tensors: what is divided by the factors.
        producers: nodes that write the first of them: their output channels are divided.
        readers: nodes that turn the last of them into something else: their input channels are multiplied.
    """

    tensors: tuple[str, ...]
    producers: tuple[Any, ...]
    readers: tuple[Any, ...]

    @property
    def producer_names(self) -> tuple[str, ...]:
        """In the order of the graph."""
        return tuple(node.name for node in self.producers)

    @property
    def reader_names(self) -> tuple[str, ...]:
        """In the order of the graph."""
        return tuple(node.name for node in self.readers)

    def constants(self) -> Iterator[str]:
        """Names of the weights and biases that rescaling changes."""
        for node in self.producers:
            yield from (name for name in node.input[1:3] if name)
        yield from (node.input[1] for node in self.readers)

    def written(self, weights: Weights) -> npt.NDArray[np.float64]:
        """Largest weight magnitude of the producers for each channel."""
        return np.asarray(np.max([_largest(_by_output(n, weights[n.input[1]])) for n in self.producers], axis=0))

    def read(self, weights: Weights) -> npt.NDArray[np.float64]:
        """Largest weight magnitude of the readers for each channel."""
        return np.asarray(np.max([_largest(_by_input(n, weights[n.input[1]])) for n in self.readers], axis=0))

    def rescale(self, weights: Weights, factors: npt.NDArray[np.float64]) -> None:
        """Divide the producers and multiply the readers, in place."""
        for node in self.producers:
            view = _by_output(node, weights[node.input[1]])
            view /= factors.reshape(*view.shape[:2], 1, 1)
            if len(node.input) > 2 and node.input[2]:
                bias = weights[node.input[2]]
                bias /= factors.reshape(bias.shape)
        for node in self.readers:
            view = _by_input(node, weights[node.input[1]])
            view *= factors.reshape(*view.shape[:2], 1, 1)


def _largest(view: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(np.abs(view).max(axis=(2, 3)).reshape(-1))


def _by_output(node: Any, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A view (groups, outputs of a group, inputs of a group, rest) of a layer's weights."""
    if node.op_type in ("Gemm", "MatMul"):
        matrix = weight if graph.attribute(node, "transB", 0) else weight.T
        return matrix[None, :, :, None]
    groups = graph.attribute(node, "group", 1)
    first, second = weight.shape[0] // groups, weight.shape[1]
    view = weight.reshape(groups, first, second, -1)
    return view.transpose(0, 2, 1, 3) if node.op_type == "ConvTranspose" else view


def _by_input(node: Any, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return _by_output(node, weight).transpose(0, 2, 1, 3)


def find_groups(topology: Topology) -> list[Group]:
    """Every group that can be rescaled, in the order of the graph."""
    joined, barred = _Joined(), set()
    layers = [node for node in topology.nodes.values() if _is_layer(node, topology)]
    taken = {node.name for node in layers}
    for node in topology.nodes.values():
        varying = [name for name in (*node.input, *node.output) if name and name not in topology.constants]
        if node.name in taken:
            continue
        if _passes(node, topology):
            for name in varying[1:]:
                joined.union(varying[0], name)
        else:
            barred.update(varying)
    ends = (*topology.model.graph.input, *topology.model.graph.output)
    barred.update(value.name for value in ends)
    closed = {joined.root(name) for name in barred}
    members: dict[str, tuple[list[str], list[Any], list[Any]]] = {}
    for node in layers:
        members.setdefault(joined.root(node.output[0]), ([], [], []))[1].append(node)
        members.setdefault(joined.root(node.input[0]), ([], [], []))[2].append(node)
    for name in (name for node in topology.nodes.values() for name in node.output):
        if joined.root(name) in members:
            members[joined.root(name)][0].append(name)
    return [
        Group(tuple(tensors), tuple(producers), tuple(readers))
        for root, (tensors, producers, readers) in members.items()
        if producers and readers and root not in closed
    ]


class _Joined:
    """Sets of tensors that share their factors."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def root(self, name: str) -> str:
        while (parent := self._parents.get(name, name)) != name:
            name = parent
        return name

    def union(self, one: str, other: str) -> None:
        self._parents[self.root(one)] = self.root(other)


def _is_layer(node: Any, topology: Topology) -> bool:
    """Whether a node's weights and bias are constants that no other node reads."""
    if node.op_type not in graph.WEIGHTED or graph.attribute(node, "transA", 0):
        return False
    own = [name for name in node.input[1:] if name]
    if node.input[0] in topology.constants or not all(name in topology.constants for name in own):
        return False
    if any(len(topology.readers[name]) > 1 for name in own):
        return False
    source, output = topology.shapes.get(node.input[0], ()), topology.shapes.get(node.output[0], ())
    if node.op_type in ("Gemm", "MatMul") and (len(source) != 2 or len(output) != 2):
        return False
    return len(own) < 2 or topology.constants[own[1]].size == output[1]


def _passes(node: Any, topology: Topology) -> bool:
    """Whether a factor on a channel of what a node reads comes out on that channel of what it writes."""
    inputs = [name for name in node.input if name]
    constant = [name in topology.constants for name in inputs]
    before, after = topology.shapes.get(node.input[0], ()), topology.shapes.get(node.output[0], ())
    if len(node.output) != 1 or len(before) < 2 or len(after) < 2 or constant[0]:
        return False
    kind = node.op_type
    if kind in _HOMOGENEOUS:
        return not any(constant) and all(topology.shapes.get(name, ())[:2] == before[:2] for name in inputs)
    if kind in ("Mul", "Div"):
        return constant == [False, True] and before == after
    if kind in _REDUCTIONS:
        return _keeps_channels(node, topology, len(before))
    if kind in _RESHAPES:
        return before[:2] == after[:2] and len(after) == 2 and math.prod(before[2:]) == 1
    return kind == "Pad" and _pads_with_zeros(node, topology, len(before))


def _keeps_channels(node: Any, topology: Topology, rank: int) -> bool:
    axes = topology.constants.get(node.input[1]) if len(node.input) > 1 else graph.attribute(node, "axes", None)
    return axes is not None and all(int(axis) % rank > 1 for axis in axes)


def _pads_with_zeros(node: Any, topology: Topology, rank: int) -> bool:
    pads = topology.constants.get(node.input[1])
    value = topology.constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(())
    plain = len(node.input) < 4 and pads is not None and not (pads[1] or pads[1 + rank])
    return plain and graph.attribute(node, "mode", b"constant") == b"constant" and value is not None and not value.any()
