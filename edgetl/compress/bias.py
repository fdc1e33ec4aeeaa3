"""Bias correction of quantized models: the mean error that quantization puts on each channel, taken off its bias.

Nagel, van Baalen, Blankevoort and Welling 2019, "Data-Free Quantization through Weight Equalization and Bias
Correction", section 4.2 and appendix D: the empirical variant, which measures the errors before the activation on
calibration samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.base.progress import Progress, silent, tracked
from edgetl.compress import graph
from edgetl.compress.batches import fed
from edgetl.compress.layers.arithmetic import Builder, session_of
from edgetl.core.tensors import Arrays, count

METHODS = ("none", "fast", "full")
#: A few dozen samples settle means over space; the full method keeps some tensors of each in memory.
MOST_SAMPLES = 32
Batches = Sequence[Arrays]
Means = dict[str, npt.NDArray[np.float64]]
_TASK = "correcting biases"
_LIMITS = np.iinfo(np.int32)


def correct(quantized: Any, floating: Path, batches: Batches, method: str, progress: Progress = silent) -> Any:
    """Correct the biases of a Q/DQ model, in place.

    int32 biases move in steps of their scale, float ones freely. MatMul has no bias and is left alone.

    Args:
        quantized: ONNX protobuf with QuantizeLinear and DequantizeLinear, its nodes in order.
        floating: the float ONNX file that it was made of, with the same node names.
        batches: inputs by name, (n, …) each; the first :data:`MOST_SAMPLES` samples are used.
        method: ``none``; ``fast``: the error that each quantized layer makes on float inputs, rounded as it reads
            them, in one pass; ``full``: in the order of the graph, the error of each layer, those in float included,
            after everything before it was quantized and corrected.
        progress: told of each batch, or of each layer.

    Returns:
        the record: method, samples, names of the layers corrected and skipped.

    Raises:
        CompressionError: an unknown method, or files that do not belong together.
    """
    if method not in METHODS:
        raise CompressionError(f"unknown bias correction '{method}'", f"use one of {', '.join(METHODS)}")
    if method == "none":
        return {"method": method, "samples": 0, "layers": [], "skipped": []}
    used = batches[: -(-MOST_SAMPLES // count(batches[0]))]
    biases = _Biases(quantized)
    wanted = [node.name for node in biases.nodes.values() if biases.correctable(node, quantized_only=method == "fast")]
    if method == "fast":
        for name, mean in _local_errors(quantized, floating, wanted, used, progress).items():
            biases.shift(name, -mean)
    else:
        expected = _means(floating, wanted, used)
        _in_order(biases, expected, used, progress)
    layers = [node.name for node in biases.nodes.values() if node.op_type in graph.WEIGHTED]
    skipped = sorted(set(layers) - set(wanted))
    return {"method": method, "samples": sum(map(count, used)), "layers": wanted, "skipped": skipped}


class _Biases:
    """The weighted nodes of a Q/DQ model and the constants behind their biases."""

    def __init__(self, model: Any) -> None:
        self._onnx = require("onnx", "correcting biases")
        self.model = model
        self.nodes = {node.name: node for node in model.graph.node}
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._users: dict[str, int] = {}
        for node in model.graph.node:
            for name in node.input:
                self._users[name] = self._users.get(name, 0) + 1

    def correctable(self, node: Any, *, quantized_only: bool) -> bool:
        """Whether the node is a layer with a bias of its own, and with integer weights if only those count."""
        if node.op_type not in graph.BIASED or len(node.input) < 3 or graph.attribute(node, "beta", 1.0) != 1.0:
            return False
        tensor = self._tensor(node)
        own = tensor is not None and self._users[tensor.name] == 1 and self._users[node.input[2]] == 1
        return own and (not quantized_only or self._is_dequantized(node.input[1]))

    def shift(self, name: str, wanted: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Add to a layer's bias; returns what was added after rounding to the bias's steps."""
        node = self.nodes[name]
        tensor = self._tensor(node)
        values = self._array(tensor)
        if self._is_dequantized(node.input[2]):
            scale = self._array(self._constants[self.makers[node.input[2]].input[1]]).astype(np.float64)
            moved = np.clip(np.round(values + wanted / scale), _LIMITS.min, _LIMITS.max)
            done = (moved - values) * scale
        else:
            moved = values + wanted
            done = moved.astype(values.dtype).astype(np.float64) - values
        tensor.CopyFrom(self._onnx.numpy_helper.from_array(moved.astype(values.dtype), tensor.name))
        return np.asarray(done, np.float64)

    def _is_dequantized(self, name: str) -> bool:
        maker = self.makers.get(name)
        return maker is not None and maker.op_type == "DequantizeLinear" and maker.input[0] in self._constants

    def _tensor(self, node: Any) -> Any:
        name = node.input[2]
        return self._constants.get(self.makers[name].input[0] if self._is_dequantized(name) else name)

    def _array(self, tensor: Any) -> npt.NDArray[Any]:
        return np.asarray(self._onnx.numpy_helper.to_array(tensor))


