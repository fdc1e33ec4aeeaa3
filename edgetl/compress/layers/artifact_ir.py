"""Reading NNCF's OpenVINO IR: integer weights behind Convert and Multiply, activations through FakeQuantize."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CompressionError
from edgetl.compress import graph
from edgetl.compress.engine_nncf import WEIGHTED
from edgetl.compress.layers.layout import Floats, Grid, Layout, Pair, Stored, placed
from edgetl.compress.layers.topology import Topology
from edgetl.runtime.ov import core

#: OpenVINO's reader of ONNX writes a layer with a bias as two nodes: the bias's Add has the layer's name.
_BARE = "/WithoutBiases"
#: What NNCF calls the factors by which it evens out the channels of a product (SmoothQuant, Xiao et al. 2023).
_SMOOTHING = "/nncf_smooth_quant"
#: Between the stored integers, or the numbers that are rounded as the file is loaded, and the layer.
_DECODING = ("Convert", "Multiply", "Subtract", "Reshape", "FakeQuantize")


def read(model: Path, topology: Topology) -> Layout:
    """See :func:`edgetl.compress.layers.points.read_layout`; friendly names are those of the ONNX nodes."""
    network = load(model)
    operators = network.get_ordered_ops()
    layers = _matched([op for op in operators if _is_layer(op)], topology)
    stored = {}
    for name, op in layers.items():
        node = topology.nodes[name]
        # What is added to a MatMul is a node of its own, in the exported graph too.
        stored[name] = _stored(op, topology.constants[node.input[1]], node.op_type in graph.BIASED)
    return Layout(stored, tuple(_pairs(operators, _names(layers), topology)))


def load(model: Path) -> Any:
    """Read an IR.

    Raises:
        CompressionError: missing or damaged.
    """
    try:
        return core().read_model(model)
    except RuntimeError as error:
        raise CompressionError(f"OpenVINO cannot read {model}", "export the bundle again") from error


def quantizers(network: Any, topology: Topology) -> list[tuple[Any, str]]:
    """Every FakeQuantize of activations, in order, with the tensor of the exported graph that it quantizes."""
    operators = network.get_ordered_ops()
    return _quantizers(operators, _names(_matched([op for op in operators if _is_layer(op)], topology)), topology)


def operators(network: Any, topology: Topology) -> dict[str, Any]:
    """The weighted layers of a network, by the names of their nodes in the exported graph."""
    return _matched([op for op in network.get_ordered_ops() if _is_layer(op)], topology)


def _is_layer(op: Any) -> bool:
    return op.get_type_name() in WEIGHTED and _constant(_source(op, 1)) is not None


def _matched(operators: list[Any], topology: Topology) -> dict[str, Any]:
    """Node name → operator: by name, and by order for those that OpenVINO named after an output of the model."""
    by_name = {op.get_friendly_name().removesuffix(_BARE): op for op in operators}
    wanted = [node.name for node in topology.weighted()]
    found = {name: by_name[name] for name in wanted if name in by_name}
    left = [op for op in operators if op not in found.values()]
    for name, op in zip([name for name in wanted if name not in found], left, strict=False):
        found[name] = op
    return found


def _source(op: Any, index: int) -> Any:
    return op.input(index).get_source_output().get_node()


def _constant(op: Any) -> Any | None:
    """The constant that a chain of decoding operators starts from; None if it starts from anything else."""
    while op.get_type_name() in _DECODING:
        op = _source(op, 0)
    return op if op.get_type_name() == "Constant" else None


def _evaluate(op: Any) -> npt.NDArray[np.float32]:
    kind = op.get_type_name()
    if kind == "Constant":
        return np.asarray(op.data)
    first = _evaluate(_source(op, 0))
    if kind == "Convert":
        return np.asarray(first, np.float32)
    if kind == "Reshape":
        return first.reshape([int(size) for size in op.output(0).get_shape()])
    if kind == "FakeQuantize":
        return _rounded(op, first)
    second = _evaluate(_source(op, 1))
    return np.asarray(first * second if kind == "Multiply" else first - second, np.float32)


def _rounded(op: Any, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """As OpenVINO defines FakeQuantize."""
    low, high, out_low, out_high = (np.asarray(_evaluate(_source(op, index)), np.float32) for index in (1, 2, 3, 4))
    steps = int(op.get_attributes()["levels"]) - 1
    width = high - low
    share = np.round((np.clip(values, low, high) - low) / np.where(width > 0, width, 1) * steps) / steps
    return np.asarray(share * (out_high - out_low) + out_low, np.float32)


def _is_rounded(op: Any) -> bool:
    """Whether a chain of decoding operators holds one that rounds."""
    while op.get_type_name() in _DECODING:
        if op.get_type_name() == "FakeQuantize":
            return True
        op = _source(op, 0)
    return False


def _stored(op: Any, reference: npt.NDArray[Any], biased: bool) -> Stored:
    decoded, constant = _source(op, 1), _constant(_source(op, 1))
    bias = _bias(op) if biased else None
    integer = constant is not None and constant.get_output_element_type(0).get_type_name() in ("i8", "u8")
    if not integer and not _is_rounded(decoded):
        return Stored(None, None, bias)
    weight = placed(_unsmoothed(op, _evaluate(decoded)), reference)
    if weight is None:
        raise CompressionError(f"{op.get_friendly_name()} has weights of another size", "give the model it is made of")
    while decoded.get_type_name() == "Reshape":
        decoded = _source(decoded, 0)
    scales = int(np.prod(_source(decoded, 1).get_output_shape(0)))
    return Stored(weight, scales > 1 or 1 in reference.shape[:2], bias)


def _smoothing(quantizer: Any) -> tuple[Any, Floats | None]:
    """What a FakeQuantize quantizes, and by which factors each channel of it is multiplied before."""
    source = _source(quantizer, 0)
    if not source.get_friendly_name().endswith(_SMOOTHING):
        return source, None
    return _source(source, 0), np.asarray(_source(source, 1).data, np.float32).reshape(-1)


def _unsmoothed(op: Any, weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Weights as they act on what the layer of the exported graph reads: its channels' factors multiplied in."""
    quantizer = _source(op, 0)
    factors = _smoothing(quantizer)[1] if quantizer.get_type_name() == "FakeQuantize" else None
    if factors is None or op.get_type_name() != "MatMul":
        return weight
    return weight * (factors if op.get_attributes()["transpose_b"] else factors[:, None])


