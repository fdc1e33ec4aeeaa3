"""A model that was trained elsewhere, as what its artifacts are compared with: its float ONNX file in ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.base.errors import CompressionError, RunError
from edgetl.base.progress import Progress, tracked
from edgetl.compress import graph
from edgetl.compress.foreign.head import head_input, with_batch
from edgetl.core.bundle import Artifact
from edgetl.core.run import Run
from edgetl.inputs import input_of, read_ahead
from edgetl.runtime.predict import inferred, several
from edgetl.workflow.reference import Floats, Outputs, Reference, TorchReference, run_artifact
from edgetl.workflow.stage_cache import versions


def reference_of(run: Run) -> Reference:
    """What artifacts of a run are compared with: its torch model, or its network where it has no torch model."""
    return TorchReference(run) if run.network is None else NetworkReference(run, run.network)


@dataclass
class NetworkReference:
    """A run whose model is an ONNX file. There is no torch model: what trains it again does not apply.

    Attributes:
        run: as adopted.
        network: its float ONNX file.
    """

    run: Run
    network: Path
    module: None = None

    @property
    def versions(self) -> Mapping[str, str | None]:
        """See :class:`Reference`."""
        return versions("onnxruntime")

    def outputs(self, split: str, progress: Progress) -> Outputs:
        """See :class:`Reference`."""
        artifact = Artifact("onnxruntime", self.network, "fp32")
        return run_artifact(artifact, self.run, split, False, f"running the adopted model ({split})", progress)

    def baseline(self, progress: Progress) -> Outputs:
        """See :class:`Reference`."""
        raise RunError(f"{self.run.path} was adopted and has no baseline", "leave it out")

    def export(self, out: Path, batch: int | None) -> Mapping[str, Any]:
        """See :class:`Reference`: the file itself, whose parity with the one that was given the run records."""
        model = graph.load(self.network)
        own = graph.fixed_batch(model)
        if batch is not None and own not in (None, batch):
            raise CompressionError(f"the adopted model takes {own} samples at once, not {batch}", "leave --batch out")
        if batch is not None and own is None:
            model = with_batch(model, batch)
        graph.save(model, out)
        adoption = self.run.adoption
        return dict(adoption.parity) if adoption is not None else {}

    def features(self, paths: Sequence[Path], progress: Progress) -> Floats:
        """See :class:`Reference`."""
        return head_inputs(self.network, self.run, paths, progress)


def head_inputs(network: Path, run: Run, paths: Sequence[Path], progress: Progress) -> Floats:
    """What the last linear layer of a float ONNX file reads of sample files: (n, features).

    Raises:
        CompressionError: the network ends in something else.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = graph.save(head_input(graph.load(network)), Path(folder) / "features.onnx")
        with several(Artifact("onnxruntime", file, "fp32")) as sessions:
            samples = tracked(read_ahead(input_of(run), paths), "features for k-centre", progress, len(paths))
            found = list(inferred(sessions, samples))
    rows = [next(iter(outputs.values())).reshape(1, -1) for outputs in found]
    return np.concatenate(rows).astype(np.float32)
