"""Reading quantized ONNX: which weights are stored in integers, which activations pass through a pair."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CompressionError
from edgetl.compress import graph
from edgetl.compress.engine_dynamic import DYNAMIC, PRODUCT
from edgetl.compress.layers.layout import Floats, Grid, Layout, Pair, Stored, placed
from edgetl.compress.layers.topology import Topology, constants

#: What ONNX Runtime's dynamic quantizer appends to the names of the weights that it stores.
STORED = "_quantized"


def read(model: Path, topology: Topology) -> Layout:
    """See :func:`edgetl.compress.layers.points.read_layout`.

    Where activations are quantized dynamically they have no grid to tell of. Nodes keep their names when ONNX Runtime
    quantizes. Activations that it folds into the operator before them vanish, and the operator then writes the
    activation's tensor, which keeps its name too.
    """
    loaded = graph.load(model)
    values = constants(loaded)
    makers = {name: node for node in loaded.graph.node for name in node.output}
    wanted = topology.weighted()
    found = {node.name: same for node in wanted if (same := _counterpart(loaded, node)) is not None}
    pairs = _pairs(loaded, topology, values)
    if len(found) < len(wanted) and (ordered := _in_order(loaded, wanted, values, makers)):
        found = {node.name: same for node, same in zip(wanted, ordered, strict=True)}
        pairs = [pair for node in wanted if (pair := _read_by(found[node.name], node, values, makers)) is not None]
    layers = {
        node.name: _stored(found[node.name], node, topology, values, makers) for node in wanted if node.name in found
    }
    present = frozenset(node.name for node in loaded.graph.node)
    return Layout(layers, tuple(pairs), present)


def _in_order(loaded: Any, wanted: Sequence[Any], values: Any, makers: Any) -> list[Any]:
    """The layers of a file that calls them otherwise, if they are as many, of the same kinds and as far folded."""

    def fixed(name: str) -> bool:
        maker = makers.get(name)
        return name in values or (
            maker is not None and maker.op_type == "DequantizeLinear" and maker.input[0] in values
        )

    nodes = loaded.graph.node
    own = [node for node in nodes if node.op_type in graph.WEIGHTED and len(node.input) > 1 and fixed(node.input[1])]
    if [node.op_type for node in own] != [node.op_type for node in wanted]:
        return []
    # The preprocessing may hold one, before the first layer.
    behind = itertools.dropwhile(lambda node: node != own[0], nodes)
    return own if all(node.op_type != "BatchNormalization" for node in behind) else []


def _read_by(found: Any, node: Any, values: Any, makers: Any) -> Pair | None:
    """The grid of what one layer reads, under the name that the exported graph has for it."""
    dequantize = makers.get(found.input[0])
    quantize = makers.get(dequantize.input[0]) if dequantize is not None and dequantize.input else None
    if quantize is None or (dequantize.op_type, quantize.op_type) != ("DequantizeLinear", "QuantizeLinear"):
        return None
    return Pair(node.input[0], frozenset({node.name}), _grid(quantize, values))


def _counterpart(loaded: Any, node: Any) -> Any | None:
    named = {(other.name, other.op_type): other for other in loaded.graph.node}
    # What quantizes dynamically makes a MatMul and an Add of every Gemm.
    for name, operator in ((node.name, node.op_type), (node.name + PRODUCT, "MatMul")):
        found = named.get((name, operator)) or named.get((name + DYNAMIC, "MatMulInteger"))
        if found is not None:
            return found
    same = [other for other in loaded.graph.node if other.op_type == node.op_type]
    return next((other for other in same if other.input[1].startswith(node.input[1])), None)


def _stored(found: Any, node: Any, topology: Topology, values: Any, makers: Any) -> Stored:
    reference = topology.constants[node.input[1]]
    weight, per_channel = None, None
    if found.op_type == "MatMulInteger":
        weight, scales = _multiplied(found, values)
        bias = node.input[2] if len(node.input) > 2 else ""
        return Stored(placed(weight, reference), scales > 1, values.get(bias))
    dequantize = makers.get(found.input[1])
    if dequantize is not None and dequantize.op_type == "DequantizeLinear" and dequantize.input[0] in values:
        weight = placed(_dequantized(dequantize, values), reference)
        if weight is None:
            raise CompressionError(f"the layer {node.name} has weights of another size", "give the model it is made of")
        scale = values[dequantize.input[1]]
        per_channel = scale.ndim > 0 and (scale.size > 1 or 1 in reference.shape[:2])
    bias = found.input[2] if len(found.input) > 2 else ""
    return Stored(weight, per_channel, _bias(bias, values, makers) if bias else None)


def _multiplied(node: Any, values: Any) -> tuple[Floats, int]:
    """Weights of a product in integers, inputs by outputs, and the number of their scales."""
    stored = values[node.input[1]]
    scale = values[node.input[1].removesuffix(STORED) + "_scale"]
    zero = values[node.input[3]] if len(node.input) > 3 else np.zeros(1)
    return np.asarray((stored.astype(np.float32) - zero.astype(np.float32)) * scale, np.float32), scale.size


def _bias(name: str, values: Any, makers: Any) -> Floats | None:
    if name in values:
        return np.asarray(values[name], np.float32)
    dequantize = makers.get(name)
    if dequantize is None or dequantize.op_type != "DequantizeLinear" or dequantize.input[0] not in values:
        return None
    return _dequantized(dequantize, values)


def _dequantized(node: Any, values: Any) -> Floats:
    stored = values[node.input[0]]
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    scale = _along(values[node.input[1]], axis, stored.ndim)
    zero = _along(values[node.input[2]], axis, stored.ndim) if len(node.input) > 2 and node.input[2] else 0
    return np.asarray((stored.astype(np.float32) - np.asarray(zero, np.float32)) * scale, np.float32)


def _along(array: npt.NDArray[Any], axis: int, rank: int) -> npt.NDArray[Any]:
    if not array.ndim or array.size == 1:
        return array.reshape(())
    return array.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def _pairs(loaded: Any, topology: Topology, values: Any) -> list[Pair]:
    readers: dict[str, list[Any]] = {}
    for node in loaded.graph.node:
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(node)
    present = {node.name for node in loaded.graph.node}
    pairs = []
    for quantize in loaded.graph.node:
        tensor = quantize.input[0] if quantize.op_type == "QuantizeLinear" else ""
        if tensor not in topology.readers:
            continue
        through = [
            reader.name
            for dequantize in readers.get(quantize.output[0], [])
            for reader in readers.get(dequantize.output[0], [])
        ]
        plain = [reader for reader in readers[tensor] if reader.op_type != "QuantizeLinear"]
        names = {node.name for node in topology.readers[tensor]}
        # A reader that is gone, folded or written out as other operators, reads what all the others read.
        gone = set() if plain else names - present
        pairs.append(Pair(tensor, frozenset(names & set(through) | gone), _grid(quantize, values)))
    return pairs


def _grid(quantize: Any, values: Any) -> Grid:
    scale = float(np.asarray(values[quantize.input[1]]).reshape(-1)[0])
    zero = np.asarray(values[quantize.input[2]] if len(quantize.input) > 2 else np.uint8(0)).reshape(-1)[0]
    kind = np.iinfo(zero.dtype)
    return Grid((kind.min - int(zero)) * scale, (kind.max - int(zero)) * scale, kind.max - kind.min + 1)
