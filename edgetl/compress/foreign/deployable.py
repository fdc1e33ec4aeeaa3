"""From a foreign model to one that edgetl compresses, certifies and deploys; what the file itself answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.compress import graph
from edgetl.compress.foreign import inputs, outputs
from edgetl.compress.foreign.reading import Foreign
from edgetl.compress.foreign.simplifying import opened, shape_of, simplified
from edgetl.core.tensors import Arrays, TensorSpec
from edgetl.inputs import Preprocess, Tensors
from edgetl.inputs.base import Input
from edgetl.runtime.ort import set_arithmetic

#: Largest difference between the changed model and the file, as a share of the range of its outputs.
PARITY = 1e-3
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Deployable:
    """A foreign model as edgetl would have exported it: uint8 images or named arrays in, the task's output out.

    Attributes:
        model: the whole ONNX model.
        core: the same without the preprocessing: takes what a network takes, in its own type and layout.
        ending: the operator that was cut off at the end, which made probabilities of logits; "" for none.
        binary: whether the file has one logit for two classes.
        takes: how the file takes an image, such as ``float32 NCHW``; "" for no image.
        changes: what was done, a clause each.
    """

    model: Any
    core: Any
    ending: str
    binary: bool
    takes: str
    changes: tuple[str, ...]


def make_deployable(
    foreign: Foreign, definition: Input, spec: TensorSpec, labels: str, output: str | None = None
) -> Deployable:
    """Simplify a foreign model, cut its ending off and put the preprocessing before it.

    Args:
        foreign: what was read.
        definition: how a sample becomes its input.
        spec: the output that the task reads.
        labels: kind of label of the task.
        output: name of the model's output, where it has several.

    Raises:
        CompressionError: it takes other inputs, gives other outputs, or edgetl cannot change it.
    """
    onnx = require("onnx", "changing ONNX models")
    model = onnx.ModelProto()
    model.CopyFrom(foreign.model)
    chosen = outputs.choose_output(model, output)
    inputs.fit(model, definition)
    before = Counter(node.op_type for node in model.graph.node)
    core = simplified(model)
    ending = outputs.cut_activation(core, labels)
    core = simplified(core) if ending else core
    binary = labels == "class" and spec.shape[1] == 2 and is_single(core)
    core = _any_batch(core)
    outputs.shape_output(core, spec, binary)
    whole = onnx.ModelProto()
    whole.CopyFrom(core)
    takes = inputs.lay(whole, definition)
    finished = _finished(whole, foreign)
    folded = before["BatchNormalization"] - Counter(n.op_type for n in core.graph.node)["BatchNormalization"]
    changes = [
        *foreign.changes,
        f"output '{chosen}' chosen" if output else "",
        f"{ending} at the end cut off" if ending else "",
        "one logit made two" if binary else "",
        f"{folded} BatchNormalization folded" if folded > 0 else "",
        f"preprocessing put before the input ({takes})" if takes else "",
    ]
    return Deployable(finished, core, ending, binary, takes, tuple(filter(None, changes)))


def is_single(model: Any) -> bool:
    """Whether a model's output is one number for a sample, as far as its shape tells."""
    sizes = shape_of(model.graph.output[0])
    return bool(sizes) and None not in sizes[1:] and int(np.prod([size or 1 for size in sizes[1:]])) == 1


def _finished(model: Any, foreign: Foreign) -> Any:
    onnx = require("onnx", "changing ONNX models")
    try:
        tidy = simplified(model)
        graph.canonicalise(tidy)
        _forget_origin(tidy)
        onnx.checker.check_model(tidy, full_check=True)
    except Exception as error:  # the checker and shape inference raise many kinds
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CompressionError(
            f"{foreign.path} cannot be laid out for deployment ({lines[0]})", "export it plainly"
        ) from error
    return tidy


def _forget_origin(model: Any) -> None:
    """Drop who made the file and what they wrote beside it: two adoptions of one model are byte for byte the same."""
    for name in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        model.ClearField(name)
    del model.metadata_props[:]


