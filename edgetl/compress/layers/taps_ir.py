"""An OpenVINO IR in its integer kernels against the same file computed in float, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.compress.layers.artifact_ir import load, quantizers
from edgetl.compress.layers.taps import Arrays, Ratios, TensorSqnr
from edgetl.compress.layers.topology import Topology, module_of, read_topology
from edgetl.runtime.ov import write_out


def compare_ir(model: Path, exported: Path, images: Iterable[npt.NDArray[np.uint8]]) -> tuple[TensorSqnr, ...]:
    """Compare what OpenVINO's CPU plugin executes with what the file says, behind every quantized layer.

    The values compared are those that the next layer reads: a second reader of them leaves the fused kernels alone.

    Args:
        model: ``.xml`` with FakeQuantize.
        exported: the float ONNX file that it was made from.
        images: uint8 (1, H, W, 3) each.

    Returns:
        one entry for each layer whose output is quantized, and for the logits, the worst first.

    Raises:
        CompressionError: nothing is quantized, there is no image, or a file is damaged.
    """
    topology = read_topology(exported)
    written, executed = (_Tapped(model, topology, simulated) for simulated in (True, False))
    ratios = Ratios(len(written.tensors))
    for image in images:
        ratios.add(written.run(image), executed.run(image))
    decibels = ratios.decibels()
    found = [
        TensorSqnr(tensor, node, module_of(topology.nodes[node]), decibels[number], number)
        for number, (tensor, node) in enumerate(written.tensors)
    ]
    return tuple(sorted(found, key=lambda one: one.sqnr_db))


class _Tapped:
    """One execution of the file.

    Attributes:
        tensors: of the exported graph, with the weighted layer behind which each lies, in order; the logits last.
        compiled: with these as its outputs.
    """

    def __init__(self, model: Path, topology: Topology, simulated: bool) -> None:
        openvino = require("openvino", "comparing layers")
        network = load(model)
        tapped = {
            topology.producer(tensor): (tensor, op)
            for op, tensor in quantizers(network, topology)
            if topology.producer(tensor)
        }
        if not tapped:
            raise CompressionError(f"{model} quantizes no layer's output", "give an int8 model")
        network.add_outputs([op.output(0) for _, op in tapped.values()])
        if simulated:
            write_out(network)
        last = topology.weighted()[-1]
        self.tensors = [*((tensor, node) for node, (tensor, _) in tapped.items()), (last.output[0], last.name)]
        config = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        self.compiled: Any = openvino.Core().compile_model(network, "CPU", config)
        self._request = self.compiled.create_infer_request()

    def run(self, image: npt.NDArray[np.uint8]) -> Arrays:
        """The tensors for one image (1, H, W, 3), float64."""
        size = self.compiled.inputs[0].get_partial_shape()[0]
        batch = np.repeat(image, size.get_length(), axis=0) if size.is_static else image
        logits, *values = self._request.infer([batch]).values()
        return [np.asarray(value[:1], np.float64) for value in (*values, logits)]