def _mean(build: Builder, tensor: str, operator: str) -> str:
    axes = [0] if operator == "Gemm" else [0, 2, 3]
    return build.node("ReduceMean", tensor, build.constant(axes, np.int64), keepdims=0)


def _averages(build: Builder, outputs: dict[str, str], batches: Batches, progress: Progress) -> Means:
    build.expose(list(outputs.values()))
    session = session_of(build.model, plain=True)
    total = {name: np.zeros(1) for name in outputs}
    for batch in tracked(batches, _TASK, progress):
        for name, values in zip(outputs, session.run(list(outputs.values()), fed(batch, session)), strict=True):
            total[name] = total[name] + values.astype(np.float64) / len(batches)
    return total


def _means(floating: Path, layers: list[str], batches: Batches) -> Means:
    build = Builder(graph.load(floating))
    nodes = {node.name: node for node in build.model.graph.node}
    outputs = {name: _mean(build, _of(nodes, name).output[0], nodes[name].op_type) for name in layers}
    return _averages(build, outputs, batches, silent)


def _local_errors(quantized: Any, floating: Path, layers: list[str], batches: Batches, progress: Progress) -> Means:
    """Mean over samples and space of (layer as quantized − layer in float), both on what the float model feeds it."""
    build = Builder(graph.load(floating))
    nodes = {node.name: node for node in build.model.graph.node}
    graft = _Graft(quantized, build)
    outputs = {}
    for name in layers:
        node = _of(nodes, name)
        error = build.node("Sub", graft.layer(name), node.output[0])
        outputs[name] = _mean(build, error, node.op_type)
    return _averages(build, outputs, batches, progress)


def _of(nodes: dict[str, Any], name: str) -> Any:
    if name not in nodes:
        raise CompressionError(f"the float model has no layer '{name}'", "give the one that was quantized")
    return nodes[name]


class _Graft:
    """Copies layers of a quantized model into the float model, where they read the float model's tensors."""

    def __init__(self, quantized: Any, build: Builder) -> None:
        self._build = build
        self._own = {name for node in build.model.graph.node for name in node.output}
        self._makers = {name: node for node in quantized.graph.node for name in node.output}
        self._nodes = {node.name: node for node in quantized.graph.node}
        self._constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
        self._done: dict[str, str] = {}

    def layer(self, name: str) -> str:
        """Name of the copied layer's output."""
        node = self._nodes[name]
        return self._build.like(node, *(self._tensor(source) for source in node.input))

    def _tensor(self, name: str) -> str:
        if name not in self._done:
            self._done[name] = self._copied(name)
        return self._done[name]

    def _copied(self, name: str) -> str:
        if name in self._constants:
            array = require("onnx.numpy_helper", "correcting biases").to_array(self._constants[name])
            return self._build.constant(array, array.dtype)
        maker = self._makers.get(name)
        if maker is None or maker.op_type in graph.WEIGHTED:
            return name
        if maker.op_type == "QuantizeLinear" and maker.input[0] in self._own:
            return self._build.like(maker, maker.input[0], *(self._tensor(source) for source in maker.input[1:]))
        return self._build.like(maker, *(self._tensor(source) for source in maker.input))


