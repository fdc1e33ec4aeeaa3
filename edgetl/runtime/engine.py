"""Engines of TensorRT: built once on the device that runs them, kept, and loaded for any number of sessions."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.base.errors import BackendError
from edgetl.base.storage import sha256_file
from edgetl.core.tensors import TensorSpec
from edgetl.runtime import build_engine
from edgetl.runtime.cuda import Gpu, gpus


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

    def opens_batch(self) -> bool:
        """Whether the model leaves the first axis of an input open, whatever the engine was built for."""
        return any(tuple(self._engine.get_tensor_shape(spec.name))[:1] == (-1,) for spec in self.inputs)

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


def engines_folder() -> Path:
    """Where this user's engines are kept; it need not exist. Never in a bundle, where anybody may have put one."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "edgetl/engines"


def _need_gpu() -> None:
    if not gpus():
        raise BackendError(
            "this machine has no NVIDIA GPU to run a TensorRT engine", "run on the device: --device NAME"
        )


def engine_of(model: Path, batch: int) -> Engine:
    """The engine of an ONNX file for a batch, or for one sample where the model does not leave that open.

    Raises:
        BackendError: no GPU, no TensorRT, or it cannot be built.
    """
    engine = _loaded(model, 1)
    if batch == 1 or not engine.opens_batch():
        return engine
    engine.close()
    return _loaded(model, batch)


def _loaded(model: Path, batch: int) -> Engine:
    _need_gpu()
    try:
        trt = build_engine.load_tensorrt()
        identity = build_engine.identified(trt, model.read_bytes(), batch)
    except SystemExit as error:
        raise BackendError(f"no engine of {model} can be loaded ({error})", "run: edgetl doctor") from error
    engine = identity.engine(_folder(identity.model_sha256))
    if not build_engine.is_whole(engine):
        engine = built(model, batch)
    try:
        return Engine(trt, engine)
    except EngineRefusedError:
        return Engine(trt, built(model, batch))


def _folder(model_sha256: str) -> Path:
    # One folder a model, because the engine's own name holds only part of its hash.
    return engines_folder() / model_sha256


def built(model: Path, batch: int) -> Path:
    """The engine of a model, built by another process, whose memory goes with it, unless there is one that loads."""
    # edgetl's own script: what lies beside the model is for people, and nobody vouches for it.
    script = Path(build_engine.__file__)
    out = str(_folder(sha256_file(model)))
    places = ["--model", str(model.absolute()), "--out", out, "--timings", str(engines_folder())]
    command = [sys.executable, str(script), *places, "--batch", str(batch)]
    done = subprocess.run(command, capture_output=True, check=False, encoding="utf-8", errors="replace")
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise BackendError(f"the engine of {model} cannot be built ({last})", f"run it by hand: {script}")
    return Path(json.loads(done.stdout.strip().splitlines()[-1])["engine"])
