"""TensorRT on NVIDIA Jetsons and RTX GPUs: the artifact is a checked ONNX file, and the device builds the engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from edgetl.backends.base import STEM, Probe, accept, load_onnx, onnx_precision, why_refused
from edgetl.backends.tensorrt_check import build_for, builder_module
from edgetl.backends.tensorrt_verdict import Verdict, verdicts
from edgetl.base.errors import BackendError
from edgetl.base.extras import version
from edgetl.base.storage import write_bytes, write_json
from edgetl.core.bundle import Artifact
from edgetl.core.targets import Target
from edgetl.runtime import build_engine
from edgetl.runtime.cuda import gpus
from edgetl.runtime.sessions import Session, open_session

SCRIPT = "build_engine.py"
SHELL_SCRIPT = "build_engine.sh"
PARSE = "parse.json"


class TensorRt:
    """Explicitly quantized or strongly typed ONNX models for TensorRT 10 and 11.

    Either ``tensorrt`` or ``tensorrt_rtx`` serves; the latter builds engines without a GPU, so every model is parsed
    and built on the machine that exports it. An engine belongs to one GPU and one TensorRT version: the device makes
    its own, from the script that lies beside the model.
    """

    name = "tensorrt"

    def probe(self) -> Probe:
        """See :class:`edgetl.backends.base.Backend`."""
        try:
            module = builder_module()
        except (ImportError, OSError) as error:
            return Probe(False, None, (), f"TensorRT cannot be loaded ({error})", "reinstall it")
        devices = gpus()
        if module is None:
            return Probe(
                False,
                None,
                devices,
                "neither tensorrt nor tensorrt_rtx is installed: models are exported, but not parsed here",
                "pip install 'edgetl[tensorrt]' (Linux on x86-64), or install JetPack's tensorrt",
            )
        found = f"{module.__name__} {version(module.__name__) or module.__version__}"
        if not devices:
            return Probe(True, found, (), "no NVIDIA GPU: engines are built but cannot run", "run them on the device")
        return Probe(True, found, devices)

    def refuses(self, target: Target, precision: str) -> str | None:
        """See :class:`edgetl.backends.base.Backend`."""
        return why_refused(self.name, target, precision)

    def compile(self, model: Path, target: Target, out: Path) -> Artifact:
        """See :class:`edgetl.backends.base.Backend`.

        Writes ``model.onnx``, ``build_engine.py`` and ``build_engine.sh`` for the device, and ``parse.json``: what the
        tables say of the target's TensorRT versions, and what was parsed and built here.
        """
        loaded = load_onnx(model)
        precision = onnx_precision(loaded)
        accept(self, target, precision)
        devices = verdicts(model, target)
        refuse_what_no_device_takes(model, devices)
        check = build_for(model, target.compute_capability, target.stand_in_compute_capability)
        path = out / f"{STEM}.onnx"
        write_bytes(path, model.read_bytes())
        write_bytes(out / SCRIPT, Path(build_engine.__file__).read_bytes())
        write_bytes(out / SHELL_SCRIPT, shell_script(loaded))
        write_json(out / PARSE, {**check.to_json(), "devices": [verdict.to_json() for verdict in devices]})
        return Artifact(self.name, path, precision)

    def open(self, artifact: Artifact, *, threads: int = 1, simulated: bool = False) -> Session:
        """See :class:`edgetl.backends.base.Backend`."""
        return open_session(artifact, threads=threads, simulated=simulated)


def refuse_what_no_device_takes(model: Path, devices: tuple[Verdict, ...]) -> None:
    """Go on if the tables leave one of the versions that the target may have.

    Raises:
        BackendError: each of them refuses the model; the message names the first node and what to do.
    """
    if not devices or any(verdict.verdict != "refused" for verdict in devices):
        return
    first = devices[0]
    objection = first.objections[0]
    remedy = objection.remedy or "see edgetl targets check"
    raise BackendError(f"TensorRT {first.tensorrt} ({first.system}) refuses {model} at {objection}", remedy)


def shell_script(model: Any) -> bytes:
    """``build_engine.sh`` for an ONNX model: with the shapes of its inputs filled in."""
    text = Path(__file__).with_name(SHELL_SCRIPT).read_text(encoding="utf-8")
    opened = [value for value in model.graph.input if not all(size.HasField("dim_value") for size in _sizes(value))]
    least, usual, most = build_engine.LENGTHS
    for variable, batch, length in (("least", "1", least), ("usual", "BATCH", usual), ("most", "BATCH", most)):
        shapes = ",".join(f"{value.name}:{_shape(value, batch, length)}" for value in opened)
        # A name may hold any character, and a shell reads this.
        quoted = "'" + shapes.replace("'", "'\"'\"'") + "'"
        text = re.sub(rf"(?<=^{variable}=).*$", quoted.replace("\\", "\\\\"), text, flags=re.MULTILINE)
    return text.encode("utf-8")


def _sizes(value: Any) -> Any:
    return value.type.tensor_type.shape.dim


def _shape(value: Any, batch: str, length: int) -> str:
    """As trtexec reads it, open axes given sizes: the first one the batch's."""
    sizes = [str(size.dim_value) if size.HasField("dim_value") else "" for size in _sizes(value)]
    return "x".join(size or (str(length) if axis else batch) for axis, size in enumerate(sizes))
