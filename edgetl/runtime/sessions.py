"""One way to execute an artifact, whatever the runtime."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BackendError
from edgetl.core.bundle import Artifact
from edgetl.core.tensors import Arrays, TensorSpec

#: backend → module of this package that executes its artifacts
_MODULES = {"onnxruntime": "ort", "openvino": "ov", "tensorrt": "trt", "litert": "tfl"}
#: Size of an open axis other than the batch's where a runtime is profiled: tokens of a short sentence.
_OPEN_SIZE = 16
#: The input that tells a text's tokens from padding.
_MASK = "attention_mask"


@dataclass(frozen=True)
class Executed:
    """What the runtime really did, read back from it.

    Attributes:
        precision: of the weighted layers: int8, fp32, bf16, fp16, or mixed.
        integer_macs: share (0 to 1) of multiply-accumulates done in integers; None where the runtime does not tell.
        layers: precision → number of weighted layers (convolutions and matrix products).
    """

    precision: str
    integer_macs: float | None
    layers: Mapping[str, int]

    @classmethod
    def from_layers(cls, layers: list[tuple[str, int]]) -> Executed:
        """From (precision, multiply-accumulates) of each weighted layer."""
        counts: dict[str, int] = {}
        macs: dict[str, int] = {}
        for precision, count in layers:
            counts[precision] = counts.get(precision, 0) + 1
            macs[precision] = macs.get(precision, 0) + count
        total = sum(macs.values())
        if not total:
            return cls("unknown", None, counts)
        share, main = max((count / total, precision) for precision, count in macs.items())
        return cls(main if share >= 0.9 else "mixed", macs.get("int8", 0) / total, dict(sorted(counts.items())))


class Session(Protocol):
    """An artifact loaded into its runtime.

    Attributes:
        inputs: of the network, in its order.
    """

    inputs: tuple[TensorSpec, ...]

    def run(self, feeds: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Execute once.

        Args:
            feeds: an array for each of :attr:`inputs`, of its dtype and shape.

        Returns:
            every output of the network by its name; first axes count samples.

        Raises:
            BackendError: an input is missing, unknown, or has another dtype or shape, or the session is closed.
        """
        ...

    def executed(self) -> Executed:
        """What precision the layers ran in, read back from the runtime."""
        ...

    def close(self) -> None:
        """Free the runtime's memory and threads; from any thread, and more than once if that is easier."""
        ...


def open_session(artifact: Artifact, *, threads: int = 1, simulated: bool = False) -> Session:
    """Load an artifact into its runtime.

    Args:
        artifact: what to load.
        threads: worker threads of a CPU runtime.
        simulated: execute on this machine what was made for another one: Q/DQ models, and what was converted from
            them, in float arithmetic by ONNX Runtime, which fuses no pair, OpenVINO models for GPU or NPU by the CPU
            plugin. Shows what the numbers would be, never how fast.

    Raises:
        BackendError: the file is damaged, or the runtime refuses it or is not installed.
    """
    module, artifact = _opened_by(artifact, simulated)
    session: Session = module.open_session(artifact, threads=threads, simulated=simulated)
    return session


def open_sessions(
    artifact: Artifact, count: int, *, threads: int = 1, batch: int = 1, simulated: bool = False
) -> list[Session]:
    """Load an artifact several times, to work at once, where they would hinder each other with settings of their own.

    Args:
        artifact: what to load.
        count: sessions.
        threads: worker threads of each.
        batch: the most samples that will be given at once, where the graph leaves that open: an engine is built for it.
        simulated: see :func:`open_session`.

    Raises:
        BackendError: see :func:`open_session`.
    """
    together = getattr(_opened_by(artifact, simulated)[0], "open_sessions", None)
    if together is not None:
        return list(together(artifact, count, threads=threads, batch=batch, simulated=simulated))
    return [open_session(artifact, threads=threads, simulated=simulated) for _ in range(count)]