def _bias(op: Any) -> Floats | None:
    readers = [port.get_node() for port in op.output(0).get_target_inputs()]
    if len(readers) != 1 or readers[0].get_type_name() != "Add" or _constant(_source(readers[0], 1)) is None:
        return None
    return np.asarray(_evaluate(_source(readers[0], 1)), np.float32).reshape(-1)


def _names(layers: Mapping[str, Any]) -> Callable[[Any], str]:
    """From an operator to the name of its ONNX node."""
    renamed = {op.get_friendly_name(): name for name, op in layers.items()}

    def name_of(op: Any) -> str:
        friendly = str(op.get_friendly_name())
        return renamed.get(friendly, friendly.removesuffix(_BARE))

    return name_of


def _quantizers(operators: Sequence[Any], name_of: Callable[[Any], str], topology: Topology) -> list[tuple[Any, str]]:
    found = []
    for op in operators:
        maker = topology.nodes.get(name_of(_smoothing(op)[0])) if op.get_type_name() == "FakeQuantize" else None
        if maker is not None and maker.output[0] in topology.readers:
            found.append((op, maker.output[0]))
    return found


def _pairs(operators: Sequence[Any], name_of: Callable[[Any], str], topology: Topology) -> list[Pair]:
    present = {name_of(op) for op in operators}
    pairs = []
    for op, tensor in _quantizers(operators, name_of, topology):
        siblings = [port.get_node() for port in _smoothing(op)[0].output(0).get_target_inputs()]
        plain = [other for other in siblings if not _quantizes(other)]
        through = {name_of(port.get_node()) for port in op.output(0).get_target_inputs()}
        readers = {node.name for node in topology.readers[tensor]}
        # A reader that is gone, fused into another operator, reads what all the others read.
        gone = set() if plain else readers - present
        pairs.append(Pair(tensor, frozenset(readers & through | gone), _grid(op)))
    return pairs


def _quantizes(op: Any) -> bool:
    return bool(op.get_type_name() == "FakeQuantize" or op.get_friendly_name().endswith(_SMOOTHING))


def _grid(op: Any) -> Grid:
    low, high = (np.asarray(_evaluate(_source(op, index)), np.float64).reshape(-1) for index in (3, 4))
    factors = _smoothing(op)[1]
    axis = 1 if factors is None else -1
    if factors is not None:
        low, high = low / factors, high / factors
    ends = tuple((float(a), float(b)) for a, b in zip(low, high, strict=True)) if low.size > 1 else ()
    return Grid(float(low.min()), float(high.max()), int(op.get_attributes()["levels"]), ends, axis)
