"""TensorRT: sessions on an engine, executed through the CUDA driver alone."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BackendError
from edgetl.core.bundle import Artifact
from edgetl.core.tensors import Arrays
from edgetl.runtime.cuda import Buffer, Stream
from edgetl.runtime.engine import Engine, built, engine_of
from edgetl.runtime.sessions import Executed, check_feeds, closed

Shapes = Mapping[str, tuple[int, ...]]


class TensorRtSession:
    """One execution context of an engine, with its stream and buffers; one run at a time, from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._lock, self.inputs = engine, threading.Lock(), engine.inputs
        self._context: Any = None
        self._arranged: Shapes = {}
        #: Each input's and each output's buffer, and the host's side of it as an array.
        self._given: dict[str, tuple[Buffer, npt.NDArray[Any]]] = {}
        self._made: dict[str, tuple[Buffer, npt.NDArray[Any]]] = {}
        engine.share()
        with contextlib.ExitStack() as undo:
            undo.callback(engine.close)
            with engine.gpu.current():
                self._stream = Stream(engine.gpu)
                undo.callback(self._stream.close)
                undo.callback(self._forget)
                self._context = engine.context()
            self._held = undo.pop_all()

    def run(self, feeds: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See :class:`edgetl.runtime.sessions.Session`."""
        check_feeds(feeds, self.inputs)
        with self._lock:
            if self._context is None:
                raise closed()
            with self._engine.gpu.current():
                shapes = {name: array.shape for name, array in feeds.items()}
                if shapes != self._arranged:
                    self._arrange(shapes)
                try:
                    self._queue(feeds)
                finally:
                    # Also when it fails: what is queued still reads the buffers that the next run writes.
                    self._stream.wait()
                return {name: array.copy() for name, (_, array) in self._made.items()}

    def _queue(self, feeds: Arrays) -> None:
        for name, (buffer, array) in self._given.items():
            np.copyto(array, feeds[name])
            self._stream.upload(buffer, array.nbytes)
        if not self._context.execute_async_v3(self._stream.handle):
            raise BackendError("TensorRT could not execute the engine", "build it again on this device")
        for buffer, array in self._made.values():
            self._stream.download(buffer, array.nbytes)

    def _arrange(self, shapes: Shapes) -> None:
        """Make everything ready for inputs of these shapes."""
        self._arranged, self._given, self._made = {}, {}, {}
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise BackendError(f"the engine takes no '{name}' of {_sizes(shape)}", self._offer(name))
        given = {spec.name: (shapes[spec.name], np.dtype(spec.dtype)) for spec in self.inputs}
        made = {name: (self._shape_of(name), dtype) for name, dtype in self._engine.dtypes.items()}
        self._given = {name: self._bound(name, *kind) for name, kind in given.items()}
        self._made = {name: self._bound(name, *kind) for name, kind in made.items()}
        self._arranged = dict(shapes)

    def _shape_of(self, name: str) -> tuple[int, ...]:
        shape = tuple(self._context.get_tensor_shape(name))
        if min(shape, default=0) < 0:
            raise BackendError(f"the size of '{name}' depends on what is computed", "leave that out of the model")
        return shape

    def _bound(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Buffer, npt.NDArray[Any]]:
        buffer = self._stream.buffer(name, dtype.itemsize * math.prod(shape))
        if not self._context.set_tensor_address(name, buffer.address):
            raise BackendError(f"TensorRT takes no memory for '{name}'", "build the engine again on this device")
        return buffer, buffer.view(dtype, shape)

    def _offer(self, name: str) -> str:
        least, most = map(_sizes, self._engine.limits(name))
        return f"feed {least} to {most}" if least != most else f"feed {most}"

    def executed(self) -> Executed:
        """TensorRT tells tensor formats, not what a fused kernel computes in: nothing is claimed."""
        return Executed("not told by TensorRT", None, {})

    def close(self) -> None:
        """Give back memory, stream and, with the engine's last session, the engine; from any thread, at any time."""
        with self._lock:
            self._held.close()

    def _forget(self) -> None:
        self._arranged, self._given, self._made = {}, {}, {}
        with self._engine.gpu.current():
            self._context = None


def _sizes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def open_session(artifact: Artifact, *, threads: int, simulated: bool) -> TensorRtSession:
    """Load the engine of an ONNX artifact, building it first where this device has none yet.

    Raises:
        BackendError: no GPU, no TensorRT, or the engine cannot be built; ``simulated`` is another module's work.
    """
    (session,) = open_sessions(artifact, 1, threads=threads, batch=1)
    return session


def open_sessions(
    artifact: Artifact, count: int, *, threads: int, batch: int, simulated: bool = False
) -> list[TensorRtSession]:
    """Sessions that will work at once, on one engine for this batch: its weights lie in the GPU's memory once."""
    with contextlib.closing(engine_of(artifact.path, batch)) as engine, contextlib.ExitStack() as undo:
        sessions = []
        for _ in range(count):
            sessions.append(TensorRtSession(engine))
            undo.callback(sessions[-1].close)
        undo.pop_all()
    return sessions


def prepare(artifact: Artifact) -> None:
    """Build the engine of an ONNX artifact unless this device has one that its TensorRT loads.

    Raises:
        BackendError: see :func:`open_session`.
    """
    # Whoever times a start calls this first: neither TensorRT nor the driver is loaded in this process.
    built(artifact.path, 1)