def _any_batch(model: Any) -> Any:
    """The model for any number of samples, if that computes the same; else as it is."""
    free = opened(model)
    if free is None:
        return model
    draw = np.random.default_rng(0)
    two = {value.name: _drawn(draw, value) for value in free.graph.input}
    try:
        each = [_run(model, {name: array[i : i + 1] for name, array in two.items()}) for i in (0, 1)]
        both = _run(free, two)
    except Exception:  # a graph that cannot take two samples fails in whatever way its operators do
        return model
    apart = np.abs(both - np.concatenate(each)) if len(both) == 2 else np.array([np.inf])
    return simplified(free) if float(apart.max()) <= PARITY * max(float(np.ptp(both)), 1e-6) else model


def _drawn(draw: np.random.Generator, value: Any) -> npt.NDArray[Any]:
    sizes = [2, *(size or 8 for size in shape_of(value)[1:])]
    dtype = np.dtype(inputs.dtype_of(value))
    return draw.normal(size=sizes).astype(dtype) if dtype.kind == "f" else np.ones(sizes, dtype)


def _run(model: Any, feeds: Arrays) -> npt.NDArray[Any]:
    found: npt.NDArray[Any] = open_model(model, logs=False).run(None, dict(feeds))[0]
    return found


def open_model(model: Any, *, logs: bool = True) -> Any:
    """A model in ONNX Runtime, with its basic optimisations alone."""
    runtime = require("onnxruntime", "running ONNX models")
    options = runtime.SessionOptions()
    options.log_severity_level = 3 if logs else 4
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    set_arithmetic(options)
    return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run_plainly(foreign: Foreign, made: Deployable, definition: Input, feeds: Arrays, output: str | None) -> Values:
    """What the file itself answers to prepared samples, as the changed model is to answer: float64 (n, width).

    The preprocessing is done here, in numpy; the file's ending, if it has one, is undone on the changed model's side by
    :func:`ended`.
    """
    onnx = require("onnx", "running ONNX models")
    model = onnx.ModelProto()
    model.CopyFrom(foreign.model)
    chosen = outputs.choose_output(model, output)
    inputs.fit(model, definition)
    session = open_model(model)
    pairs = {value.name: spec.name for value, spec in inputs.paired(model, definition)}
    types = {value.name: np.dtype(inputs.dtype_of(value)) for value in model.graph.input}
    n = len(next(iter(feeds.values())))
    found = []
    for row in range(n):
        prepared = {
            name: prepare(feeds[own][row : row + 1], definition, own, made.takes).astype(types[name])
            for name, own in pairs.items()
        }
        if inputs.TYPES in types:
            prepared[inputs.TYPES] = np.zeros_like(prepared[inputs.IDS])
        found.append(np.asarray(session.run([chosen], prepared)[0], np.float64).reshape(1, -1))
    return np.concatenate(found)


def prepare(array: npt.NDArray[Any], definition: Input, name: str, takes: str) -> npt.NDArray[Any]:
    """What the prefix makes of an input (n, …), in numpy."""
    if isinstance(definition, Preprocess):
        if takes.startswith("uint8"):
            made = array
        else:
            made = (array.astype(np.float64) / 255 - np.array(definition.mean)) / np.array(definition.std)
        return made.transpose(0, 3, 1, 2) if takes.endswith("NCHW") else made
    scaling: Mapping[str, Any] = (
        {spec.name: spec.scaling for spec in definition.arrays} if isinstance(definition, Tensors) else {}
    )
    if scaling.get(name) is None:
        return array
    mean, std = scaling[name]
    return np.asarray((array - mean) / std)


def ended(values: Values, made: Deployable) -> Values:
    """Outputs of the changed model (n, width) as the file gives them: with its ending."""
    if made.binary:
        values = values[:, 1:]
    if made.ending == "Sigmoid":
        return np.asarray(1 / (1 + np.exp(-values)))
    if made.ending:
        shifted = values - values.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return np.asarray(logs if made.ending == "LogSoftmax" else np.exp(logs))
    return values
