"""The one output that a task reads: chosen by name, before any Softmax or Sigmoid, of the task's shape."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.base.wording import enumerated
from edgetl.compress.foreign import inputs
from edgetl.compress.foreign.simplifying import shape_of, unused
from edgetl.core.tensors import TensorSpec

#: What turns logits into probabilities, by the kind of label it is meant for; training's losses take the logits.
ACTIVATIONS = {"Softmax": "class", "LogSoftmax": "class", "Sigmoid": "classes"}
#: What changes no value.
PLAIN = {"Identity", "Cast", "Dropout", "Reshape", "Squeeze", "Flatten", "Unsqueeze"}


def choose_output(model: Any, wanted: str | None) -> str:
    """The output that is to be kept; the others go, in place.

    Raises:
        CompressionError: none of that name, or several and none was named.
    """
    names = [value.name for value in model.graph.output]
    if wanted is None and len(names) > 1:
        raise CompressionError(f"the model has the outputs {enumerated(names, 20)}", "choose one: --output NAME")
    if wanted is not None and wanted not in names:
        raise CompressionError(f"the model has no output '{wanted}'", f"it has {enumerated(names, 20)}")
    kept = next(value for value in model.graph.output if value.name == (wanted or names[0]))
    del model.graph.output[:]
    model.graph.output.append(kept)
    return str(kept.name)


def cut_activation(model: Any, labels: str) -> str:
    """Take the Softmax, LogSoftmax or Sigmoid at the end off, in place; which it was, or "".

    Args:
        model: of one output.
        labels: kind of label of the task.

    Raises:
        CompressionError: two of them in a row, or one that the task has no use for.
    """
    found = activations(model)
    kind = ending_of([str(node.op_type) for node in found], labels)
    if kind:
        found[0].op_type = "Identity"
        del found[0].attribute[:]
    return kind


def ending_of(kinds: Sequence[str], labels: str) -> str:
    """The one activation at a model's end, or "" for none.

    Args:
        kinds: of the activations that follow one another there, the last one first.
        labels: kind of label of the task.

    Raises:
        CompressionError: two of them, or one that the task has no use for.
    """
    if not kinds:
        return ""
    kind = kinds[0]
    binary = kind == "Sigmoid" and labels == "class"
    if ACTIVATIONS[kind] != labels and not binary:
        need = {"class": "classes that exclude each other", "classes": "labels that do not exclude each other"}
        what = f"the model ends in {kind}, which is for {need[ACTIVATIONS[kind]]}, and the task's labels are otherwise"
        raise CompressionError(what, "name the right task: --task (see: edgetl tasks)")
    if len(kinds) > 1:
        what = f"the model ends in {kinds[1]} and {kind}: the second takes probabilities for logits"
        raise CompressionError(what, "export it without them, or with one")
    return kind


def activations(model: Any, through: Collection[str] = PLAIN) -> list[Any]:
    """The activations at a model's end, the last one first, with nothing but these operators after each."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node, found = makers.get(model.graph.output[0].name), []
    while node is not None and node.op_type in {*through, *ACTIVATIONS}:
        if node.op_type in ACTIVATIONS:
            found.append(node)
        node = makers.get(node.input[0])
    return found


def shape_output(model: Any, spec: TensorSpec, binary: bool) -> None:
    """Give the output the task's name and shape (n, width), in place.

    Args:
        model: of one output, whose shape was inferred.
        spec: the task's output.
        binary: one logit stands for two classes, of which it is the second's.

    Raises:
        CompressionError: it has another number of values for a sample.
    """
    onnx = require("onnx", "changing ONNX models")
    helper = onnx.helper
    value, graph = model.graph.output[0], model.graph
    sizes, width = shape_of(value), spec.shape[1]
    inner = [size for size in sizes[1:] if size is not None]
    known = int(np.prod(inner)) if sizes and len(inner) == len(sizes) - 1 else None
    own = 1 if binary else width
    if known is not None and known != own:
        what = f"the output '{value.name}' has {known} values for a sample, and there are {width} classes or values"
        raise CompressionError(what, "name all classes in the order of the outputs: --classes FILE")
    source = _freed(model, value.name, spec.name)
    if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        graph.node.append(helper.make_node("Cast", [source], [f"{source}.float"], to=onnx.TensorProto.FLOAT))
        source = f"{source}.float"
    flat = unused(model, f"{spec.name}.flat")
    shape = onnx.numpy_helper.from_array(np.array([-1, own], np.int64), f"{flat}.shape")
    graph.initializer.append(shape)
    graph.node.append(helper.make_node("Reshape", [source, shape.name], [flat if binary else spec.name], name=flat))
    if binary:
        graph.node.append(helper.make_node("Sub", [flat, flat], [f"{flat}.zero"], name=f"{flat}.zero"))
        graph.node.append(helper.make_node("Concat", [f"{flat}.zero", flat], [spec.name], name=spec.name, axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(spec.name, onnx.TensorProto.FLOAT, ["batch", width]))


def _freed(model: Any, output: str, name: str) -> str:
    """The output's tensor, after whatever has the name that the task's output is to get was given another."""
    if (free := unused(model, name)) == name:
        return output
    inputs.rename(model, name, free)
    return free if output == name else output
