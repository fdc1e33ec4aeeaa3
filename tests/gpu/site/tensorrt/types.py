"""Values that both halves know, and the driver."""

from __future__ import annotations

import ctypes
import enum
import os
import sys

import numpy as np
import onnx

__version__ = os.environ.get("FAKE_TENSORRT_VERSION", "10.3.0.26")
MAGIC = b"ENGINE\n"
driver = ctypes.CDLL("libcuda.so.1")
driver.fake_count.restype = ctypes.c_long


class DataType(enum.Enum):
    FLOAT = np.float32
    HALF = np.float16
    INT8 = np.int8
    INT32 = np.int32
    INT64 = np.int64
    UINT8 = np.uint8
    BOOL = np.bool_
    BF16 = "bfloat16"


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class TensorLocation(enum.Enum):
    DEVICE, HOST = range(2)


class MemoryPoolType(enum.Enum):
    WORKSPACE, TACTIC_DRAM = range(2)


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.Enum):
    TF32, REFIT = range(2)


if int(__version__.split(".")[0]) < 11:
    BuilderFlag = enum.Enum("BuilderFlag", "TF32 REFIT FP16 INT8")  # type: ignore[misc]


def nptype(kind: DataType) -> type:
    if kind is DataType.BF16:
        raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
    return kind.value


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def __init__(self, min_severity: int = WARNING) -> None:
        self.min_severity = min_severity

    def log(self, severity: int, message: str) -> None:
        raise NotImplementedError


class Logger(ILogger):
    def log(self, severity: int, message: str) -> None:
        if severity <= self.min_severity:
            print(f"[TRT] {message}", file=sys.stderr)


def fault(message: str) -> None:
    driver.fake_fault(message.replace("%", "%%").encode())


class Held:
    """Device memory that TensorRT keeps for itself: weights, or scratch."""

    def __init__(self, size: int) -> None:
        bind()
        address = ctypes.c_uint64()
        driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size))
        self.address = address.value

    def free(self) -> None:
        if self.address and driver.cuMemFree_v2(ctypes.c_uint64(self.address)):
            fault("TensorRT's memory was given back in a thread without its context, or after it")


def bind() -> None:
    """What cudart does for a thread that has no context, and a program should have done."""
    if not driver.fake_depth():
        driver.cuInit(0)
        driver.fake_bind()


def gpu() -> str:
    name, major, minor = ctypes.create_string_buffer(256), ctypes.c_int(), ctypes.c_int()
    driver.cuDeviceGetName(name, 256, 0)
    driver.cuDeviceGetAttribute(ctypes.byref(major), 75, 0)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, 0)
    return f"{name.value.decode()} {major.value}.{minor.value}"


def shape_of(value) -> tuple[int, ...]:
    return tuple(size.dim_value if size.HasField("dim_value") else -1 for size in value.type.tensor_type.shape.dim)


def kind_of(value) -> DataType:
    if value.type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16:
        return DataType.BF16
    return DataType(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).type)
