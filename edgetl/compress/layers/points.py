"""How a compressed model executes each weighted layer: its weights, and the grid of the values that it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgetl.compress.layers.topology import SAME_VALUES, Topology, module_of, read_topology
from edgetl.errors import CompressionError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """Values that a quantized tensor can take: ``levels`` of them, evenly spaced from ``low`` to ``high``.

    Attributes:
        low, high: ends of the grid; with ``channels``, the lowest and the highest of them.
        levels: how many values there are, 256 for 8 bits.
        channels: (low, high) of each channel along axis 1 where a tensor has a grid for each of them, else empty.
    """

    low: float
    high: float
    levels: int
    channels: tuple[tuple[float, float], ...] = ()

    def arrays(self, rank: int) -> tuple[Floats, Floats, Floats, Floats]:
        """Step, offset, lowest and highest step number, as float32 that broadcast over axis 1 of ``rank`` axes.

        A value becomes ``clip(round((x - offset) / step), lowest, highest) * step + offset``. The offset is 0 where
        zero lies on the grid, so that halves are rounded to even numbers just as integer kernels round them.
        """
        ends = np.array(self.channels or [(self.low, self.high)], np.float64)
        shape = (1, -1, *[1] * (rank - 2)) if self.channels and rank > 1 else ()
        low, high = (ends[:, i].reshape(shape) for i in (0, 1))
        # A channel that never varied has a grid of width 0.
        step = np.maximum((high - low) / (self.levels - 1), 1e-30)
        lowest = low / step
        aligned = np.abs(lowest - np.round(lowest)) < 0.01
        offset = np.where(aligned, 0.0, low)
        first = np.where(aligned, np.round(lowest), 0.0)
        last = first + np.where(high > low, self.levels - 1, 0)
        step_, offset_, first_, last_ = (np.asarray(a, np.float32) for a in (step, offset, first, last))
        return step_, offset_, first_, last_

    def apply(self, x: npt.NDArray[np.floating]) -> Floats:
        """The nearest values of the grid, float32, of an array whose axis 1 is the channel."""
        step, offset, first, last = self.arrays(x.ndim)
        return np.asarray(np.clip(np.round((x - offset) / step), first, last) * step + offset, np.float32)


@dataclass(frozen=True, eq=False)
class Point:
    """A weighted layer as a compressed model executes it.

    Attributes:
        node, operator: name and type in the exported float ONNX.
        module: dotted name of its torch module; "" if unknown.
        macs: multiply-accumulates for one image.
        weight: as executed (dequantized), float32 in the shape and layout of the exported initializer; None if the
            layer was left in float.
        per_channel: whether the weights have a scale for each output channel; None if left in float.
        grid: of the activations that the layer reads; None if they are float.
        source: the tensor of the exported graph that these are.
        producer: node name of the nearest weighted layer upstream of it; "" for the image.
        bias: as executed, float32; None where there is none.
    """

    node: str
    operator: str
    module: str
    macs: int
    weight: Floats | None
    per_channel: bool | None
    grid: Grid | None
    source: str
    producer: str
    bias: Floats | None = None


@dataclass(frozen=True, eq=False)
class Stored:
    """Weights of one layer of an artifact: float32, whether scaled per channel, and its bias (float32) if any.

    ``weight`` is None where it is stored in float.
    """

    weight: Floats | None
    per_channel: bool | None
    bias: Floats | None


@dataclass(frozen=True)
class Pair:
    """A tensor that an artifact quantizes: its name in the exported graph, the nodes that read it so, the grid."""

    tensor: str
    readers: frozenset[str]
    grid: Grid


@dataclass(frozen=True, eq=False)
class Layout:
    """An artifact in the names of the exported graph: weights by node, and every quantized activation."""

    layers: Mapping[str, Stored]
    pairs: tuple[Pair, ...]

    @cached_property
    def grids(self) -> Mapping[tuple[str, str], Grid]:
        """(node, tensor) → the grid through which the node reads the tensor."""
        return {(reader, pair.tensor): pair.grid for pair in self.pairs for reader in pair.readers}


def read_layout(model: Path, topology: Topology) -> Layout:
    """Read how an artifact quantizes.

    Args:
        model: ONNX with QuantizeLinear and DequantizeLinear, or OpenVINO ``.xml`` with FakeQuantize.
        topology: of the float ONNX that it was made from.

    Raises:
        CompressionError: neither of the two, or damaged.
    """
    if model.suffix == ".onnx":
        from edgetl.compress.layers import artifact_onnx

        return artifact_onnx.read(model, topology)
    if model.suffix == ".xml":
        from edgetl.compress.layers import artifact_ir

        return artifact_ir.read(model, topology)
    raise CompressionError(f"{model} tells nothing of its layers", "give the .onnx or .xml that it was compiled from")


def read_points(model: Path, exported: Path) -> tuple[Point, ...]:
    """The weighted layers of a float ONNX file, in order, as a compressed model executes them.

    Args:
        model: ``.onnx`` with Q/DQ, or OpenVINO ``.xml``; a float one gives points without weights and grids.
        exported: the float ONNX file that ``model`` was made from.

    Raises:
        CompressionError: a file is damaged, of another kind, or ``model`` has other layers than ``exported``.
    """
    topology = read_topology(exported)
    layout = read_layout(model, topology)
    found = []
    for node in topology.weighted():
        if node.name not in layout.layers:
            raise CompressionError(f"{model} has no layer {node.name}", f"give the model that was made from {exported}")
        stored = layout.layers[node.name]
        source = node.input[0]
        found.append(
            Point(
                node=node.name,
                operator=node.op_type,
                module=module_of(node),
                macs=topology.macs(node),
                weight=stored.weight,
                per_channel=stored.per_channel,
                grid=_grid(layout, topology, node.name, source),
                source=source,
                producer=topology.producer(source),
                bias=stored.bias,
            )
        )
    return tuple(found)


def _grid(layout: Layout, topology: Topology, reader: str, tensor: str) -> Grid | None:
    channels = topology.shapes.get(tensor, ())[1:2]
    while (reader, tensor) not in layout.grids:
        maker = topology.makers.get(tensor)
        if maker is None or maker.op_type not in SAME_VALUES:
            return None
        reader, tensor = maker.name, maker.input[0]
    grid = layout.grids[reader, tensor]
    # A reshaped tensor may have lost the axis that the grids belong to.
    return grid if (len(grid.channels),) == channels else replace(grid, channels=())


def placed(weight: npt.NDArray[np.floating], reference: npt.NDArray[np.floating]) -> Floats | None:
    """Weights in the layout of ``reference``, of which they are a rounded copy; None if they have another size."""
    if weight.size != reference.size:
        return None
    candidates = [weight.reshape(reference.shape)]
    if weight.ndim == 2 and weight.shape == reference.shape[::-1]:
        candidates.append(weight.T)
    best = min(candidates, key=lambda array: float(((array - reference) ** 2).sum()))
    return np.ascontiguousarray(best, np.float32)
