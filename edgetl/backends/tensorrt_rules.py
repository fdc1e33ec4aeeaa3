"""The checks that a TensorRT table's rules name: each looks at one node of a model and finds a fault, doubt or nothing.

A check gets the rule's settings as arguments. It answers with what it saw (''), so that the verdict can tell it, and
whether that is certain: what depends on values or shapes that are not in the file is a doubt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.extras import require

#: ONNX's names of types → NVIDIA's, where they differ.
_SPELLED = {
    "FLOAT": "FP32",
    "FLOAT16": "FP16",
    "BFLOAT16": "BF16",
    "FLOAT8E4M3FN": "FP8",
    "FLOAT4E2M1": "FP4",
}


@dataclass(frozen=True)
class Seen:
    """What a check saw."""

    what: str
    certain: bool = True


@dataclass(frozen=True)
class Facts:
    """What is known of a model's tensors, by name.

    Attributes:
        types: in NVIDIA's spelling.
        shapes: None for a size that is open.
        constants: arrays of initializers and of Constant nodes.
        inputs, outputs: of the network.
        functions: the model's local functions.
    """

    types: Mapping[str, str]
    shapes: Mapping[str, tuple[int | None, ...]]
    constants: Mapping[str, npt.NDArray[Any]]
    inputs: frozenset[str]
    outputs: frozenset[str]
    functions: frozenset[str]


def facts(model: Any) -> Facts:
    """Read an ONNX model whose shapes were inferred."""
    types: dict[str, str] = {}
    shapes: dict[str, tuple[int | None, ...]] = {}
    constants: dict[str, npt.NDArray[Any]] = {}
    for graph in _graphs(model.graph):
        _add_values(graph, types, shapes)
        _add_constants(graph, types, shapes, constants)
    return Facts(
        types,
        shapes,
        constants,
        frozenset(value.name for value in model.graph.input) - {tensor.name for tensor in model.graph.initializer},
        frozenset(value.name for value in model.graph.output),
        frozenset(function.name for function in model.functions),
    )


def nodes(graph: Any) -> Iterator[Any]:
    """All nodes, those in the bodies of If, Loop and Scan too."""
    for inner in _graphs(graph):
        yield from inner.node


def attributes(node: Any) -> dict[str, Any]:
    """Values of a node's attributes by name, texts as ``str``."""
    onnx = require("onnx", "judging a model for TensorRT")
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(inner)


def _spelled(elem_type: int) -> str:
    onnx = require("onnx", "judging a model for TensorRT")
    name = str(onnx.TensorProto.DataType.Name(elem_type))
    return _SPELLED.get(name, name)


def _add_values(graph: Any, types: dict[str, str], shapes: dict[str, tuple[int | None, ...]]) -> None:
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type:
            types[value.name] = _spelled(tensor.elem_type)
        if tensor.HasField("shape"):
            shapes[value.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)


def _add_constants(
    graph: Any,
    types: dict[str, str],
    shapes: dict[str, tuple[int | None, ...]],
    constants: dict[str, npt.NDArray[Any]],
) -> None:
    onnx = require("onnx", "judging a model for TensorRT")
    named = [(tensor.name, tensor) for tensor in graph.initializer]
    named += [
        (node.output[0], attribute.t)
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    for name, tensor in named:
        types[name], shapes[name] = _spelled(tensor.data_type), tuple(tensor.dims)
        # Weights kept in another file are not needed: only small tensors are ever looked into.
        if tensor.data_location != onnx.TensorProto.EXTERNAL and tensor.data_type != onnx.TensorProto.STRING:
            constants[name] = onnx.numpy_helper.to_array(tensor)


def _input(node: Any, index: int) -> str:
    return node.input[index] if index < len(node.input) else ""


def _zero(node: Any, known: Facts, *, input: int) -> Seen | None:
    name = _input(node, input)
    if not name:
        return None
    if name not in known.constants:
        return Seen(f"{name} is not constant", certain=False)
    values = np.asarray(known.constants[name]).astype(np.float64)
    return Seen(f"{name} is {values.flat[np.abs(values).argmax()]:g}") if values.any() else None


def _output_type(node: Any, known: Facts, *, output: int, types: str) -> Seen | None:
    found = known.types.get(node.output[output])
    if found is None:
        return Seen(f"the type of {node.output[output]} is not known", certain=False)
    return None if found in types.split() else Seen(f"it makes {found}")


def _between(node: Any, known: Facts, *, type: str) -> Seen | None:
    if node.op_type == "QuantizeLinear":  # has a rule of its own
        return None
    found = [name for name in node.output if known.types.get(name) == type and name not in known.outputs]
    return Seen(f"it makes {type} inside the network") if found else None


def _attribute(node: Any, known: Facts, *, attribute: str, allowed: list[Any]) -> Seen | None:
    values = attributes(node)
    if attribute not in values:
        return None
    value = values[attribute]
    each = value if isinstance(value, (list, tuple)) else [value]
    return Seen(f"{attribute} is {value}") if not allowed or any(one not in allowed for one in each) else None


def _outputs(node: Any, known: Facts, *, at_most: int) -> Seen | None:
    used = [name for name in node.output if name]
    return Seen(f"it has {len(used)} outputs") if len(used) > at_most else None


def _inputs(node: Any, known: Facts, *, at_least: int) -> Seen | None:
    return Seen(f"it has {len(node.input)} inputs") if len(node.input) < at_least else None


def _no_input(node: Any, known: Facts, *, input: int) -> Seen | None:
    return Seen(f"{_input(node, input)} is given") if _input(node, input) else None


def _constant(node: Any, known: Facts, *, input: int) -> Seen | None:
    name = _input(node, input)
    if not name or name in known.constants:
        return None
    return Seen(f"{name} is computed" if name not in known.inputs else f"{name} is an input", name in known.inputs)


def _rank(node: Any, known: Facts, *, input: int, allowed: list[int]) -> Seen | None:
    name = _input(node, input)
    if not name or name not in known.shapes:
        return Seen(f"the rank of {name} is not known", certain=False) if name else None
    rank = len(known.shapes[name])
    return None if rank in allowed else Seen(f"{name} has {rank} dimensions")


def _below(node: Any, known: Facts, *, input: int, limit: int) -> Seen | None:
    value = known.constants.get(_input(node, input))
    if value is None:
        return Seen(f"{_input(node, input)} is not constant", certain=False)
    largest = float(np.max(value)) if value.size else -math.inf
    return Seen(f"{_input(node, input)} is {largest:g}") if largest >= limit else None


def _functions(node: Any, known: Facts) -> Seen | None:
    return Seen(f"{node.op_type} is a local function") if node.op_type in known.functions else None


CHECKS: dict[str, Callable[..., Seen | None]] = {
    "zero": _zero,
    "output_type": _output_type,
    "between": _between,
    "attribute": _attribute,
    "outputs": _outputs,
    "inputs": _inputs,
    "no_input": _no_input,
    "constant": _constant,
    "rank": _rank,
    "below": _below,
    "functions": _functions,
}
