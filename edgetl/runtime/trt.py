"""TensorRT: engines built on the device that runs them, executed through the CUDA driver alone.

Memory goes through ``libcuda`` by ctypes, because every Jetson and every RTX machine has the driver, while CUDA
packages for Python differ from one JetPack to the next.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BackendError
from edgetl.base.storage import sha256_file
from edgetl.core.bundle import Artifact
from edgetl.core.tensors import Arrays, TensorSpec
from edgetl.runtime import build_engine
from edgetl.runtime.sessions import Executed, check_feeds


class Cuda:
    """The few driver calls that an inference needs, on the first GPU's primary context."""

    def __init__(self) -> None:
        try:
            self._driver = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            raise BackendError(
                "this machine has no NVIDIA GPU to run a TensorRT engine", "run on the device: --device NAME"
            ) from error
        device, context, self.stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)
        self.call("cuStreamCreate", ctypes.byref(self.stream), 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Call the driver.

        Raises:
            BackendError: it reports an error, by its number in ``cuda.h``.
        """
        status = getattr(self._driver, name)(*arguments)
        if status:
            raise BackendError(f"the CUDA driver's {name} reports error {status}", "look it up as CUresult in cuda.h")

    def allocate(self, size: int) -> int:
        """Device memory of ``size`` bytes; its address."""
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value

    def free(self, address: int) -> None:
        """Give memory back."""
        self.call("cuMemFree_v2", ctypes.c_uint64(address))

    def upload(self, address: int, array: npt.NDArray[Any]) -> None:
        """Copy a contiguous array to the device, in stream order."""
        size = ctypes.c_size_t(array.nbytes)
        self.call(
            "cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), array.ctypes.data_as(ctypes.c_void_p), size, self.stream
        )

    def download(self, array: npt.NDArray[Any], address: int) -> None:
        """Copy from the device into a contiguous array and wait for everything in the stream."""
        size = ctypes.c_size_t(array.nbytes)
        self.call(
            "cuMemcpyDtoHAsync_v2", array.ctypes.data_as(ctypes.c_void_p), ctypes.c_uint64(address), size, self.stream
        )
        self.call("cuStreamSynchronize", self.stream)


class TensorRtSession:
    """One engine, its execution context and its buffers, for one sample at a time."""

    def __init__(self, engine_file: Path, module: str) -> None:
        trt = __import__(module)
        self._cuda = Cuda()
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(engine_file.read_bytes())
        if self._engine is None:
            raise BackendError(f"TensorRT cannot load {engine_file}", "delete it: it is built again")
        self._context = self._engine.create_execution_context()
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        given = {name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT}
        self.inputs = tuple(self._spec(trt, name) for name in names if name in given)
        self._dtypes = {
            name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in names if name not in given
        }
        #: Device memory of each tensor: its address and its size in bytes.
        self._memory: dict[str, tuple[int, int]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def _spec(self, trt: Any, name: str) -> TensorSpec:
        batch, *sizes = self._engine.get_tensor_shape(name)
        shape = (max(batch, 1), *(None if size < 0 else int(size) for size in sizes))
        return TensorSpec(name, np.dtype(trt.nptype(self._engine.get_tensor_dtype(name))).name, shape)

    def run(self, feeds: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See :class:`edgetl.runtime.sessions.Session`."""
        check_feeds(feeds, self.inputs)
        for spec in self.inputs:
            array = np.ascontiguousarray(feeds[spec.name])
            self._shape(spec.name, array.shape)
            self._cuda.upload(self._place(spec.name, array.nbytes), array)
        results = {
            name: np.empty(tuple(self._context.get_tensor_shape(name)), dtype) for name, dtype in self._dtypes.items()
        }
        addresses = {name: self._place(name, result.nbytes) for name, result in results.items()}
        if not self._context.execute_async_v3(self._cuda.stream.value or 0):
            raise BackendError("TensorRT could not execute the engine", "build it again on this device")
        for name, result in results.items():
            self._cuda.download(result, addresses[name])
        return results

    def _shape(self, name: str, shape: tuple[int, ...]) -> None:
        if self._shapes.get(name) == shape:
            return
        if not self._context.set_input_shape(name, shape):
            sizes = "x".join(map(str, shape))
            raise BackendError(f"the engine takes no '{name}' of {sizes}", "build it for that size: build_engine.py")
        self._shapes[name] = shape

    def _place(self, name: str, size: int) -> int:
        """The address of a tensor's device memory, which grows as it must."""
        address, have = self._memory.get(name, (0, 0))
        if have < size:
            if have:
                self._cuda.free(address)
            address = self._cuda.allocate(size)
            self._memory[name] = address, size
            self._context.set_tensor_address(name, address)
        return address

    def executed(self) -> Executed:
        """TensorRT tells tensor formats, not what a fused kernel computes in: nothing is claimed."""
        return Executed("not told by TensorRT", None, {})

    def close(self) -> None:
        """Free the device memory and the engine."""
        for address, _ in self._memory.values():
            self._cuda.free(address)
        del self._context, self._engine, self._runtime


def open_session(artifact: Artifact, *, threads: int, simulated: bool) -> TensorRtSession:
    """Load the engine of an ONNX artifact, building it first where this device has none yet.

    Raises:
        BackendError: no GPU, no TensorRT, or the engine cannot be built; ``simulated`` is another module's work.
    """
    Cuda()
    built = _built(artifact.path)
    try:
        return TensorRtSession(Path(built["engine"]), built["module"])
    except BackendError:
        # Of another build of the same version, perhaps: TensorRT loads none but its own.
        if not built["reused"]:
            raise
        built = _built(artifact.path, "--rebuild")
        return TensorRtSession(Path(built["engine"]), built["module"])


def engines_folder() -> Path:
    """Where this user's engines are kept; it need not exist. Never in a bundle, where anybody may have put one."""
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else Path.home() / ".cache") / "edgetl/engines"


def _built(model: Path, *options: str) -> dict[str, Any]:
    # edgetl's own script: what lies beside the model is for people, and nobody vouches for it. One folder a model,
    # because the engine's own name holds only part of its hash.
    script, out = Path(build_engine.__file__), engines_folder() / sha256_file(model)
    places = ["--model", str(model.absolute()), "--out", str(out), "--timings", str(engines_folder())]
    done = subprocess.run(
        [sys.executable, str(script), *places, *options],
        capture_output=True,
        check=False,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise BackendError(f"the engine of {model} cannot be built ({last})", f"run it by hand: {script}")
    built: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return built
