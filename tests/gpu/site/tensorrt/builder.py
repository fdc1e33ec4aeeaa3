"""From an ONNX model to an engine."""

from __future__ import annotations

import json
import os

import onnx

from .types import (
    MAGIC,
    ILogger,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    __version__,
    driver,
    gpu,
    shape_of,
)


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
        return type("ITensor", (), {"name": value.name, "shape": shape_of(value)})


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
        header = f"timings {gpu()} {__version__}\n".encode()
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
        if driver.cuInit(0):
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self.logger = logger

    def create_network(self, flags: int = 0) -> _Network:
        return _Network(flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: _Network, config: IBuilderConfig) -> IHostMemory | None:
        opened = [value.name for value in network.model.graph.input if min(shape_of(value), default=0) < 0]
        strong = bool(network.flags >> int(NetworkDefinitionCreationFlag.STRONGLY_TYPED) & 1)
        if not strong and int(__version__.split(".")[0]) < 11:
            self.logger.log(ILogger.ERROR, "Q/DQ layers and float16 need a strongly typed network, or flags")
            return None
        if any(name not in profile for name in opened for profile in config.profiles or [{}]):
            self.logger.log(ILogger.ERROR, f"Network has dynamic inputs, but no profile for {opened}")
            return None
        if config.cache is not None:
            config.cache.held += b"another kernel\n"
        model, profile = network.model.SerializeToString(), (config.profiles or [{}])[0]
        shapes = [name for name in os.environ.get("FAKE_TENSORRT_SHAPES", "").split(",") if name]
        head = {"version": __version__, "gpu": gpu(), "profile": profile, "bytes": len(model), "shapes": shapes}
        return IHostMemory(MAGIC + json.dumps(head).encode() + b"\n" + model)
