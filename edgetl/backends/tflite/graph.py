"""Writing ``.tflite`` files: tensors, operators and buffers of one graph, by the schema in LiteRT's package."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.extras import require

_PURPOSE = "compiling for LiteRT"
_TYPES = {"float32": "FLOAT32", "int8": "INT8", "uint8": "UINT8", "int32": "INT32"}
#: Operator version that the schema asks for where int8 came later than float; 1 for every other operator.
_INT8_VERSIONS = {
    "ADD": 2, "AVERAGE_POOL_2D": 2, "CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "DEQUANTIZE": 2,
    "FULLY_CONNECTED": 4, "LOGISTIC": 2, "MAX_POOL_2D": 2, "MEAN": 2, "MUL": 2, "PAD": 2, "PADV2": 2, "QUANTIZE": 2,
    "RESHAPE": 1, "SUB": 2,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Grid:
    """How integers stand for real numbers: ``scale × (q − zero)``.

    Attributes:
        scale: float32 (1,), or one for each channel.
        zero: int64, of the same shape.
        axis: of the channels in the stored tensor.
    """

    scale: npt.NDArray[np.float32]
    zero: npt.NDArray[np.int64]
    axis: int = 0

    def same(self, other: Grid) -> bool:
        """Whether both give every integer the same value."""
        return np.array_equal(self.scale, other.scale) and np.array_equal(self.zero, other.zero)


@dataclass
class TfliteGraph:
    """One graph under construction; tensors are named by their index."""

    tensors: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=list)
    codes: dict[tuple[str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.schema = require("ai_edge_litert.schema_py_generated", _PURPOSE)
        # By convention the first buffer is empty: it is that of every tensor without data.
        self.buffers.append(self.schema.BufferT())

    def tensor(self, name: str, shape: tuple[int, ...], dtype: Any, grid: Grid | None = None) -> int:
        """A tensor that an operator writes, or the graph's input."""
        return self._add(name, shape, np.dtype(dtype), grid, 0)

    def constant(self, name: str, data: npt.NDArray[Any], grid: Grid | None = None) -> int:
        """A tensor with its data: float32, int8 or int32."""
        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        self.buffers.append(buffer)
        return self._add(name, data.shape, data.dtype, grid, len(self.buffers) - 1)

    def _add(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], grid: Grid | None, buffer: int) -> int:
        made = self.schema.TensorT()
        made.name, made.shape, made.buffer = name.encode(), np.array(shape, np.int32), buffer
        made.type = getattr(self.schema.TensorType, _TYPES[dtype.name])
        if grid is not None:
            made.quantization = self.schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = grid.scale, grid.zero
            made.quantization.quantizedDimension = grid.axis
        self.tensors.append(made)
        return len(self.tensors) - 1

    def shape(self, tensor: int) -> tuple[int, ...]:
        """A tensor's shape."""
        return tuple(int(size) for size in self.tensors[tensor].shape)

    def operator(self, kind: str, inputs: list[int], output: int, options: str = "", **settings: Any) -> int:
        """Append an operator and return its output.

        Args:
            kind: name in the schema's ``BuiltinOperator``.
            inputs, output: tensors.
            options: name of its table of options in the schema, without ``T``; "" for none.
            settings: fields of that table.
        """
        made = self.schema.OperatorT()
        in_integers = any(self.tensors[i].type == self.schema.TensorType.INT8 for i in [*inputs, output])
        key = kind, _INT8_VERSIONS.get(kind, 1) if in_integers else 1
        made.opcodeIndex = self.codes.setdefault(key, len(self.codes))
        made.inputs, made.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        if options:
            made.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            made.builtinOptions = getattr(self.schema, f"{options}T")()
            for name, value in settings.items():
                setattr(made.builtinOptions, name, value)
        self.operators.append(made)
        return output

    def to_bytes(self, inputs: list[int], outputs: list[int], description: str) -> bytes:
        """The whole file; the same graph gives the same bytes."""
        flatbuffers = require("flatbuffers", _PURPOSE)
        graph = self.schema.SubGraphT()
        graph.tensors, graph.operators, graph.name = self.tensors, self.operators, b"main"
        graph.inputs, graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        model = self.schema.ModelT()
        model.version, model.description = 3, description.encode()
        model.subgraphs, model.buffers = [graph], self.buffers
        model.operatorCodes = [self._code(kind, version) for kind, version in self.codes]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _code(self, kind: str, version: int) -> Any:
        made = self.schema.OperatorCodeT()
        made.builtinCode = getattr(self.schema.BuiltinOperator, kind)
        # Older readers look here; the value is capped for operators that came after the field was full.
        made.deprecatedBuiltinCode = min(made.builtinCode, 127)
        made.version = version
        return made
