"""The CUDA driver, as far as an inference needs it, by ctypes.

Every Jetson and every RTX machine has the driver, while CUDA packages for Python differ from one JetPack to the next.

A context is current in one thread only, so whatever calls the driver does so inside :meth:`Gpu.current`.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BackendError

#: A stream that does not wait for the legacy default stream, in which other libraries may work.
_NON_BLOCKING = 1
_LOOK_UP = "look it up as CUresult in cuda.h"


def _driver() -> Any:
    """The driver, initialised.

    Raises:
        BackendError: there is none, or it finds no GPU.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise BackendError(
            "this machine has no NVIDIA GPU to run a TensorRT engine", "run on the device, or simulate"
        ) from error
    _check(driver, "cuInit", driver.cuInit(0))
    return driver


def _check(driver: Any, name: str, status: int) -> None:
    if status:
        told = ctypes.c_char_p()
        driver.cuGetErrorName(status, ctypes.byref(told))
        reason = f"error {status} ({told.value.decode()})" if told.value else f"error {status}"
        raise BackendError(f"the CUDA driver's {name} reports {reason}", _LOOK_UP)


def gpus() -> tuple[str, ...]:
    """Names of the CUDA devices; none without a driver, or where it finds none."""
    try:
        driver = _driver()
    except BackendError:
        return ()
    count, names = ctypes.c_int(), []
    driver.cuDeviceGetCount(ctypes.byref(count))
    for index in range(count.value):
        device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
        if not driver.cuDeviceGet(ctypes.byref(device), index) and not driver.cuDeviceGetName(name, 256, device):
            names.append(name.value.decode(errors="replace"))
    return tuple(names)


class Gpu:
    """The first GPU's primary context, the one that TensorRT uses too."""

    def __init__(self) -> None:
        self._driver = _driver()
        self._device, context = ctypes.c_int(), ctypes.c_void_p()
        self.call("cuDeviceGet", ctypes.byref(self._device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._context: ctypes.c_void_p | None = context

    def call(self, name: str, *arguments: Any) -> None:
        """Call the driver.

        Raises:
            BackendError: it reports an error.
        """
        _check(self._driver, name, getattr(self._driver, name)(*arguments))

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in the calling thread meanwhile, which is left as it was found."""
        self.call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self._driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))

    def close(self) -> None:
        """Let the context go: the driver destroys it with whoever is the last to do so."""
        if self._context is not None:
            self._context = None
            self.call("cuDevicePrimaryCtxRelease_v2", self._device)


class Buffer:
    """A tensor's memory on the device, and as much page-locked memory of the host, without which copies block.

    Attributes:
        address: on the device.
        size: of both, in bytes.
    """

    def __init__(self, gpu: Gpu, size: int) -> None:
        self._gpu, self.size = gpu, max(size, 1)
        address, host = ctypes.c_uint64(), ctypes.c_void_p()
        with contextlib.ExitStack() as undo:
            gpu.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(self.size))
            undo.callback(gpu.call, "cuMemFree_v2", address)
            gpu.call("cuMemHostAlloc", ctypes.byref(host), ctypes.c_size_t(self.size), ctypes.c_uint(0))
            undo.callback(gpu.call, "cuMemFreeHost", host)
            self._held = undo.pop_all()
        self.address, self._host = address.value, host

    def view(self, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The host's memory as an array, which must not outlive it."""
        assert self._host.value is not None
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        raw = memoryview((ctypes.c_uint8 * self.size).from_address(self._host.value))
        return np.frombuffer(raw, kind, count).reshape(shape)

    def free(self) -> None:
        """Give both back."""
        self._held.close()


class Stream:
    """A queue of work of its own, with the buffers that it copies to and from."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu, self._stream = gpu, ctypes.c_void_p()
        self._buffers: dict[str, Buffer] = {}
        gpu.call("cuStreamCreate", ctypes.byref(self._stream), ctypes.c_uint(_NON_BLOCKING))

    @property
    def handle(self) -> int:
        """As TensorRT takes it."""
        return self._stream.value or 0

    def buffer(self, name: str, size: int) -> Buffer:
        """The buffer of a tensor, at least so large; only while nothing is in the queue."""
        have = self._buffers.get(name)
        if have is None or have.size < size:
            if have is not None:
                del self._buffers[name]
                have.free()
            self._buffers[name] = have = Buffer(self._gpu, size)
        return have

    def upload(self, buffer: Buffer, size: int) -> None:
        """Queue a copy of the first bytes to the device."""
        there, here = ctypes.c_uint64(buffer.address), buffer._host
        self._gpu.call("cuMemcpyHtoDAsync_v2", there, here, ctypes.c_size_t(size), self._stream)

    def download(self, buffer: Buffer, size: int) -> None:
        """Queue a copy of the first bytes from the device."""
        there, here = ctypes.c_uint64(buffer.address), buffer._host
        self._gpu.call("cuMemcpyDtoHAsync_v2", here, there, ctypes.c_size_t(size), self._stream)

    def wait(self) -> None:
        """Return when all that was queued is done."""
        self._gpu.call("cuStreamSynchronize", self._stream)

    def close(self) -> None:
        """Give everything back, once what is queued is done."""
        with self._gpu.current(), contextlib.ExitStack() as all_of_it:
            all_of_it.callback(self._gpu.call, "cuStreamDestroy_v2", self._stream)
            for buffer in self._buffers.values():
                all_of_it.callback(buffer.free)
            all_of_it.callback(self.wait)
        self._buffers = {}
