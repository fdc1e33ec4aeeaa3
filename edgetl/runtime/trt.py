"""TensorRT: engines built on the device that runs them, executed through the CUDA driver alone."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BackendError
from edgetl.base.storage import sha256_file
from edgetl.core.bundle import Artifact
from edgetl.core.tensors import Arrays, TensorSpec
from edgetl.runtime import build_engine
from edgetl.runtime.cuda import Buffer, Gpu, Stream, gpus
from edgetl.runtime.sessions import Executed, check_feeds, closed

Shapes = Mapping[str, tuple[int, ...]]


class EngineRefusedError(BackendError):
    """TensorRT does not load an engine, which another build of it made, perhaps: it is to be built again."""


class Engine:
    """An engine in the GPU's memory, for any number of sessions; freed when the last of them lets go.

    Raises:
        EngineRefusedError: TensorRT does not load it.
        BackendError: a tensor is of a kind that numpy does not know, or lies on the host.
    """

    def __init__(self, trt: Any, file: Path) -> None:
        self._lock, self._users = threading.Lock(), 1
        with contextlib.ExitStack() as undo:
            self.gpu = Gpu()
            undo.callback(self.gpu.close)
            undo.callback(self._unload)
            with self.gpu.current():
                try:
                    self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
                except Exception as error:  # pybind's, whose class tells nothing
                    raise BackendError(f"TensorRT does not start here ({error})", "run: edgetl doctor") from error
                self._engine = self._runtime.deserialize_cuda_engine(file.read_bytes())
            if self._engine is None:
                raise EngineRefusedError(f"TensorRT cannot load {file}", "delete it: it is built again")
            self._describe(trt, file)
            self._held = undo.pop_all()

    def _describe(self, trt: Any, file: Path) -> None:
        # No local name for the engine: an exception's traceback would keep it beyond its context.
        specs, outputs = [], {}
        for name in map(self._engine.get_tensor_name, range(self._engine.num_io_tensors)):
            kind = self._engine.get_tensor_dtype(name)
            try:
                dtype = np.dtype(trt.nptype(kind))
            except TypeError as error:
                raise BackendError(f"'{name}' of {file} is {kind}, which numpy lacks", "export it as float") from error
            if self._engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
                raise BackendError(f"'{name}' of {file} is a shape, not an array", "make it a constant of the model")
            if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                specs.append(TensorSpec(name, dtype.name, self._accepted(name)))
            else:
                outputs[name] = dtype
        self.inputs: tuple[TensorSpec, ...] = tuple(specs)
        #: of each output
        self.dtypes: Mapping[str, np.dtype[Any]] = outputs

    def _accepted(self, name: str) -> tuple[int | None, ...]:
        """Sizes that an input must have; None where the engine was built for several."""
        given = tuple(self._engine.get_tensor_shape(name))
        if min(given, default=0) >= 0:
            return given
        least, most = self.limits(name)
        return tuple(high if low == high else None for low, high in zip(least, most, strict=True))

    def limits(self, name: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The least and the most sizes of an input with open axes that the engine was built for."""
        least, _, most = self._engine.get_tensor_profile_shape(name, 0)
        return tuple(least), tuple(most)

    def context(self) -> Any:
        """What one session executes in, with scratch memory of its own; TensorRT 10 lets several share a profile."""
        made = self._engine.create_execution_context()
        if made is None:
            raise BackendError("TensorRT has no memory for another session", "open fewer, or close other programs")
        return made

    def share(self) -> None:
        """Have one more user, who closes it."""
        with self._lock:
            self._users += 1

    def close(self) -> None:
        """Let go; the last user frees it."""
        with self._lock:
            self._users -= 1
            last = not self._users
        if last:
            self._held.close()

    def _unload(self) -> None:
        # Their memory is given back by TensorRT as the last reference goes, to the context that is current then.
        with self.gpu.current():
            self._engine = self._runtime = None


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
    (session,) = open_sessions(artifact, 1, threads=threads)
    return session


def open_sessions(artifact: Artifact, count: int, *, threads: int) -> list[TensorRtSession]:
    """Sessions that will work at once, on one engine: its weights lie in the GPU's memory once."""
    with contextlib.closing(_loaded(artifact.path)) as engine, contextlib.ExitStack() as undo:
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
    _built(artifact.path)


def engines_folder() -> Path:
    """Where this user's engines are kept; it need not exist. Never in a bundle, where anybody may have put one."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "edgetl/engines"


def _need_gpu() -> None:
    if not gpus():
        raise BackendError(
            "this machine has no NVIDIA GPU to run a TensorRT engine", "run on the device: --device NAME"
        )


def _loaded(model: Path) -> Engine:
    _need_gpu()
    try:
        trt = build_engine.load_tensorrt()
        found = build_engine.identified(trt, model.read_bytes())
    except SystemExit as error:
        raise BackendError(f"no engine of {model} can be loaded ({error})", "run: edgetl doctor") from error
    engine = found.engine(_folder(found.model_sha256))
    if not build_engine.is_whole(engine):
        engine = _built(model)
    try:
        return Engine(trt, engine)
    except EngineRefusedError:
        return Engine(trt, _built(model))


def _folder(model_sha256: str) -> Path:
    # One folder a model, because the engine's own name holds only part of its hash.
    return engines_folder() / model_sha256


def _built(model: Path) -> Path:
    """The engine of a model, built by another process, whose memory goes with it, unless there is one that loads."""
    # edgetl's own script: what lies beside the model is for people, and nobody vouches for it.
    script = Path(build_engine.__file__)
    out = str(_folder(sha256_file(model)))
    places = ["--model", str(model.absolute()), "--out", out, "--timings", str(engines_folder())]
    done = subprocess.run([sys.executable, str(script), *places], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise BackendError(f"the engine of {model} cannot be built ({last})", f"run it by hand: {script}")
    return Path(json.loads(done.stdout.strip().splitlines()[-1])["engine"])
