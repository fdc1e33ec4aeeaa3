"""Parse and build a model with a real TensorRT builder, for the target's GPU or the nearest one on offer."""

from __future__ import annotations

import importlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgetl.base.errors import BackendError
from edgetl.base.extras import available, version
from edgetl.base.storage import sha256_file
from edgetl.runtime.build_engine import add_profile, network_flags

#: tensorrt_rtx first: it can build for another GPU than the one at hand, or for none.
_MODULES = ("tensorrt_rtx", "tensorrt")
#: The parser reads UINT8 zero points as INT8 with no more than this warning: what exceeds 127 would saturate.
_FATAL_WARNINGS = ("UINT8 zero_point", "Defaulting to INT8")
_INSTALL = "pip install 'edgetl[tensorrt]'"


@dataclass(frozen=True)
class Check:
    """What a TensorRT builder on this machine made of a model.

    Attributes:
        checked: whether the model was parsed and built.
        reason: why not, or "".
        module, version: the builder.
        compute_capability: what the engine was built for.
        stand_in: whether that is another one than the target's.
        engine_bytes: size of the engine, which is not kept.
        warnings: what parser and builder warned of.
        model_sha256: of the ONNX file.
    """

    checked: bool
    model_sha256: str
    reason: str = ""
    module: str = ""
    version: str = ""
    compute_capability: str = ""
    stand_in: bool = False
    engine_bytes: int = 0
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "warnings": list(self.warnings), "warning_count": len(self.warnings)}


def builder_module() -> Any | None:
    """The installed TensorRT module, imported, or None.

    Raises:
        ImportError, OSError: it is installed but cannot be loaded.
    """
    name = next((name for name in _MODULES if available(name)), None)
    return None if name is None else importlib.import_module(name)


def offered() -> tuple[str, ...]:
    """Compute capabilities, such as '8.6', that the installed builder builds engines for without such a GPU."""
    try:
        trt = builder_module()
    except (ImportError, OSError):
        return ()
    members = dir(getattr(trt, "ComputeCapability", object))
    found = [name.removeprefix("SM") for name in members if re.fullmatch(r"SM\d{2,3}", name)]
    return tuple(f"{digits[:-1]}.{digits[-1]}" for digits in sorted(found, key=int))


def build_for(model: Path, compute_capability: str, stand_in: str) -> Check:
    """Parse an ONNX file and build an engine of batch one.

    Args:
        model: the ONNX file.
        compute_capability: the target's, such as "8.7".
        stand_in: what to build for where the builder does not offer that one.

    Returns:
        A check; ``checked`` is False, with the reason, where no builder can work on this machine.

    Raises:
        BackendError: parser or builder refuse the model; the message is theirs.
    """
    digest = sha256_file(model)
    try:
        trt = builder_module()
    except (ImportError, OSError) as error:
        return Check(False, digest, f"TensorRT cannot be loaded ({error})")
    if trt is None:
        return Check(False, digest, f"no TensorRT builder is installed ({_INSTALL})")
    offered = getattr(trt, "ComputeCapability", None)
    wanted = next((c for c in (compute_capability, stand_in) if offered and hasattr(offered, _member(c))), None)
    if wanted is None and offered is not None:
        return Check(False, digest, f"{trt.__name__} builds neither for {compute_capability} nor for {stand_in}")
    log: list[tuple[int, str]] = []
    logger = _logger(trt, log)
    try:
        builder = trt.Builder(logger)
    except Exception as error:  # full TensorRT cannot even start without a GPU, and pybind raises what it likes
        return Check(False, digest, f"{trt.__name__} needs a GPU to build ({error})")
    size = _build(trt, builder, logger, log, model, None if wanted is None else getattr(offered, _member(wanted)))
    return Check(
        True,
        digest,
        module=trt.__name__,
        version=version(trt.__name__) or str(trt.__version__),
        compute_capability=wanted or "",
        stand_in=wanted is not None and wanted != compute_capability,
        engine_bytes=size,
        warnings=tuple(sorted({message for severity, message in log if severity == 2})),
    )


def _member(compute_capability: str) -> str:
    return "SM" + compute_capability.replace(".", "")


def _logger(trt: Any, log: list[tuple[int, str]]) -> Any:
    class Collector(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.append((int(severity), message))

    return Collector()


def _build(trt: Any, builder: Any, logger: Any, log: list[tuple[int, str]], model: Path, capability: Any) -> int:
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model.read_bytes()):
        problems = [parser.get_error(index) for index in range(parser.num_errors)]
        reason = "; ".join(f"{problem.node_name()}: {problem.desc()}" for problem in problems[:1]) or _last_error(log)
        raise BackendError(f"TensorRT's parser refuses {model} ({reason})", "quantize with the recipe tensorrt-int8")
    for _, message in log:
        if any(text in message for text in _FATAL_WARNINGS):
            raise BackendError(
                f"TensorRT would read {model} wrongly ({message})", "quantize with the recipe tensorrt-int8"
            )
    config = builder.create_builder_config()
    if capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(capability, 0)
    add_profile(builder, network, config, 1)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BackendError(f"TensorRT cannot build {model} ({_last_error(log)})", "export with --precision fp16")
    return int(engine.nbytes)


def _last_error(log: list[tuple[int, str]]) -> str:
    return next((message for severity, message in reversed(log) if severity <= 1), "it gives no reason")
