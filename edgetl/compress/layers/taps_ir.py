"""An OpenVINO IR in its integer kernels against the same file computed in float, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.base.errors import CompressionError
from edgetl.compress.batches import filled
from edgetl.compress.layers.artifact_ir import load, quantizers
from edgetl.compress.layers.taps import Ratios, TensorSqnr, Values
from edgetl.compress.layers.topology import Topology, module_of, read_topology
from edgetl.core.tensors import Arrays
from edgetl.runtime.ov import core, write_out


def compare_ir(model: Path, exported: Path, samples: Iterable[Arrays]) -> tuple[TensorSqnr, ...]:
    """Compare what OpenVINO's CPU plugin executes with what the file says, behind every quantized layer.

    The values compared are those that the next layer reads: a second reader of them leaves the fused kernels alone.

    Args:
        model: ``.xml`` with FakeQuantize.
        exported: the float ONNX file that it was made from.
        samples: the inputs of one each, (1, …) by name.

    Returns:
        one entry for each layer whose output is quantized, and for the last layer, the worst first.

    Raises:
        CompressionError: nothing is quantized, there is no sample, or a file is damaged.
    """
    topology = read_topology(exported)
    written, executed = (_Tapped(model, topology, simulated) for simulated in (True, False))
    ratios = Ratios(len(written.tensors))
    for sample in samples:
        ratios.add(written.run(sample), executed.run(sample))
    decibels = ratios.decibels()
    found = [
        TensorSqnr(tensor, node, module_of(topology.nodes[node]), decibels[number], number)
        for number, (tensor, node) in enumerate(written.tensors)
    ]
    return tuple(sorted(found, key=lambda one: one.sqnr_db))


def compiled(network: Any, simulated: bool) -> Any:
    """A network for the CPU plugin, in its integer kernels or, ``simulated``, as the file says, in float."""
    if simulated:
        write_out(network)
    config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return core().compile_model(network, "CPU", config)


class _Tapped:
    """One execution of the file.

    Attributes:
        tensors: of the exported graph, with the weighted layer behind which each lies, in order; an output of the
            network last.
        compiled: with these as its outputs.
    """

    def __init__(self, model: Path, topology: Topology, simulated: bool) -> None:
        network = load(model)
        tapped = {
            topology.producer(tensor): (tensor, op)
            for op, tensor in quantizers(network, topology)
            if topology.producer(tensor)
        }
        if not tapped:
            raise CompressionError(f"{model} quantizes no layer's output", "give an int8 model")
        network.add_outputs([op.output(0) for _, op in tapped.values()])
        self.tensors = [(tensor, node) for node, (tensor, _) in tapped.items()]
        # The network's own outputs come before those that were added.
        outputs = [value.name for value in topology.model.graph.output]
        self._places = [len(outputs) + number for number in range(len(tapped))]
        last = topology.weighted()[-1]
        if last.output[0] in outputs:
            self.tensors.append((last.output[0], last.name))
            self._places.append(outputs.index(last.output[0]))
        self.compiled: Any = compiled(network, simulated)
        self._request = self.compiled.create_infer_request()

    def run(self, sample: Arrays) -> Values:
        """The tensors for one sample, (1, …) by name, float64."""
        size = self.compiled.inputs[0].get_partial_shape()[0]
        whole = filled(sample, size.get_length()) if size.is_static else dict(sample)
        values = [*self._request.infer(whole).values()]
        return [np.asarray(values[place][:1], np.float64) for place in self._places]
