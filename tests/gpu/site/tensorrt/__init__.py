"""TensorRT's Python interface as far as edgetl uses it, over the fake driver.

An engine is its ONNX model with profiles, for one build of TensorRT and one GPU. What the real one refuses is refused
in its way: by False, None, or nothing but a message.
"""

from .builder import Builder, IBuilderConfig, IHostMemory, IOptimizationProfile, ITimingCache, OnnxParser
from .runtime import ICudaEngine, IExecutionContext, Runtime
from .types import (
    BuilderFlag,
    DataType,
    ILogger,
    Logger,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    TensorIOMode,
    TensorLocation,
    __version__,
    nptype,
)

__all__ = [
    "Builder",
    "BuilderFlag",
    "DataType",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILogger",
    "IOptimizationProfile",
    "ITimingCache",
    "Logger",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "Runtime",
    "TensorIOMode",
    "TensorLocation",
    "__version__",
    "nptype",
]