def reentrant(artifact: Artifact, *, simulated: bool = False) -> bool:
    """Whether several threads may call ``run`` of one session of an artifact at once.

    Raises:
        BackendError: see :func:`open_session`.
    """
    return bool(getattr(_opened_by(artifact, simulated)[0], "REENTRANT", False))


def prepare(artifact: Artifact) -> None:
    """Have this device make what it runs in an artifact's stead, where its runtime does so once: TensorRT's engine.

    Raises:
        BackendError: see :func:`open_session`.
    """
    module, artifact = _opened_by(artifact, simulated=False)
    make = getattr(module, "prepare", None)
    if make is not None:
        make(artifact)


def closed() -> BackendError:
    """What a session that was closed answers."""
    return BackendError("the session is closed", "open another one")


def _opened_by(artifact: Artifact, simulated: bool) -> tuple[ModuleType, Artifact]:
    """The module that opens an artifact, and the file that it opens in its stead if it is to be simulated."""
    if not artifact.path.is_file():
        raise BackendError(f"there is no artifact {artifact.path}", "export the bundle again")
    name = _MODULES.get(artifact.backend)
    if name is None:
        raise BackendError(f"no runtime called '{artifact.backend}'", f"known are {', '.join(_MODULES)}")
    if simulated and artifact.graph.suffix == ".onnx":
        name, artifact = "ort", replace(artifact, path=artifact.graph)
    try:
        return importlib.import_module(f"edgetl.runtime.{name}"), artifact
    except ModuleNotFoundError as error:
        raise BackendError(
            f"{artifact.backend} artifacts cannot be executed here", "run on the target device, or simulate them"
        ) from error


def check_feeds(feeds: Arrays, inputs: Sequence[TensorSpec]) -> None:
    """Refuse what a session was not made for.

    Raises:
        BackendError: a name is missing or unknown, or a dtype or shape is wrong, with what was expected.
    """
    if len(feeds) != len(inputs) or any(spec.name not in feeds for spec in inputs):
        names = ", ".join(f"'{spec.name}'" for spec in inputs)
        wanted = f"input is {names}" if len(inputs) == 1 else f"inputs are {names}"
        raise BackendError(f"the model's {wanted}, not {', '.join(feeds) or 'nothing'}", "name them so")
    for spec in inputs:
        array = feeds[spec.name]
        if not spec.accepts(array):
            wanted = f"{spec.dtype} {'x'.join('n' if size is None else str(size) for size in spec.shape)}"
            got = f"{array.dtype} {'x'.join(map(str, array.shape))}"
            raise BackendError(f"the input '{spec.name}' takes {wanted}, not {got}", "prepare it as the bundle says")


def fixed_batch(inputs: Sequence[TensorSpec]) -> int | None:
    """How many samples a network takes at once; None where any number is accepted."""
    return next((spec.shape[0] for spec in inputs if spec.shape and spec.shape[0] is not None), None)


def unpadded(feeds: Arrays, inputs: Sequence[TensorSpec]) -> Arrays:
    """Feeds of one sample without the places that its ``attention_mask`` leaves out, where any length is accepted.

    Golden texts are padded to one length to stand in one array; programs feed each as long as it is.
    """
    mask = feeds.get(_MASK)
    if mask is None or mask.ndim != 2 or any(len(spec.shape) < 2 or spec.shape[1] is not None for spec in inputs):
        return feeds
    kept = mask.any(axis=0)
    return {name: values[:, kept] for name, values in feeds.items()}


def zeros(inputs: Sequence[TensorSpec]) -> dict[str, npt.NDArray[Any]]:
    """Feeds of zeros for one run: one sample, or a fixed batch; other open axes have 16 places."""
    return {
        spec.name: np.zeros(
            [size or (_OPEN_SIZE if axis else 1) for axis, size in enumerate(spec.shape)], np.dtype(spec.dtype)
        )
        for spec in inputs
    }
