"""TensorRT's Python interface as far as edgetl uses it, over the driver beside this folder.

An engine is its ONNX model with profiles, for one build of TensorRT and one GPU. What the real one refuses is refused
in its way: by False, None, or nothing but a message.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import sys

import numpy as np
import onnx
import onnxruntime

__version__ = os.environ.get("FAKE_TENSORRT_VERSION", "10.3.0.26")
_MAJOR = int(__version__.split(".")[0])
_MAGIC = b"ENGINE\n"
_driver = ctypes.CDLL("libcuda.so.1")
_driver.fake_count.restype = ctypes.c_long
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


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


if _MAJOR < 11:
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


def _fault(message: str) -> None:
    _driver.fake_fault(message.replace("%", "%%").encode())


class _Held:
    """Device memory that TensorRT keeps for itself: weights, or scratch."""

    def __init__(self, size: int) -> None:
        _bind()
        address = ctypes.c_uint64()
        _driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size))
        self.address = address.value

    def free(self) -> None:
        if self.address and _driver.cuMemFree_v2(ctypes.c_uint64(self.address)):
            _fault("TensorRT's memory was given back in a thread without its context, or after it")


def _bind() -> None:
    """What cudart does for a thread that has no context, and a program should have done."""
    if not _driver.fake_depth():
        _driver.cuInit(0)
        _driver.fake_bind()


def _gpu() -> str:
    name, major, minor = ctypes.create_string_buffer(256), ctypes.c_int(), ctypes.c_int()
    _driver.cuDeviceGetName(name, 256, 0)
    _driver.cuDeviceGetAttribute(ctypes.byref(major), 75, 0)
    _driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, 0)
    return f"{name.value.decode()} {major.value}.{minor.value}"


def _shape(value) -> tuple[int, ...]:
    return tuple(size.dim_value if size.HasField("dim_value") else -1 for size in value.type.tensor_type.shape.dim)


def _kind(value) -> DataType:
    if value.type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16:
        return DataType.BF16
    return DataType(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).type)


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        _bind()
        self.logger = logger

    def deserialize_cuda_engine(self, serialized: bytes) -> ICudaEngine | None:
        _bind()
        try:
            assert serialized.startswith(_MAGIC)
            head, model = serialized[len(_MAGIC) :].split(b"\n", 1)
            told = json.loads(head)
            assert len(model) == told["bytes"]
        except (AssertionError, ValueError):
            self.logger.log(ILogger.ERROR, "Serialization assertion magicTagRead == kMAGIC_TAG failed.")
            return None
        if told["version"] != __version__ or told["gpu"] != _gpu():
            self.logger.log(ILogger.ERROR, f"The engine plan file is not compatible: {told['version']}, {told['gpu']}")
            return None
        loaded = ICudaEngine(self, told, model)
        return loaded if loaded.weights.address else None


class ICudaEngine:
    def __init__(self, runtime: Runtime, told: dict, model: bytes) -> None:
        self.runtime, self.told, self.model = runtime, told, onnx.load_from_string(model)
        graph = self.model.graph
        self.tensors = {value.name: value for value in (*graph.input, *graph.output)}
        self.given = [value.name for value in graph.input]
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.weights = _Held(len(model))

    def __del__(self) -> None:
        self.weights.free()

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.given else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return _kind(self.tensors[name])

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.HOST if name in self.told["shapes"] else TensorLocation.DEVICE

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return _shape(self.tensors[name])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        if profile_index:
            raise RuntimeError("no such profile")
        fixed = [list(self.get_tensor_shape(name))] * 3
        return [tuple(sizes) for sizes in self.told["profile"].get(name, fixed)]

    def create_execution_context(self) -> IExecutionContext | None:
        made = IExecutionContext(self)
        return made if made.scratch.address else None


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self.engine, self.scratch = engine, _Held(4096)
        self.shapes = {name: engine.get_tensor_shape(name) for name in engine.given}
        self.addresses = dict.fromkeys(engine.tensors, 0)
        self.launch: _Launch | None = None

    def __del__(self) -> None:
        if self.launch is not None and not self.launch.state["done"]:
            _fault("an execution context was destroyed before its work was done")
        self.scratch.free()

    def _error(self, message: str) -> bool:
        self.engine.runtime.logger.log(ILogger.ERROR, f"IExecutionContext: {message}")
        return False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if name not in self.shapes:
            return self._error(f"{name} is no input")
        least, _, most = self.engine.get_tensor_profile_shape(name, 0)
        fits = len(shape) == len(least) and all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True))
        if not fits:
            return self._error(f"{name} of {shape} is not within {least} and {most}")
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.shapes:
            return self.shapes[name]
        model = onnx.ModelProto()
        model.CopyFrom(self.engine.model)
        del model.graph.value_info[:]
        for value in (*model.graph.input, *model.graph.output):
            sizes = self.shapes.get(value.name, (-1,) * len(_shape(value)))
            for axis, size in enumerate(sizes):
                axis_of = value.type.tensor_type.shape.dim[axis]
                axis_of.Clear()
                if size >= 0:
                    axis_of.dim_value = size
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        return next(_shape(value) for value in inferred.graph.output if value.name == name)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self.addresses or not memory or memory % 256:
            return self._error(f"{memory:#x} is no address for {name}")
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        _bind()
        missing = [name for name, address in self.addresses.items() if not address]
        missing += [name for name, shape in self.shapes.items() if min(shape, default=0) < 0]
        if missing:
            return self._error(f"neither shape nor address of {missing}")
        self.launch = _Launch(self.engine, self.shapes, self.addresses)
        return not _driver.fake_enqueue(ctypes.c_void_p(stream_handle), self.launch.callback, None)


class _Launch:
    """One execution, which a stream comes to in its time."""

    def __init__(self, engine: ICudaEngine, shapes: dict, addresses: dict[str, int]) -> None:
        state, shapes, addresses = {"done": False}, dict(shapes), dict(addresses)

        def work(_: object) -> int:
            try:
                return _compute(engine, shapes, addresses)
            except Exception as error:
                _fault(f"a kernel failed: {error}")
                return 1
            finally:
                state["done"] = True

        self.state, self.callback = state, _CALLBACK(work)


def _compute(engine: ICudaEngine, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> int:
    feeds = {}
    for name, shape in shapes.items():
        feeds[name] = np.empty(shape, nptype(engine.get_tensor_dtype(name)))
        if _moved(_driver.fake_read, addresses[name], feeds[name]):
            return 1
    names = [value.name for value in engine.model.graph.output]
    results = zip(names, engine.session.run(names, feeds), strict=True)
    return sum(_moved(_driver.fake_write, addresses[name], value) for name, value in results)


def _moved(function, address: int, array: np.ndarray) -> int:
    array = np.ascontiguousarray(array)
    here = array.ctypes.data_as(ctypes.c_void_p)
    return function(ctypes.c_uint64(address), here, ctypes.c_size_t(array.nbytes))


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


class _Network:
    def __init__(self, flags: int) -> None:
        self.flags, self.model = flags, onnx.ModelProto()

    @property
    def num_inputs(self) -> int:
        return len(self.model.graph.input)

    def get_input(self, index: int):
        value = self.model.graph.input[index]
        return type("ITensor", (), {"name": value.name, "shape": _shape(value)})


class _ParserError:
    def __init__(self, message: str) -> None:
        self.message = message

    def __str__(self) -> str:
        return f"In node -1 with name:  and operator:  (parse):\n{self.message}"

    def node_name(self) -> str:
        return ""

    def desc(self) -> str:
        return self.message


class OnnxParser:
    def __init__(self, network: _Network, logger: ILogger) -> None:
        self.network, self.errors = network, []

    def parse(self, model: bytes) -> bool:
        try:
            loaded = onnx.load_from_string(bytes(model))
            onnx.checker.check_model(loaded)
        except Exception as error:
            self.errors = [_ParserError(f"Failed to parse the ONNX model\n{str(error).splitlines()[0]}")]
            return False
        self.network.model = loaded
        return True

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> _ParserError:
        return self.errors[index]


class ITimingCache:
    def __init__(self, held: bytes) -> None:
        self.held = held

    def serialize(self) -> IHostMemory:
        return IHostMemory(self.held)


class IBuilderConfig:
    def __init__(self) -> None:
        self.profiles: list[dict] = []
        self.cache: ITimingCache | None = None
        self.limits: dict[MemoryPoolType, int] = {}

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        self.limits[pool] = size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized: bytes) -> ITimingCache | None:
        return ITimingCache(bytes(serialized)) if not serialized or serialized.startswith(b"timings ") else None

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        header = f"timings {_gpu()} {__version__}\n".encode()
        if cache.held and not cache.held.startswith(header) and not ignore_mismatch:
            return False
        cache.held = cache.held or header
        self.cache = cache
        return True


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, list] = {}

    def set_shape(self, name: str, least, usual, most) -> None:
        if not all(a <= b <= c for a, b, c in zip(least, usual, most, strict=True)):
            raise ValueError("Error occurred while setting the shape")
        self.shapes[name] = [list(least), list(usual), list(most)]


class Builder:
    def __init__(self, logger: ILogger) -> None:
        if _driver.cuInit(0):
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.logger = logger

    def create_network(self, flags: int = 0) -> _Network:
        return _Network(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: _Network, config: IBuilderConfig) -> IHostMemory | None:
        opened = [value.name for value in network.model.graph.input if min(_shape(value), default=0) < 0]
        strong = bool(network.flags >> int(NetworkDefinitionCreationFlag.STRONGLY_TYPED) & 1)
        if not strong and _MAJOR < 11:
            self.logger.log(ILogger.ERROR, "Q/DQ layers and float16 need a strongly typed network, or flags")
            return None
        if any(name not in profile for name in opened for profile in config.profiles or [{}]):
            self.logger.log(ILogger.ERROR, f"Network has dynamic inputs, but no profile for {opened}")
            return None
        if config.cache is not None:
            config.cache.held += b"another kernel\n"
        model, profile = network.model.SerializeToString(), (config.profiles or [{}])[0]
        shapes = [name for name in os.environ.get("FAKE_TENSORRT_SHAPES", "").split(",") if name]
        head = {"version": __version__, "gpu": _gpu(), "profile": profile, "bytes": len(model), "shapes": shapes}
        return IHostMemory(_MAGIC + json.dumps(head).encode() + b"\n" + model)
