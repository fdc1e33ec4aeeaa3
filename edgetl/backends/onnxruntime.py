"""ONNX Runtime on CPUs: the ONNX file is the artifact."""

from __future__ import annotations

from pathlib import Path

from edgetl.backends.base import STEM, Probe, accept, load_onnx, onnx_precision, why_refused
from edgetl.base.extras import available, require, version
from edgetl.base.storage import write_bytes
from edgetl.core.bundle import Artifact
from edgetl.core.targets import Target
from edgetl.runtime.sessions import Session, open_session


class OnnxRuntime:
    """Q/DQ and float ONNX models in ONNX Runtime's CPU provider, on x86-64 and on 64-bit Arm."""

    name = "onnxruntime"

    def probe(self) -> Probe:
        """See :class:`edgetl.backends.base.Backend`."""
        if not available("onnxruntime"):
            return Probe(False, None, (), "the package onnxruntime is not installed", "pip install onnxruntime")
        try:
            providers = require("onnxruntime", "running models").get_available_providers()
        except (ImportError, OSError) as error:
            return Probe(False, version("onnxruntime"), (), f"onnxruntime cannot be loaded ({error})", "reinstall it")
        return Probe(True, version("onnxruntime"), tuple(p.removesuffix("ExecutionProvider") for p in providers))

    def refuses(self, target: Target, precision: str) -> str | None:
        """See :class:`edgetl.backends.base.Backend`."""
        if target.backend == self.name and precision == "fp16":
            return "ONNX Runtime's CPU kernels have no fp16 convolutions worth using: they convert to fp32 and back"
        return why_refused(self.name, target, precision)

    def compile(self, model: Path, target: Target, out: Path) -> Artifact:
        """See :class:`edgetl.backends.base.Backend`."""
        precision = onnx_precision(load_onnx(model))
        accept(self, target, precision)
        path = out / f"{STEM}.onnx"
        write_bytes(path, model.read_bytes())
        artifact = Artifact(self.name, path, precision)
        # Every kernel of the graph has to exist; x86-64 and Arm builds have the same set.
        open_session(artifact).close()
        return artifact

    def open(self, artifact: Artifact, *, threads: int = 1, simulated: bool = False) -> Session:
        """See :class:`edgetl.backends.base.Backend`."""
        return open_session(artifact, threads=threads, simulated=simulated)
