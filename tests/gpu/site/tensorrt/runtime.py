"""Engines and what executes them."""

from __future__ import annotations

import ctypes
import json

import numpy as np
import onnx
import onnxruntime

from .types import (
    MAGIC,
    DataType,
    Held,
    ILogger,
    TensorIOMode,
    TensorLocation,
    __version__,
    bind,
    driver,
    fault,
    gpu,
    kind_of,
    nptype,
    shape_of,
)

_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        bind()
        self.logger = logger

    def deserialize_cuda_engine(self, serialized: bytes) -> ICudaEngine | None:
        bind()
        try:
            assert serialized.startswith(MAGIC)
            head, model = serialized[len(MAGIC) :].split(b"\n", 1)
            told = json.loads(head)
            assert len(model) == told["bytes"]
        except (AssertionError, ValueError):
            self.logger.log(ILogger.ERROR, "Serialization assertion magicTagRead == kMAGIC_TAG failed.")
            return None
        if told["version"] != __version__ or told["gpu"] != gpu():
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
        # A GPU multiplies 8-bit numbers exactly, which a CPU without VNNI does if it is told to.
        options.add_session_config_entry("session.x64quantprecision", "1")
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.weights = Held(len(model))

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
        return kind_of(self.tensors[name])

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.HOST if name in self.told["shapes"] else TensorLocation.DEVICE

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return shape_of(self.tensors[name])

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
        self.engine, self.scratch = engine, Held(4096)
        self.shapes = {name: engine.get_tensor_shape(name) for name in engine.given}
        self.addresses = dict.fromkeys(engine.tensors, 0)
        self.launch: _Launch | None = None

    def __del__(self) -> None:
        if self.launch is not None and not self.launch.state["done"]:
            fault("an execution context was destroyed before its work was done")
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
            sizes = self.shapes.get(value.name, (-1,) * len(shape_of(value)))
            for axis, size in enumerate(sizes):
                axis_of = value.type.tensor_type.shape.dim[axis]
                axis_of.Clear()
                if size >= 0:
                    axis_of.dim_value = size
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        return next(shape_of(value) for value in inferred.graph.output if value.name == name)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if name not in self.addresses or not memory or memory % 256:
            return self._error(f"{memory:#x} is no address for {name}")
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        bind()
        missing = [name for name, address in self.addresses.items() if not address]
        missing += [name for name, shape in self.shapes.items() if min(shape, default=0) < 0]
        if missing:
            return self._error(f"neither shape nor address of {missing}")
        self.launch = _Launch(self.engine, self.shapes, self.addresses)
        return not driver.fake_enqueue(ctypes.c_void_p(stream_handle), self.launch.callback, None)


class _Launch:
    """One execution, which a stream comes to in its time."""

    def __init__(self, engine: ICudaEngine, shapes: dict, addresses: dict[str, int]) -> None:
        state, shapes, addresses = {"done": False}, dict(shapes), dict(addresses)

        def work(_: object) -> int:
            try:
                return _compute(engine, shapes, addresses)
            except Exception as error:
                fault(f"a kernel failed: {error}")
                return 1
            finally:
                state["done"] = True

        self.state, self.callback = state, _CALLBACK(work)


def _compute(engine: ICudaEngine, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> int:
    feeds = {}
    for name, shape in shapes.items():
        feeds[name] = np.empty(shape, nptype(engine.get_tensor_dtype(name)))
        if _moved(driver.fake_read, addresses[name], feeds[name]):
            return 1
    names = [value.name for value in engine.model.graph.output]
    results = zip(names, engine.session.run(names, feeds), strict=True)
    return sum(_moved(driver.fake_write, addresses[name], value) for name, value in results)


def _moved(function, address: int, array: np.ndarray) -> int:
    array = np.ascontiguousarray(array)
    here = array.ctypes.data_as(ctypes.c_void_p)
    return function(ctypes.c_uint64(address), here, ctypes.c_size_t(array.nbytes))
