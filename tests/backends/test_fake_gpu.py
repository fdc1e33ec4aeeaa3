"""The fake GPU refuses what it is there to refuse; without that, no test that runs on it says anything."""

from __future__ import annotations

import ctypes
import inspect
import shutil
import sys
import threading
import time
from collections.abc import Callable
from ctypes import byref, c_size_t, c_uint64, c_void_p
from pathlib import Path

import pytest

from edgetl.base.extras import available
from tests.gpu.fake import FakeGpu

INVALID_VALUE, OUT_OF_MEMORY, INVALID_CONTEXT, ILLEGAL_ADDRESS, DESTROYED = 1, 2, 201, 700, 709
SIZE = 1000


class Program:
    """A context that is current here, a stream, memory of both kinds."""

    def __init__(self, library: Path) -> None:
        self.cuda = ctypes.CDLL(str(library))
        self.fake = FakeGpu(self.cuda)
        context, self.stream, self.host, self.device = c_void_p(), c_void_p(), c_void_p(), c_uint64()
        assert self.cuda.cuDeviceGetCount(byref(ctypes.c_int())) == 3, "cuInit comes first"
        assert self.cuda.cuInit(0) == self.cuda.cuDevicePrimaryCtxRetain(byref(context), 0) == 0
        assert self.cuda.cuMemAlloc_v2(byref(self.device), c_size_t(SIZE)) == INVALID_CONTEXT
        assert self.cuda.cuCtxPushCurrent_v2(context) == 0
        assert self.cuda.cuStreamCreate(byref(self.stream), 1) == 0
        assert self.cuda.cuMemAlloc_v2(byref(self.device), c_size_t(SIZE)) == 0
        assert self.cuda.cuMemHostAlloc(byref(self.host), c_size_t(SIZE), 0) == 0
        assert self.fake.held() == {"allocated": 1, "page-locked": 1, "streams": 1, "retained": 1}

    def upload(self, size: int, host: c_void_p | None = None) -> int:
        return self.cuda.cuMemcpyHtoDAsync_v2(self.device, host or self.host, c_size_t(size), self.stream)

    def download(self, size: int) -> int:
        return self.cuda.cuMemcpyDtoHAsync_v2(self.host, self.device, c_size_t(size), self.stream)

    def wait(self) -> int:
        return self.cuda.cuStreamSynchronize(self.stream)

    def seen(self) -> bytes:
        return ctypes.string_at(self.host, SIZE)

    def write(self, value: int) -> None:
        ctypes.memset(self.host, value, SIZE)


@pytest.fixture
def program(gpu_driver: Path, tmp_path: Path) -> Program:
    return Program(Path(shutil.copy(gpu_driver / "libcuda.so.1", tmp_path / "libcuda.so.1")))


def elsewhere(work: Callable[[], object]) -> object:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def test_a_context_is_of_one_thread(program: Program) -> None:
    assert elsewhere(program.wait) == INVALID_CONTEXT
    assert elsewhere(lambda: program.upload(SIZE)) == INVALID_CONTEXT
    assert program.wait() == 0


def test_work_is_done_when_somebody_waits(program: Program) -> None:
    """What is written before that is what is copied; what is read before that is old."""
    program.write(1)
    assert program.upload(SIZE) == 0
    program.write(2)
    assert program.wait() == 0
    program.write(3)
    assert program.download(SIZE) == 0
    assert program.seen() == b"\3" * SIZE
    assert program.wait() == 0
    assert program.seen() == b"\2" * SIZE
    other = ctypes.create_string_buffer(SIZE)
    assert program.upload(SIZE, ctypes.cast(other, c_void_p)) == 0
    assert program.fake.count("pageable copies") == 1
    assert program.fake.faults == ""


def test_memory_has_a_size(program: Program) -> None:
    assert program.upload(SIZE + 1) == program.download(SIZE + 1) == INVALID_VALUE
    larger = c_uint64()
    assert program.cuda.cuMemAlloc_v2(byref(larger), c_size_t(2 * SIZE)) == 0
    program.device = larger
    assert program.upload(SIZE + 1) == 0
    assert program.wait() == ILLEGAL_ADDRESS
    assert "beyond page-locked memory" in program.fake.faults
    assert program.cuda.cuMemAlloc_v2(byref(larger), c_size_t(1)) == ILLEGAL_ADDRESS, "the context is broken"


def test_a_kernel_stays_within_its_buffers(program: Program) -> None:
    there = ctypes.create_string_buffer(SIZE + 1)
    assert program.cuda.fake_read(program.device, there, c_size_t(SIZE)) == 0
    assert program.cuda.fake_write(program.device, there, c_size_t(SIZE + 1)) == ILLEGAL_ADDRESS
    assert program.fake.faults == f"a kernel wrote {SIZE + 1} bytes out of bounds"


@pytest.mark.parametrize("call", ["cuMemFree_v2", "cuMemFreeHost"])
def test_memory_is_not_freed_under_a_copy_nor_twice(call: str, program: Program) -> None:
    address = program.device if call == "cuMemFree_v2" else program.host
    program.upload(SIZE)
    assert getattr(program.cuda, call)(address) == 0
    assert program.fake.faults == "memory was freed while a copy of it was waiting"
    assert program.wait() == ILLEGAL_ADDRESS
    assert getattr(program.cuda, call)(address) == ILLEGAL_ADDRESS


def test_what_is_left_in_a_context_is_told(program: Program) -> None:
    assert program.cuda.cuDevicePrimaryCtxRelease_v2(0) == 0
    assert program.fake.count("faults") == 3
    assert program.fake.held() == {"allocated": 1, "page-locked": 1, "streams": 1, "retained": 0}
    assert program.wait() == DESTROYED


def test_a_thread_that_leaves_a_context_current_is_told(program: Program) -> None:
    context = c_void_p()
    assert program.cuda.cuDevicePrimaryCtxRetain(byref(context), 0) == 0
    assert elsewhere(lambda: program.cuda.cuCtxPushCurrent_v2(context)) == 0
    # Python's join returns a little before the system's thread has ended.
    for _ in range(500):
        if program.fake.faults:
            break
        time.sleep(0.01)
    assert program.fake.faults == "a thread ended with a context current"


def test_memory_runs_out_when_it_is_told_to(program: Program) -> None:
    program.fake.fail("cuMemAlloc_v2", 2)
    made = [program.cuda.cuMemAlloc_v2(byref(c_uint64()), c_size_t(1)) for _ in range(3)]
    assert made == [0, OUT_OF_MEMORY, 0]


@pytest.mark.usefixtures("gpu")
def test_it_offers_nothing_that_tensorrt_lacks() -> None:
    if not available("tensorrt_rtx_bindings"):
        pytest.skip("tensorrt_rtx is not installed: nothing to compare with")
    sys.modules.pop("tensorrt_rtx")
    import tensorrt as fake
    import tensorrt_rtx as real

    for name, kind in inspect.getmembers(fake, inspect.isclass):
        assert hasattr(real, name), name
        public = [each for each in vars(kind) if not each.startswith("_")]
        missing = [each for each in public if not hasattr(getattr(real, name), each)]
        assert missing == (["FP16", "INT8"] if name == "BuilderFlag" else []), name
