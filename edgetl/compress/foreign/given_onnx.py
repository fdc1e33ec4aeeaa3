"""A quantized ONNX file as its backend compiles it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgetl.backends.base import onnx_precision
from edgetl.backends.tensorrt import refuse_what_no_device_takes
from edgetl.backends.tensorrt_verdict import verdicts
from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.base.wording import enumerated
from edgetl.compress.foreign import inputs, outputs
from edgetl.compress.foreign.deployable import is_single, open_model
from edgetl.compress.foreign.given import CUT, REMEDY, SMALLEST, UNENDED, Given, Wanted, changes_of
from edgetl.compress.foreign.reading import STANDARD, read_model
from edgetl.compress.foreign.simplifying import shape_of
from edgetl.compress.graph import MOST_AT_ONCE

#: Operators that ONNX Runtime has beside those of the standard, which its quantizer writes.
_OF_ORT = "com.microsoft"
#: What may follow an activation whose output is quantized, too.
_QUANTIZED = outputs.PLAIN | {"QuantizeLinear", "DequantizeLinear"}


def read_quantized(file: Path, wanted: Wanted) -> Given:
    """Read an ONNX file that another tool compressed.

    Raises:
        CompressionError: it is damaged, of another model, or of operators that the target's runtime does not have.
        BackendError: no TensorRT that the target may have takes it.
    """
    onnx = require("onnx", "reading ONNX models")
    own = (_OF_ORT,) if wanted.target.backend == "onnxruntime" else ()
    model = read_model(file, (*STANDARD, *own))
    producer = " ".join(filter(None, (model.producer_name, model.producer_version)))
    if wanted.target.backend == "tensorrt":
        refuse_what_no_device_takes(file, verdicts(file, wanted.target))
    try:
        changes = _fitted(model, wanted)
        onnx.checker.check_model(model)
        _try_out(model, wanted)
    except CompressionError as error:
        raise CompressionError(f"{file}: {error.what}", REMEDY) from error
    except Exception as error:  # the checker and the runtime raise many kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CompressionError(f"{file} cannot be run here ({reason[0][:200]})", REMEDY) from error
    return Given(model, onnx_precision(model), producer, changes)


def _fitted(model: Any, wanted: Wanted) -> tuple[str, ...]:
    """Give it edgetl's input and output, in place; what that took, a clause each."""
    onnx, spec, definition = require("onnx", "changing ONNX models"), wanted.spec, wanted.definition
    names = [value.name for value in model.graph.output]
    if len(names) > 1 and spec.name not in names:
        what = f"the artifact has the outputs {enumerated(names, 20)}, and none is called '{spec.name}'"
        raise CompressionError(what, REMEDY)
    outputs.choose_output(model, spec.name if len(names) > 1 else None)
    takes = [(value.name, inputs.dtype_of(value), shape_of(value)[1:]) for value in model.graph.input]
    laid = takes != [(one.name, one.dtype, list(one.shape[1:])) for one in definition.tensors]
    if laid:
        inputs.fit(model, definition)
        model.CopyFrom(onnx.shape_inference.infer_shapes(model))
    ending = _logits(model, wanted.labels)
    binary = wanted.labels == "class" and spec.shape[1] == 2 and is_single(model)
    (given,) = model.graph.output
    plain = given.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    if given.name != spec.name or shape_of(given)[1:] != [spec.shape[1]] or not plain:
        outputs.shape_output(model, spec, binary)
    clauses = [ending, "one logit made two" if binary else ""]
    return (*filter(None, clauses), *changes_of("", inputs.lay(model, definition) if laid else ""))


def _logits(model: Any, labels: str) -> str:
    """Have logits at the end, in place; how, or ""."""
    found = [str(node.op_type) for node in outputs.activations(model, _QUANTIZED)]
    ending = outputs.ending_of(found, labels)
    if not ending or outputs.activations(model):
        return CUT.format(outputs.cut_activation(model, labels)) if ending else ""
    if ending not in UNENDED:
        return ""
    onnx = require("onnx", "changing ONNX models")
    nodes, weights = _inverse(ending, model.graph.output[0].name)
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(weights)
    del model.graph.output[:]
    value = onnx.helper.make_tensor_value_info(nodes[-1].output[0], onnx.TensorProto.FLOAT, None)
    model.graph.output.append(value)
    model.CopyFrom(onnx.shape_inference.infer_shapes(model))
    return UNENDED[ending].format(ending)


def _inverse(ending: str, source: str) -> tuple[list[Any], list[Any]]:
    """Nodes and constants from probabilities to logits."""
    onnx = require("onnx", "changing ONNX models")
    base = f"{source}.unended"
    bounds = {f"{base}.low": SMALLEST, f"{base}.high": 1 - SMALLEST, f"{base}.one": 1.0}
    weights = [onnx.numpy_helper.from_array(np.array(value, np.float32), name) for name, value in bounds.items()]

    def node(kind: str, inputs: list[str], name: str) -> Any:
        return onnx.helper.make_node(kind, inputs, [f"{base}.{name}"], name=f"{base}.{name}")

    nodes = [
        node("Clip", [source, f"{base}.low", f"{base}.high"], "inside"),
        node("Log", [f"{base}.inside"], "log"),
    ]
    if ending == "Sigmoid":
        nodes += [
            node("Sub", [f"{base}.one", f"{base}.inside"], "rest"),
            node("Log", [f"{base}.rest"], "log_rest"),
            node("Sub", [f"{base}.log", f"{base}.log_rest"], "logit"),
        ]
    return nodes, weights


def _try_out(model: Any, wanted: Wanted) -> None:
    """One sample of nothing: a shape that the file does not tell shows when it runs."""
    first = next(iter(shape_of(model.graph.input[0])), None)
    if first is not None and first > MOST_AT_ONCE:
        raise CompressionError(f"the artifact takes {first} samples at once", f"give one for {MOST_AT_ONCE} at most")
    session, width = open_model(model), wanted.spec.shape[1]
    dtypes = {value.name: inputs.dtype_of(value) for value in model.graph.input}
    feeds = {
        value.name: np.zeros([size if isinstance(size, int) else 1 for size in value.shape], dtypes[value.name])
        for value in session.get_inputs()
    }
    (found,) = session.run([wanted.spec.name], feeds)
    if found.ndim != 2 or found.shape[1] != width:
        what = f"the artifact gives {list(found.shape)} for a sample, and there are {width} classes or values"
        raise CompressionError(what, REMEDY)
