"""How a compressed model executes each weighted layer: its weights, and the grid of the values that it reads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgetl.base.errors import CompressionError
from edgetl.compress.layers.layout import Floats, Grid, Layout
from edgetl.compress.layers.topology import SAME_VALUES, Topology, module_of, read_topology

__all__ = ["Grid", "Point", "read_layout", "read_points"]


@dataclass(frozen=True, eq=False)
class Point:
    """A weighted layer as a compressed model executes it.

    Attributes:
        node, operator: name and type in the exported float ONNX.
        module: dotted name of its torch module; "" if unknown.
        macs: multiply-accumulates for one sample.
        weight: as executed (dequantized), float32 in the shape and layout of the exported initializer; None if the
            layer was left in float.
        per_channel: whether the weights have a scale for each output channel; None if left in float.
        grid: of the activations that the layer reads; None if they are float.
        source: the tensor of the exported graph that these are.
        producer: node name of the nearest weighted layer upstream of it; "" for the input.
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


def read_layout(model: Path, topology: Topology) -> Layout:
    """Read how an artifact quantizes.

    Args:
        model: ONNX with QuantizeLinear and DequantizeLinear, or OpenVINO ``.xml`` with FakeQuantize.
        topology: of the float ONNX that it was made from.

    Raises:
        CompressionError: neither of the two, or damaged.
    """
    try:
        if model.suffix == ".onnx":
            from edgetl.compress.layers import artifact_onnx

            return artifact_onnx.read(model, topology)
        if model.suffix == ".xml":
            from edgetl.compress.layers import artifact_ir

            return artifact_ir.read(model, topology)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        # Other tools quantize in more ways than are read here: by scales that are computed, in blocks, in 4 bits.
        what = f"{model} is quantized in a way that tells nothing of its layers ({type(error).__name__}: {error})"
        raise CompressionError(what, "give a model with constant scales") from error
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
    sizes = topology.shapes.get(tensor, ())
    while (reader, tensor) not in layout.grids:
        maker = topology.makers.get(tensor)
        if maker is None or maker.op_type not in SAME_VALUES:
            return None
        reader, tensor = maker.name, maker.input[0]
    grid = layout.grids[reader, tensor]
    # A reshaped tensor may have lost the axis that the grids belong to.
    kept = len(sizes) > 1 and len(grid.channels) == sizes[grid.axis]
    return grid if kept else replace(grid, channels=())
