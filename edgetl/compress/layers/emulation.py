"""A compressed model as one float graph in which any layer can be switched back to float.

The float graph gets, for every weighted layer, both weights, and for every quantized activation the grid's rounding
written as arithmetic. A vector of switches is an input, so one session answers for every subset of layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CompressionError
from edgetl.base.parallel import CORES, in_order
from edgetl.compress import graph
from edgetl.compress.batches import batched
from edgetl.compress.engine_ort import QUANTIZABLE
from edgetl.compress.layers.arithmetic import Builder, session_of
from edgetl.compress.layers.layout import Pair
from edgetl.compress.layers.points import read_layout
from edgetl.compress.layers.topology import SAME_VALUES, Topology, read_topology
from edgetl.core.tensors import Arrays, joined

#: Operators that follow their neighbours: quantizers leave them in float where nothing else asks for integers.
PASSIVE = (*SAME_VALUES, "Clip", "Relu", "AveragePool", "Resize", "Split", "Pad")
_BATCH = 4
_SWITCHES = "edgetl:floating"


class Emulation:
    """A compressed model in float arithmetic, each of whose layers can be left in float.

    Args:
        exported: float ONNX file.
        model: what was made from it: Q/DQ ``.onnx`` or OpenVINO ``.xml``.

    Attributes:
        names: every node that a recipe could exclude to some effect, in the order of the graph.

    Raises:
        CompressionError: a file is damaged, or the two do not belong together.
    """

    def __init__(self, exported: Path, model: Path) -> None:
        self.topology = read_topology(exported)
        self.layout = read_layout(model, self.topology)
        self._layers = [name for name, stored in self.layout.layers.items() if stored.weight is not None]
        # ONNX Runtime's quantizer rounds what its operators write as well as what they read; NNCF only the latter.
        self._writes = model.suffix == ".onnx"
        self._holders = [_holders(pair, self.topology, set(self._layers), self._writes) for pair in self.layout.pairs]
        acting = {*self._layers, *(name for holders in self._holders for name in holders)}
        self.names = tuple(name for name in self.topology.nodes if name in acting)
        # One thread each, as several run at once.
        self._session = session_of(self._build(), threads=1)

    def _build(self) -> Any:
        build = Builder(self.topology.model)
        nodes = {node.name: node for node in build.model.graph.node}
        switches = build.input(_SWITCHES, np.bool_, [len(self._layers) + len(self.layout.pairs)])

        def switch(number: int) -> str:
            return build.node("Gather", switches, build.constant(number, np.int64))

        for number, name in enumerate(self._layers):
            stored, node, on = self.layout.layers[name], nodes[name], switch(number)
            if stored.weight is not None:
                node.input[1] = build.node("Where", on, node.input[1], build.constant(stored.weight))
            if stored.bias is not None:
                own = node.input[2] if len(node.input) > 2 else build.constant(np.zeros_like(stored.bias))
                del node.input[2:]
                node.input.append(build.node("Where", on, own, build.constant(stored.bias)))
        for number, pair in enumerate(self.layout.pairs, len(self._layers)):
            rank = len(self.topology.shapes.get(pair.tensor, ()))
            value = build.snapped(pair.tensor, pair.grid, rank)[2]
            chosen = build.node("Where", switch(number), pair.tensor, value)
            for reader in pair.readers:
                for index, tensor in enumerate(nodes[reader].input):
                    if tensor == pair.tensor:
                        nodes[reader].input[index] = chosen
        return build.model

    def outputs(self, samples: Arrays, floating: Set[str] = frozenset()) -> dict[str, npt.NDArray[np.float32]]:
        """Answers with some nodes in float.

        An activation stays quantized until every node that asks for it is in float, as with a recipe's
        ``exclude_nodes``.

        Args:
            samples: inputs by name, (n, …) each.
            floating: names of nodes in float; :attr:`names` for the float model.

        Returns:
            outputs by name, float32 (n, …).
        """
        switches = np.array([*self._floating_layers(floating), *self._floating_pairs(floating)], np.bool_)
        names = [value.name for value in self._session.get_outputs()]

        def run(batch: tuple[Arrays, int]) -> dict[str, npt.NDArray[np.float32]]:
            values = self._session.run(names, {**batch[0], _SWITCHES: switches})
            return {name: v[: batch[1]].astype(np.float32) for name, v in zip(names, values, strict=True)}

        batches = batched(samples, self._session.get_inputs()[0].shape[0], _BATCH)
        return joined(list(in_order([run] * CORES, batches)))

    def holding(self, reader: str, tensor: str) -> frozenset[str]:
        """Nodes that have to be in float together for ``reader`` to read ``tensor`` in float; empty if it does."""
        while True:
            for pair, holders in zip(self.layout.pairs, self._holders, strict=True):
                if pair.tensor == tensor and reader in pair.readers:
                    return holders
            maker = self.topology.makers.get(tensor)
            if maker is None or maker.op_type not in SAME_VALUES:
                return frozenset()
            reader, tensor = maker.name, maker.input[0]

    def _floating_layers(self, floating: Set[str]) -> Iterator[bool]:
        unknown = sorted(set(floating) - set(self.topology.nodes))
        if unknown:
            raise CompressionError(f"the model has no node '{unknown[0]}'", "use the names of the exported graph")
        return (name in floating for name in self._layers)

    def _floating_pairs(self, floating: Set[str]) -> Iterator[bool]:
        everything = set(self.names) <= floating
        asked = [
            pair
            for pair, holders in zip(self.layout.pairs, self._holders, strict=True)
            if not everything and not (holders and holders <= floating)
        ]
        kept = self._without_floats(asked, floating) if self._writes and floating else asked
        return (pair not in kept for pair in self.layout.pairs)

    def _without_floats(self, kept: list[Pair], floating: Set[str]) -> list[Pair]:
        """Without what :func:`edgetl.compress.qdq.free_floats` takes away where a recipe leaves layers in float."""

        def integer(name: str) -> bool:
            node = self.topology.nodes[name]
            if node.op_type in graph.WEIGHTED:
                return name in self._layers and name not in floating
            writes = any(pair.tensor == node.output[0] for pair in kept)
            return writes and any(name in pair.readers for pair in kept)

        def stays(pair: Pair) -> bool:
            maker = self.topology.makers[pair.tensor]
            if maker.name not in self.layout.present:
                maker = self.topology.makers[maker.input[0]]
            return maker.op_type in graph.WEIGHTED or any(integer(name) for name in pair.readers)

        while True:
            left = [pair for pair in kept if stays(pair)]
            if len(left) == len(kept):
                return kept
            kept = left


def _holders(pair: Pair, topology: Topology, quantized: set[str], writes: bool) -> frozenset[str]:
    first = set(graph.before_weights(topology.model))
    weighted = {node.name for node in topology.weighted()}

    def active(node: Any) -> bool:
        return node.name not in first and (
            node.name in quantized or (node.name not in weighted and (not writes or node.op_type in QUANTIZABLE))
        )

    found, waiting = set(), [topology.nodes[name] for name in pair.readers]
    while waiting:
        node = waiting.pop()
        if node.op_type in PASSIVE:
            waiting += [reader for name in node.output for reader in topology.readers.get(name, ())]
        elif active(node):
            found.add(node.name)
    maker = topology.makers.get(pair.tensor)
    while maker is not None and maker.op_type in PASSIVE:
        maker = topology.makers.get(maker.input[0])
    if writes and maker is not None and active(maker):
        found.add(maker.name)
    return frozenset(found)
