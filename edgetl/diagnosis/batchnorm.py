"""Batch normalisation left in training mode: the answer to an image depends on its neighbours in the batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.base.errors import BackendError
from edgetl.compress import graph
from edgetl.compress.layers.topology import Topology, module_of
from edgetl.core.bundle import Artifact, Bundle
from edgetl.core.findings import Finding
from edgetl.core.tensors import Arrays, count, packed, rows
from edgetl.runtime.predict import infer
from edgetl.runtime.sessions import open_session

#: Largest share of the logits' range by which neighbours in a batch may change an answer: kernels add in another order.
NEIGHBOURS = 1e-3


def audit_batchnorm(bundle: Bundle, topology: Topology, batch: Arrays) -> tuple[Finding, ...]:
    """Look for batch statistics in the exported graph, and for their effect on a batch of samples, (n, …) by name."""
    nodes = [node for node in topology.nodes.values() if _is_training(node, topology)]
    names = tuple(dict.fromkeys(module_of(node) or node.name for node in nodes))
    if nodes:
        what = f"{len(nodes)} layers of the exported graph take their statistics from the batch (first: {names[0]})."
        return (Finding("batch-norm-training", what, names, {"nodes": [node.name for node in nodes]}),)
    return tuple(_behaviour(bundle.exported, batch))


def _is_training(node: Any, topology: Topology) -> bool:
    if node.op_type == "BatchNormalization":
        return any(entry.name == "training_mode" and entry.i for entry in node.attribute)
    if not node.op_type.startswith("Reduce"):
        return False
    shape = topology.shapes.get(node.input[0], ())
    axes = [int(axis) for axis in _axes(node, topology)]
    return len(shape) >= 2 and bool(axes) and 0 in {axis % len(shape) for axis in axes}


def _axes(node: Any, topology: Topology) -> list[int]:
    if len(node.input) > 1:
        return [int(axis) for axis in topology.constants.get(node.input[1], np.array([])).reshape(-1)]
    return next((list(entry.ints) for entry in node.attribute if entry.name == "axes"), [])


def _behaviour(exported: Path, batch: Arrays) -> Iterator[Finding]:
    n = count(batch)
    if n < 2 or graph.fixed_batch(graph.load(exported)) is not None:
        return
    try:
        with closing(open_session(Artifact("onnxruntime", exported, "fp32"), threads=1)) as session:
            together = packed(infer(session, batch))
            alone = np.concatenate([packed(infer(session, rows(batch, slice(i, i + 1)))) for i in range(n)])
    except BackendError:
        return
    away, spread = float(np.abs(together - alone).max()), float(np.ptp(alone))
    if away > NEIGHBOURS * max(spread, 1e-6):
        what = (
            f"The float ONNX file answers otherwise for a sample in a batch than for the sample alone, by up to "
            f"{away:.3g} in outputs that span {spread:.3g}."
        )
        yield Finding("batch-norm-training", what, evidence={"difference": away, "range": spread})
