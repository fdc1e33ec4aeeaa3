"""What stands before a foreign graph, so that it takes the arrays that an input definition gives.

An image arrives as uint8 (n, height, width, channels), as in every model that edgetl exports: a Cast, which TensorRT
wants to be the very first node, then the layout, then mean and standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.base.wording import enumerated
from edgetl.compress.foreign.simplifying import BATCH, Axis, resized, set_shape, shape_of, unused
from edgetl.core.tensors import TensorSpec
from edgetl.inputs import Preprocess, Tensors
from edgetl.inputs.base import Input

Layout = Literal["NCHW", "NHWC"]
IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
_REMEDY = "export the model so that it takes what its preprocessing gives, or correct --preprocess"


@dataclass
class Prefix:
    """Nodes and weights that are to come before a graph's own."""

    nodes: list[Any] = field(default_factory=list)
    weights: list[Any] = field(default_factory=list)

    def then(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node; the name of its output."""
        helper = require("onnx", "changing ONNX models").helper
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    def weight(self, name: str, values: Any) -> str:
        """Add a constant, float32; its name."""
        made = require("onnx", "changing ONNX models").numpy_helper.from_array(np.asarray(values, np.float32), name)
        self.weights.append(made)
        return name


def dtype_of(value: Any) -> str:
    """numpy's name of the type of a graph's input."""
    helper = require("onnx", "reading ONNX models").helper
    return str(np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)).name)


def layout_of(value: Any, channels: int) -> Layout:
    """How an image lies in a graph's input.

    Raises:
        CompressionError: it takes no image of so many channels.
    """
    sizes = shape_of(value)
    if len(sizes) == 4 and sizes[1] == channels:
        return "NCHW"
    if len(sizes) == 4 and sizes[3] == channels:
        return "NHWC"
    shown = "x".join("n" if size is None else str(size) for size in sizes)
    what = f"the model's input '{value.name}' is {dtype_of(value)} {shown}, no image of {channels} channels"
    raise CompressionError(what, _REMEDY)


def fit(model: Any, definition: Input) -> None:
    """Fix in a graph the sizes that a definition fixes, in place.

    Raises:
        CompressionError: it takes others, or other inputs.
    """
    if not isinstance(definition, Preprocess):
        _refuse_names(model, definition)
    shapes: dict[str, list[Axis]] = {}
    for value, spec in paired(model, definition):
        own = shape_of(value)
        wanted: list[int | None] = list(spec.shape)
        if isinstance(definition, Preprocess) and layout_of(value, wanted[3] or 0) == "NCHW":
            wanted = [wanted[0], wanted[3], wanted[1], wanted[2]]
        # A size that the graph leaves open takes whatever comes; one that it has, nothing else.
        clash = [a for a, b in zip(own[1:], wanted[1:], strict=False) if a is not None and a != b]
        if len(own) != len(wanted) or clash:
            shown = ["x".join("n" if size is None else str(size) for size in sizes) for sizes in (own, wanted)]
            what = f"the model's input '{value.name}' is {shown[0]}, and its preprocessing gives {shown[1]}"
            raise CompressionError(what, _REMEDY)
        pairs = zip(own, wanted, strict=True)
        shapes[value.name] = [_axis(a or b, axis) for axis, (a, b) in enumerate(pairs)]
    if TYPES in {value.name for value in model.graph.input}:
        shapes[TYPES] = shapes[IDS]
    resized(model, shapes)


def _axis(size: int | None, axis: int) -> Axis:
    return size or (BATCH if axis == 0 else "length" if axis == 1 else f"size_{axis}")


def _refuse_names(model: Any, definition: Input) -> None:
    own = {value.name for value in model.graph.input} - {TYPES}
    wanted = {spec.name for spec in definition.tensors}
    if own != wanted and not len(own) == len(wanted) == 1:
        what = f"the model takes {enumerated(sorted(own))}, and its preprocessing gives {enumerated(sorted(wanted))}"
        raise CompressionError(what, _REMEDY)


def paired(model: Any, definition: Input) -> list[tuple[Any, TensorSpec]]:
    """Each of the graph's inputs with what is to be fed there."""
    named = {value.name: value for value in model.graph.input if value.name != TYPES}
    specs = definition.tensors
    if len(specs) == 1:
        if len(named) != 1:
            raise CompressionError(f"the model takes {enumerated(named)}, and one array is given", _REMEDY)
        return [(next(iter(named.values())), specs[0])]
    return [(named[spec.name], spec) for spec in specs]


def lay(model: Any, definition: Input) -> str:
    """Put the prefix before a graph whose sizes are fixed, in place; how the graph takes an image, or "".

    Raises:
        CompressionError: the graph takes a type that is not made of what the definition gives.
    """
    # A graph that edgetl exported once, and somebody changed, has a prefix of its own.
    for name in [name for node in model.graph.node for name in node.output if name.startswith("prefix/")]:
        rename(model, name, unused(model, f"given/{name}"))
    for tensor in [tensor for tensor in model.graph.initializer if tensor.name.startswith("prefix/")]:
        rename(model, tensor.name, unused(model, f"given/{tensor.name}"))
    pairs, prefix, how = paired(model, definition), Prefix(), ""
    fed = [(value.name, dtype_of(value), shape_of(value)) for value, _ in pairs]
    for (value, spec), (name, dtype, _) in zip(pairs, fed, strict=True):
        inner = f"{name}.inner"
        rename(model, name, inner)
        if isinstance(definition, Preprocess):
            how = _lay_image(prefix, value, spec, definition, (inner, dtype))
        else:
            _lay_array(prefix, spec, definition, (inner, dtype))
    if any(value.name == TYPES for value in model.graph.input):
        rename(model, TYPES, f"{TYPES}.inner")
        prefix.then("Sub", [IDS, IDS], f"{TYPES}.inner")
    _begin_with(model, prefix, [(spec, sizes) for (_, spec), (_, _, sizes) in zip(pairs, fed, strict=True)], how)
    return how


def _lay_image(prefix: Prefix, value: Any, spec: TensorSpec, definition: Preprocess, to: tuple[str, str]) -> str:
    inner, dtype = to
    layout = layout_of(value, spec.shape[3] or 0)
    if dtype not in ("float32", "float16", "uint8"):
        raise CompressionError(f"the model takes an image as {dtype}", "export it so that it takes float32 or uint8")
    name = prefix.then("Cast", [spec.name], "prefix/cast", to=_type("float32"))
    if layout == "NCHW":
        name = prefix.then("Transpose", [name], "prefix/planes", perm=[0, 3, 1, 2])
    # A graph that takes bytes normalises them itself: the definition says how, and nothing is left to do here.
    if dtype != "uint8":
        name = _normalised(prefix, name, definition, layout)
    if dtype == "float32":
        prefix.then("Identity", [name], inner)
    else:
        prefix.then("Cast", [name], inner, to=_type(dtype))
    return f"{dtype} {layout}"


def _normalised(prefix: Prefix, name: str, definition: Preprocess, layout: Layout) -> str:
    """As :class:`edgetl.transfer.model.Normalise` does it, and for the same reasons."""
    mean, std = 255 * np.array(definition.mean), 255 * np.array(definition.std)
    if len(set(definition.mean)) == 1 and len(set(definition.std)) == 1:
        mean, std = mean[:1].reshape(()), std[:1].reshape(())
    elif layout == "NCHW":
        ones, zeros = (prefix.weight(f"prefix/{n}", np.full(len(mean), n)) for n in (1, 0))
        given = [name, ones, zeros, prefix.weight("prefix/mean", mean), prefix.weight("prefix/variance", std**2)]
        return prefix.then("BatchNormalization", given, "prefix/normalised", epsilon=0.0)
    scaled = prefix.then("Mul", [name, prefix.weight("prefix/scale", 1 / std)], "prefix/scaled")
    return prefix.then("Sub", [scaled, prefix.weight("prefix/shift", mean / std)], "prefix/normalised")


def _lay_array(prefix: Prefix, spec: TensorSpec, definition: Input, to: tuple[str, str]) -> None:
    inner, dtype = to
    name = spec.name
    scaling = None
    if isinstance(definition, Tensors):
        scaling = next(array.scaling for array in definition.arrays if array.name == spec.name)
    if scaling is not None:
        mean, std = scaling
        less = prefix.then("Sub", [name, prefix.weight(f"{spec.name}.mean", mean)], f"{spec.name}.centred")
        name = prefix.then("Mul", [less, prefix.weight(f"{spec.name}.factor", 1 / std)], f"{spec.name}.scaled")
    if dtype == spec.dtype:
        prefix.then("Identity", [name], inner)
    else:
        prefix.then("Cast", [name], inner, to=_type(dtype))


def _type(dtype: str) -> int:
    helper = require("onnx", "changing ONNX models").helper
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def rename(model: Any, old: str, new: str) -> None:
    """Give a tensor of a graph another name, wherever it is read; in subgraphs of Loop and If too."""
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        for node in graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            waiting += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    for node in model.graph.node:
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*model.graph.output, *model.graph.initializer):
        value.name = new if value.name == old else value.name


def _begin_with(
    model: Any, prefix: Prefix, inputs: Sequence[tuple[TensorSpec, Sequence[int | None]]], how: str
) -> None:
    helper, graph = require("onnx", "changing ONNX models").helper, model.graph
    own = list(graph.node)
    del graph.node[:]
    graph.node.extend([*prefix.nodes, *own])
    graph.initializer.extend(prefix.weights)
    del graph.input[:]
    for spec, sizes in inputs:
        # Of an image only the batch is the graph's own: its sizes are the definition's.
        shape = [sizes[0], *(spec.shape[1:] if how else sizes[1:])]
        value = helper.make_tensor_value_info(spec.name, _type(spec.dtype), None)
        set_shape(value, [_axis(size, axis) for axis, size in enumerate(shape)])
        graph.input.append(value)
