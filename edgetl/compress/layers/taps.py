"""Two executions of one network, tensor by tensor: where do they part?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.compress import graph
from edgetl.compress.batches import fed
from edgetl.compress.layers.arithmetic import Builder, session_of
from edgetl.compress.layers.topology import Topology, module_of, read_topology
from edgetl.core.tensors import Arrays

Values = Sequence[npt.NDArray[np.floating[Any]]]
#: A ratio is reported no higher than this, in decibels: beyond it both executions agree to float32's last digits.
_LIMIT_DB = 120.0
#: Tensors that agree worse than this come from different arithmetic, not from another order of summation.
SAME_DB = 60.0


@dataclass(frozen=True)
class TensorSqnr:
    """How closely the second of two executions follows the first, at one tensor, the differences before it included.

    Attributes:
        tensor: its name in the files.
        node, module: the weighted layer whose output it is, its activation included where that was folded in.
        sqnr_db: energy of the first execution's values to that of the difference, decibels, at most 120.
        order: position of the layer in the network.
    """

    tensor: str
    node: str
    module: str
    sqnr_db: float
    order: int

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def compare(above: tuple[Path, bool], below: tuple[Path, bool], samples: Iterable[Arrays]) -> tuple[TensorSqnr, ...]:
    """Compare two executions at every weighted layer that both have.

    Where a file quantizes a layer's output, the quantized values are compared: what the next layer reads. In an
    optimised execution they are read as integers, behind QuantizeLinear, where nothing keeps the runtime from fusing.

    Args:
        above, below: ONNX file, and whether to execute it as it is written, without the runtime's optimisations.
        samples: the inputs of one each, (1, …) by name.

    Returns:
        one entry for each layer, the worst first. Differences add up along the network: the cause of a bad tensor
        lies at the first bad one (:func:`first`). Integer kernels and float arithmetic round some halves apart,
        which then spreads: for EfficientNet-Lite0 in ONNX Runtime they agree to 60 dB at layer 7 and to 28 dB at the
        worst.

    Raises:
        CompressionError: the files share no layer, or there is no sample.
    """
    upper, lower = Tapped(*above), Tapped(*below)
    shared = _shared(upper, lower)
    if not shared:
        raise CompressionError(f"{above[0]} and {below[0]} share no layer", "compare two stages of one export")
    upper.open(shared)
    lower.open(shared)
    ratios = Ratios(len(shared))
    for sample in samples:
        ratios.add(upper.run(sample), lower.run(sample))
    decibels = ratios.decibels()
    found = [
        TensorSqnr(tensor, *upper.layers[tensor], decibels[number], number) for number, tensor in enumerate(shared)
    ]
    return tuple(sorted(found, key=lambda one: one.sqnr_db))


def first(tensors: Sequence[TensorSqnr], below: float = SAME_DB) -> TensorSqnr | None:
    """The first layer of the network at which the executions differ by more than ``below`` decibels; None if none."""
    return next((one for one in sorted(tensors, key=lambda one: one.order) if one.sqnr_db < below), None)


def _shared(upper: Tapped, lower: Tapped) -> list[str]:
    by_node: dict[str, str] = {}
    for tensor, (node, _) in upper.layers.items():
        both = tensor in lower.layers
        # Behind the activation, where it can be read there, the values are those that the next layer gets.
        if both and upper.readable(tensor, lower) and lower.readable(tensor, upper):
            by_node[node] = tensor
    return list(by_node.values())


class Tapped:
    """One ONNX file with its weighted layers' outputs exposed.

    Attributes:
        topology: of the file.
        layers: tensor that can be exposed → node and torch module of the layer that it belongs to.
        model: the protobuf with the tensors of :meth:`open` as its outputs.
    """

    def __init__(self, path: Path, simulated: bool) -> None:
        self.topology, self.simulated = read_topology(path), simulated
        self.layers = dict(self._outputs())

    def _outputs(self) -> Iterable[tuple[str, tuple[str, str]]]:
        for node in self.topology.nodes.values():
            if node.op_type in graph.WEIGHTED:
                yield node.output[0], (node.name, module_of(node))
                readers = self.topology.readers.get(node.output[0], ())
                if len(readers) == 1 and readers[0].op_type in ("Clip", "Relu"):
                    yield readers[0].output[0], (node.name, module_of(node))

    def readable(self, tensor: str, other: Tapped) -> bool:
        """Whether the tensor's value can be had without changing what is executed, and means what it means there."""
        if self._quantized(tensor) is not None:
            return True
        # A layer whose activation was folded away has that one's name, and clips only in the rounding behind it.
        folded = self._is_layer(tensor) and not other._is_layer(tensor)
        is_output = tensor in {value.name for value in self.topology.model.graph.output}
        return not folded and (self.simulated or is_output or not self._has_pairs())

    def _is_layer(self, tensor: str) -> bool:
        return self.topology.makers[tensor].op_type in graph.WEIGHTED

    def _has_pairs(self) -> bool:
        return any(node.op_type == "QuantizeLinear" for node in self.topology.nodes.values())

    def _quantized(self, tensor: str) -> Any | None:
        readers = self.topology.readers.get(tensor, ())
        found = [node for node in readers if node.op_type == "QuantizeLinear"]
        quantize = found[0] if len(found) == len(readers) == 1 else None
        # Where a scale is computed as the model runs, nothing says what the integers stand for.
        known = quantize is not None and all(name in self.topology.constants for name in quantize.input[1:])
        return quantize if known else None

    def open(self, tensors: Sequence[str]) -> None:
        """Load the file with these tensors as outputs, in integers where the file quantizes them."""
        onnx = require("onnx", "comparing layers")
        builder = Builder(self.topology.model)
        quantizers = [self._quantized(tensor) for tensor in tensors]
        names = [tensor if q is None else q.output[0] for tensor, q in zip(tensors, quantizers, strict=True)]
        builder.expose([])
        for name, quantize in zip(names, quantizers, strict=True):
            kind = np.dtype(np.float32) if quantize is None else self._zero(quantize).dtype
            element = onnx.helper.np_dtype_to_tensor_dtype(kind)
            builder.model.graph.output.append(onnx.helper.make_tensor_value_info(name, element, None))
        self._names, self._quantizers, self.model = names, quantizers, builder.model
        self.session = session_of(builder.model, plain=self.simulated)

    def run(self, sample: Arrays) -> Values:
        """The tensors for one sample, (1, …) by name, dequantized, float64."""
        values = self.session.run(self._names, fed(sample, self.session))
        return [self._float(v[:1], q) for v, q in zip(values, self._quantizers, strict=True)]

    def _float(self, value: npt.NDArray[Any], quantize: Any | None) -> npt.NDArray[np.float64]:
        if quantize is None:
            return np.asarray(value, np.float64)
        scale, zero = self.topology.constants[quantize.input[1]].astype(np.float64), self._zero(quantize)
        return np.asarray((value.astype(np.float64) - zero.astype(np.float64)) * scale)

    def _zero(self, quantize: Any) -> npt.NDArray[Any]:
        given = len(quantize.input) > 2
        return self.topology.constants[quantize.input[2]] if given else np.zeros((), np.uint8)


