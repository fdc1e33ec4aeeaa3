"""What every backend does, and what they share in doing it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from edgetl.base.errors import BackendError
from edgetl.base.extras import require
from edgetl.core.bundle import PRECISIONS, Artifact
from edgetl.core.targets import Target
from edgetl.runtime.sessions import Session

#: Stem of the deployed file in a bundle.
STEM = "model"


@dataclass(frozen=True)
class Probe:
    """What a backend finds on this machine.

    Attributes:
        available: whether it can compile here; whether it can run, ``devices`` tells.
        version: of the runtime, or None where it is not installed.
        devices: what it can run on, in the runtime's own words.
        reason: what is missing, or "".
        remedy: what to do about it, or "".
    """

    available: bool
    version: str | None
    devices: tuple[str, ...]
    reason: str = ""
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "devices": list(self.devices)}


class Backend(Protocol):
    """An inference runtime."""

    name: str

    def probe(self) -> Probe:
        """SDK, version, devices, or why not; never raises."""
        ...

    def refuses(self, target: Target, precision: str) -> str | None:
        """Why this backend makes no artifact of that precision for the target, or None if it does."""
        ...

    def compile(self, model: Path, target: Target, out: Path) -> Artifact:
        """Make the file that the target's runtime opens, and check it as far as this machine can.

        Args:
            model: ``.onnx`` or, for OpenVINO, ``.xml``; its precision is read from the file.
            target: what the artifact is made for.
            out: folder to write into; the same input gives the same files.

        Raises:
            BackendError: the model is damaged, refused by the runtime or of a precision the target lacks.
        """
        ...

    def open(self, artifact: Artifact, *, threads: int = 1, simulated: bool = False) -> Session:
        """Load an artifact for execution (see :func:`edgetl.runtime.sessions.open_session`).

        Raises:
            BackendError: the file is damaged or cannot run here.
        """
        ...


def why_refused(name: str, target: Target, precision: str) -> str | None:
    """The reasons that hold for every backend."""
    if target.backend != name:
        return f"target {target.name} runs {target.backend}, not {name}"
    if precision not in PRECISIONS:
        return f"edgetl makes {', '.join(PRECISIONS)} artifacts, not {precision}"
    if precision not in target.precisions:
        return f"target {target.name} does not run {precision}, only {', '.join(target.precisions)}"
    return None


def accept(backend: Backend, target: Target, precision: str) -> None:
    """Go on only if the backend does not refuse.

    Raises:
        BackendError: it refuses; the message says why.
    """
    reason = backend.refuses(target, precision)
    if reason is not None:
        makeable = [p for p in target.precisions if backend.refuses(target, p) is None]
        raise BackendError(reason, f"use {' or '.join(makeable)}" if makeable else "choose another target")


def load_onnx(path: Path) -> Any:
    """Parse and check an ONNX file.

    Raises:
        BackendError: missing, truncated or no ONNX model.
    """
    onnx = require("onnx", "compiling for a target")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's decoding error is not importable from a stable place
        raise BackendError(f"{path} is no valid ONNX model ({error})", "export it again") from error
    return model


def onnx_precision(model: Any) -> str:
    """What an ONNX model was compressed to: int8, fp16 or fp32."""
    onnx = require("onnx", "compiling for a target")
    operators = {node.op_type for node in model.graph.node}
    # Q/DQ pairs, or weights that a runtime multiplies in integers with what it quantizes as it goes.
    if operators & {"DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"}:
        return "int8"
    halves = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
    return "fp16" if halves else "fp32"