def _in_order(biases: _Biases, expected: Means, batches: Batches, progress: Progress) -> None:
    """Correct each layer on what reaches it, carrying the tensors of every batch from one layer to the next."""
    stages = Stages(biases.model, list(expected), batches)
    for name in tracked(expected, _TASK, progress):
        output = biases.nodes[name].output[0]
        found = stages.advance(name, output)
        stages.add(output, biases.shift(name, expected[name] - found))


class Stages:
    """Runs a model piece by piece on all batches at once; each piece ends with a layer.

    A piece is opened only when it is its turn, with the weights and biases as they are then.
    """

    def __init__(self, model: Any, layers: list[str], batches: Batches) -> None:
        self._onnx = require("onnx", "correcting biases")
        self._model = model
        inferred = self._onnx.shape_inference.infer_shapes(model).graph
        self._values = {value.name: value for value in (*inferred.input, *inferred.value_info, *inferred.output)}
        constants = {tensor.name for tensor in model.graph.initializer} | {""}
        self._fixed: list[Any] = []
        self._pieces: dict[str, list[Any]] = {}
        piece: list[Any] = []
        for node in model.graph.node:
            if all(name in constants for name in node.input):
                constants.update(node.output)
                self._fixed.append(node)
                continue
            piece.append(node)
            if node.name in layers:
                self._pieces[node.name], piece = piece, []
        self._constants = constants
        self._state: list[dict[str, npt.NDArray[Any]]] = [dict(batch) for batch in batches]

    def advance(self, layer: str, output: str) -> npt.NDArray[np.float64]:
        """Run the piece that ends with a layer; returns the mean of the layer's output for each channel."""
        nodes = self._pieces.pop(layer)
        later = {name for piece in self._pieces.values() for node in piece for name in node.input}
        made = [name for node in nodes for name in node.output]
        inputs = list(dict.fromkeys(n for node in nodes for n in node.input if n not in {*made, *self._constants}))
        outputs = [name for name in made if name in later or name == output]
        session = self._open(nodes, inputs, outputs)
        means = []
        for state in self._state:
            state.update(zip(outputs, session.run(outputs, {name: state[name] for name in inputs}), strict=True))
            for name in set(state) - later - {output}:
                del state[name]
            values = state[output].astype(np.float64)
            means.append(values.mean(axis=tuple(axis for axis in range(values.ndim) if axis != 1)))
        return np.asarray(np.mean(means, axis=0))

    def add(self, output: str, shift: npt.NDArray[np.float64]) -> None:
        """Add to each channel of a tensor that was just made: what its layer would write with its new bias."""
        for state in self._state:
            values = state[output]
            state[output] = values + shift.astype(values.dtype).reshape(1, -1, *[1] * (values.ndim - 2))

    def _open(self, nodes: list[Any], inputs: list[str], outputs: list[str]) -> Any:
        wanted = {name for node in nodes for name in node.input}
        fixed = [node for node in self._fixed if wanted & set(node.output)]
        wanted |= {name for node in fixed for name in node.input}
        piece = self._onnx.helper.make_graph(
            [*fixed, *nodes],
            "piece",
            [self._values[name] for name in inputs],
            [self._values[name] for name in outputs],
            [tensor for tensor in self._model.graph.initializer if tensor.name in wanted],
        )
        model = self._onnx.helper.make_model(piece, opset_imports=self._model.opset_import)
        model.ir_version = self._model.ir_version
        return session_of(model, plain=True)