class Ratios:
    """Energies of signals and differences, summed over samples."""

    def __init__(self, count: int) -> None:
        self._signal, self._noise, self._samples = np.zeros(count), np.zeros(count), 0

    def add(self, expected: Values, found: Values) -> None:
        self._samples += 1
        for number, (a, b) in enumerate(zip(expected, found, strict=True)):
            self._signal[number] += float(np.square(a, dtype=np.float64).sum())
            difference = a.astype(np.float64) - b
            self._noise[number] += float(np.square(difference).sum())

    def decibels(self) -> list[float]:
        if not self._samples:
            raise CompressionError("there is no sample to compare the layers on", "give at least one")
        tiny = 10 ** (-_LIMIT_DB / 10)
        # Written so that a NaN counts as a difference.
        ratios = [n / s if s else float(n > 0) for s, n in zip(self._signal, self._noise, strict=True)]
        return [float(-10 * np.log10(r if r >= tiny else tiny)) if np.isfinite(r) else -_LIMIT_DB for r in ratios]


def torch_taps(model: Any, exported: Path, samples: Iterable[Arrays]) -> tuple[TensorSqnr, ...]:
    """Compare a torch model, module by module, with the ONNX file that was exported from it.

    The exporter folds batch norms into the convolutions before them, so a convolution that one follows is compared
    behind it, before the activation that some batch norms contain.

    Args:
        model: called with the samples' arrays in order, in the mode in which it is to be compared.
        exported: what :func:`edgetl.compress.export.export_onnx` wrote.
        samples: the inputs of one each, (1, …) by name.

    Returns:
        one entry for each convolution and linear layer, in the order of the network; :func:`first` names the first
        that differs.

    Raises:
        CompressionError: no layer of the file belongs to a module of the model, or there is no sample.
    """
    from edgetl.compress.layers.hooks import Watched

    topology = read_topology(exported)
    watched = Watched(model, _unfolded(topology))
    nodes = [node for node in topology.weighted() if module_of(node) in watched.modules]
    if not nodes:
        raise CompressionError(f"no layer of {exported} belongs to this model", "give the model that was exported")
    builder = Builder(topology.model)
    names = [node.output[0] for node in nodes]
    builder.expose(names)
    session = session_of(builder.model)
    ratios = Ratios(len(nodes))
    for sample in samples:
        outputs = watched.outputs(sample)
        expected = []
        for node in nodes:
            calls = outputs[module_of(node)]
            expected.append(calls.pop(0) if len(calls) > 1 else calls[0])
        found = [np.asarray(value[:1], np.float64) for value in session.run(names, fed(sample, session))]
        ratios.add([e.reshape(f.shape) for e, f in zip(expected, found, strict=True)], found)
    decibels = ratios.decibels()
    return tuple(
        TensorSqnr(node.output[0], node.name, module_of(node), decibels[number], number)
        for number, node in enumerate(nodes)
    )


def _unfolded(topology: Topology) -> set[str]:
    """Modules whose batch norm the exporter left as an operator of its own."""
    return {
        module_of(node)
        for node in topology.weighted()
        if any(r.op_type == "BatchNormalization" for r in topology.readers.get(node.output[0], ()))
    }
