"""The linear head of a compressed network: what reaches it, and other weights for it.

A head that was fitted on the float backbone's features does not fit the compressed one's: these are shifted and
stretched, feature by feature, and no setting of the ranges undoes that. Its weights are few, and can be fitted again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.base.parallel import CORES, in_order
from edgetl.compress import graph
from edgetl.compress.batches import fed, filled
from edgetl.compress.layers import artifact_ir
from edgetl.compress.layers.arithmetic import Builder, session_of
from edgetl.compress.layers.taps_ir import compiled
from edgetl.compress.layers.topology import Topology, read_topology
from edgetl.core.tensors import Arrays

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
_ELSEWHERE = "no remedy of its head helps"


@dataclass(frozen=True)
class Head:
    """The last layer of a float ONNX file, a linear one that gives its only output, or all of them side by side.

    Attributes:
        node: its name.
        features: the tensor that it reads.
        weight, bias: names of the initializers.
        transposed: whether ``weight`` is stored as (features, width).
    """

    node: str
    features: str
    weight: str
    bias: str
    transposed: bool


def find_head(topology: Topology) -> Head:
    """The head of a float ONNX file.

    Raises:
        CompressionError: its last layer is no linear one with a bias, or gives not all of its outputs.
    """
    makers = [topology.makers.get(value.name) for value in topology.model.graph.output]
    last = makers[0] if len(makers) == 1 else _divided(topology, makers)
    found = None if last is None else _gemm(topology, last) or _matmul(topology, last)
    if found is None:
        raise CompressionError("the network's last layer is no linear head", _ELSEWHERE)
    return found


def _divided(topology: Topology, makers: Sequence[Any]) -> Any:
    """The node whose one output is split into those of the network; None where there is no such one."""
    first = makers[0]
    alone = first is not None and first.op_type == "Split" and all(maker is first for maker in makers)
    return topology.makers.get(first.input[0]) if alone else None


def _gemm(topology: Topology, node: Any) -> Head | None:
    if node.op_type != "Gemm" or len(node.input) < 3 or not _are_constant(topology, *node.input[1:3]):
        return None
    given = {entry.name: entry for entry in node.attribute}
    plain = all(given[name].f == 1 for name in ("alpha", "beta") if name in given)
    if not plain or ("transA" in given and given["transA"].i):
        return None
    turned = "transB" in given and bool(given["transB"].i)
    return Head(node.name, node.input[0], node.input[1], node.input[2], not turned)


def _matmul(topology: Topology, add: Any) -> Head | None:
    if add.op_type != "Add":
        return None
    for product, bias in (add.input, tuple(reversed(add.input))):
        node = topology.makers.get(product)
        if node is None or node.op_type != "MatMul" or not _are_constant(topology, node.input[1], bias):
            continue
        if topology.constants[node.input[1]].ndim == 2 and topology.constants[bias].ndim == 1:
            return Head(node.name, node.input[0], node.input[1], bias, True)
    return None


def _are_constant(topology: Topology, *names: str) -> bool:
    stored = {tensor.name for tensor in topology.model.graph.initializer}
    return all(name in stored for name in names)


def weights_of(topology: Topology) -> tuple[Floats, Floats]:
    """The head's weight (width, features) and bias (width,), float32.

    Raises:
        CompressionError: as :func:`find_head`.
    """
    head = find_head(topology)
    weight, bias = topology.constants[head.weight], topology.constants[head.bias]
    return (weight.T if head.transposed else weight), bias


def with_head(exported: Path, head: Head, weight: Floats, bias: Floats, out: Path) -> Path:
    """Write a float ONNX file with another head.

    Args:
        exported: the file.
        head: of it.
        weight: float32 (width, features).
        bias: float32 (width,).
        out: the file to write.

    Raises:
        CompressionError: they are of another size.
    """
    model = graph.load(exported)
    new = {head.weight: weight.T if head.transposed else weight, head.bias: bias}
    for tensor in model.graph.initializer:
        if tensor.name in new and tuple(tensor.dims) != new[tensor.name].shape:
            what = f"the head has weights of {list(tensor.dims)}, and those fitted are {list(new[tensor.name].shape)}"
            raise CompressionError(what, _ELSEWHERE)
    return graph.save(_exchanged(model, new), out)


def with_quantized_head(model: Path, exported: Path, out: Path) -> None:
    """Write a Q/DQ file whose head has the weights of a float file, quantized to the grids' kind that it had: nothing
    before the head depends on them.

    Args:
        model: ONNX, quantized from a float file that differs from ``exported`` in the head's weights alone.
        exported: the float ONNX file.
        out: the file to write.

    Raises:
        CompressionError: the file's head is written in another way.
    """
    topology, wanted = read_topology(model), read_topology(exported)
    head = find_head(wanted)
    weight, bias = (wanted.constants[name].astype(np.float64) for name in (head.weight, head.bias))
    node = topology.nodes.get(head.node)
    pair = None if node is None else topology.makers.get(node.input[1])
    if node is None or node.op_type != "Gemm" or pair is None or not _is_stored(topology, pair):
        raise CompressionError(f"{model} has no quantized head that could be exchanged", _ELSEWHERE)
    new, scales = _on_grid(topology, pair, weight)
    old = topology.makers.get(node.input[2])
    if old is None:
        new[node.input[2]] = bias
    elif _is_stored(topology, old):
        # Sums are in steps of the features times those of the weights.
        steps = topology.constants[old.input[1]] / topology.constants[pair.input[1]] * scales
        new[old.input[0]], new[old.input[1]] = np.rint(bias / steps), steps
    else:
        raise CompressionError(f"{model} has no bias in its head that could be exchanged", _ELSEWHERE)
    graph.save(_exchanged(topology.model, new), out)


def _is_stored(topology: Topology, node: Any) -> bool:
    """Whether it is a DequantizeLinear, symmetric about zero, of stored numbers."""
    if node.op_type != "DequantizeLinear" or not _are_constant(topology, *node.input):
        return False
    return len(node.input) < 3 or not topology.constants[node.input[2]].any()


def _on_grid(topology: Topology, pair: Any, weight: Doubles) -> tuple[dict[str, npt.NDArray[Any]], Doubles]:
    """Stored numbers and scales of weights, and the scales."""
    axis = next((entry.i for entry in pair.attribute if entry.name == "axis"), 1)
    scales = topology.constants[pair.input[1]]
    others = tuple(a for a in range(weight.ndim) if a != axis) if scales.size > 1 else None
    largest = np.maximum(np.abs(weight).max(others), np.finfo(np.float32).tiny)
    steps = np.reshape(largest / np.iinfo(topology.constants[pair.input[0]].dtype).max, scales.shape)
    spread = np.expand_dims(steps, others) if others else steps
    return {pair.input[0]: np.rint(weight / spread), pair.input[1]: steps}, steps


def _exchanged(model: Any, new: Mapping[str, npt.NDArray[Any]]) -> Any:
    """The model with other values of initializers, rounded into their types."""
    to_proto = require("onnx.numpy_helper", "writing ONNX models")
    for tensor in model.graph.initializer:
        if tensor.name in new:
            kind = to_proto.to_array(tensor).dtype
            limits = np.iinfo(kind) if kind.kind == "i" else None
            values = np.clip(new[tensor.name], limits.min, limits.max) if limits else new[tensor.name]
            tensor.CopyFrom(to_proto.from_array(np.ascontiguousarray(values, kind), tensor.name))
    return model


def features(model: Path, exported: Path, samples: Iterable[Arrays], *, simulated: bool) -> Floats:
    """What reaches the head of a compressed model, as its runtime computes it.

    Args:
        model: ONNX or OpenVINO ``.xml``.
        exported: the float ONNX file that it was made from.
        samples: the inputs of one each, (1, …) by name.
        simulated: its arithmetic is done in float.

    Returns:
        float32 (n, features), in order.

    Raises:
        CompressionError: there is no linear head, it is not to be found in ``model``, or there is no sample.
    """
    topology = read_topology(exported)
    head = find_head(topology)
    # OpenVINO spreads one inference over the cores, ONNX Runtime is quicker with an inference on each.
    workers = (
        [_open_ir(model, topology, head, simulated)]
        if model.suffix == ".xml"
        else [_open_onnx(model, head, simulated)] * CORES
    )
    seen = [np.asarray(found, np.float32).reshape(1, -1) for found in in_order(workers, samples)]
    if not seen:
        raise CompressionError("there is no sample to fit a head on", _ELSEWHERE)
    return np.concatenate(seen)


def _open_onnx(model: Path, head: Head, simulated: bool) -> Callable[[Arrays], npt.NDArray[Any]]:
    """Read in integers what the file quantizes: nothing then keeps the runtime from fusing."""
    topology = read_topology(model)
    node = topology.nodes.get(head.node)
    tensor = head.features if node is None else node.input[0]
    maker = topology.makers.get(tensor)
    if maker is None:
        raise CompressionError(f"{model} has no layer {head.node}", _ELSEWHERE)
    scale, zero, kind = 1.0, 0, np.dtype(np.float32)
    if maker.op_type == "DequantizeLinear":
        tensor, scale = maker.input[0], float(topology.constants[maker.input[1]])
        zeros = topology.constants[maker.input[2]]
        zero, kind = int(zeros), zeros.dtype
    builder = Builder(topology.model)
    builder.expose([tensor], kind)
    session = session_of(builder.model, plain=simulated, threads=1)

    def run(sample: Arrays) -> npt.NDArray[Any]:
        (values,) = session.run([tensor], fed(sample, session))
        return (np.asarray(values[:1], np.float32) - zero) * scale

    return run


def _open_ir(model: Path, topology: Topology, head: Head, simulated: bool) -> Callable[[Arrays], npt.NDArray[Any]]:
    network = artifact_ir.load(model)
    layer = artifact_ir.operators(network, topology).get(head.node)
    if layer is None:
        raise CompressionError(f"{model} has no layer {head.node}", _ELSEWHERE)
    network.add_outputs([layer.input(0).get_source_output()])
    executed = compiled(network, simulated)
    request, size = executed.create_infer_request(), executed.inputs[0].get_partial_shape()[0]

    def run(sample: Arrays) -> npt.NDArray[Any]:
        whole = filled(sample, size.get_length()) if size.is_static else dict(sample)
        return np.asarray([*request.infer(whole).values()][-1][:1])

    return run
