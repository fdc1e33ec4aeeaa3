"""LiteRT with XNNPACK on CPUs: the artifact is a ``.tflite`` file with a fixed batch, made here from ONNX,
which stays beside it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from edgetl.backends.base import STEM, Probe, accept, load_onnx, onnx_precision, why_refused
from edgetl.base.errors import BackendError
from edgetl.base.extras import available, require, version
from edgetl.base.storage import write_bytes
from edgetl.core.bundle import Artifact
from edgetl.core.targets import Target
from edgetl.runtime.sessions import Session, open_session
from edgetl.runtime.tfl import LiteRtSession
from edgetl.runtime.tfl import open_session as open_tflite


class LiteRt:
    """TFLite models, float and int8, in LiteRT's interpreter and its XNNPACK delegate, on x86-64 and on 64-bit Arm."""

    name = "litert"

    def probe(self) -> Probe:
        """See :class:`edgetl.backends.base.Backend`."""
        if not available("ai_edge_litert"):
            remedy = "pip install 'edgetl[litert]'"
            return Probe(False, None, (), "the package ai-edge-litert is not installed", remedy)
        try:
            require("ai_edge_litert.interpreter", "running models")
        except (ImportError, OSError) as error:
            return Probe(False, version("ai_edge_litert"), (), f"LiteRT cannot be loaded ({error})", "reinstall it")
        return Probe(True, version("ai_edge_litert"), ("CPU (XNNPACK)",))

    def refuses(self, target: Target, precision: str) -> str | None:
        """See :class:`edgetl.backends.base.Backend`."""
        if target.backend == self.name and precision == "fp16":
            return "edgetl writes no fp16 LiteRT models: on CPUs they are converted to fp32 when they are loaded"
        return why_refused(self.name, target, precision)

    def compile(self, model: Path, target: Target, out: Path) -> Artifact:
        """See :class:`edgetl.backends.base.Backend`."""
        from edgetl.backends.tflite import convert

        if model.suffix == ".tflite":
            return self._as_given(model, target, out)
        loaded = load_onnx(model)
        precision = onnx_precision(loaded)
        accept(self, target, precision)
        try:
            content = convert(loaded)
        except BackendError as error:
            raise BackendError(f"{model}: {error.what}", error.remedy) from error
        path = out / f"{STEM}.tflite"
        # The ONNX file tells of its layers what the other no longer does, and can be simulated.
        write_bytes(path.with_suffix(".onnx"), model.read_bytes())
        write_bytes(path, content)
        artifact = Artifact(self.name, path, precision)
        # Every operator has to exist in this form; x86-64 and Arm builds have the same set.
        open_session(artifact).close()
        return artifact

    def _as_given(self, model: Path, target: Target, out: Path) -> Artifact:
        """A file that another tool converted: nothing lies beside it that tells of its layers."""
        path = out / f"{STEM}.tflite"
        write_bytes(path, model.read_bytes())
        with closing(open_tflite(Artifact(self.name, path, "fp32"), threads=1, simulated=False)) as session:
            precision = read_precision(session)
        accept(self, target, precision)
        return Artifact(self.name, path, precision)

    def open(self, artifact: Artifact, *, threads: int = 1, simulated: bool = False) -> Session:
        """See :class:`edgetl.backends.base.Backend`."""
        return open_session(artifact, threads=threads, simulated=simulated)


def read_precision(session: LiteRtSession) -> str:
    """What a loaded model is: int8 as soon as one layer has weights in 8 bits, fp16 or fp32."""
    kinds = session.executed().layers
    return next((kind for kind in ("int8", "fp16") if kinds.get(kind)), "fp32")
