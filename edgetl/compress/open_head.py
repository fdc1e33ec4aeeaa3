"""A head that stands open: its weights are inputs of the graph, with those it was exported with as their defaults.

Any number of classes can then be fed, by whoever holds the artifact, without the tools that made it. In ONNX an
initializer that is an input, too, is such a default: a runtime that is fed nothing answers as if it were a constant. An
OpenVINO file has no defaults: there the two constants have names, and are exchanged as the file is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.backends.openvino import read_network, save_network
from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.compress import graph
from edgetl.compress.head import Head, find_head
from edgetl.compress.layers import artifact_ir
from edgetl.compress.layers.topology import read_topology

Floats = npt.NDArray[np.float32]
#: In an OpenVINO file.
WEIGHT, BIAS = "head.weight", "head.bias"
_CLASSES = "classes"
_REMEDY = "export with another strategy or precision"


@dataclass(frozen=True)
class Opened:
    """A model whose head stands open.

    Attributes:
        model: ONNX or OpenVINO ``.xml``.
        weight, bias: what they are called in it.
        transposed: whether it has the weight as (features, classes).
    """

    model: Path
    weight: str
    bias: str
    transposed: bool


def open_head(model: Path, exported: Path, weight: Floats, bias: Floats, out: Path, *, ir: bool) -> Opened:
    """Give a compressed model another head, in float, that stands open.

    Args:
        model: ONNX or OpenVINO ``.xml``, with a float head.
        exported: the float ONNX file that it was made from.
        weight, bias: float32 (classes, features) and (classes,), as many classes as the model has.
        out: folder to write into.
        ir: write an OpenVINO file also of an ONNX file.

    Raises:
        CompressionError: the model has no linear head in float.
    """
    if ir or model.suffix == ".xml":
        return _in_ir(model, exported, weight, bias, out / "open.xml")
    return _in_onnx(model, weight, bias, out / "open.onnx")


def _in_onnx(file: Path, weight: Floats, bias: Floats, out: Path) -> Opened:
    model = graph.load(file)
    head = find_head(read_topology(file))
    new = {head.weight: weight.T if head.transposed else weight, head.bias: bias}
    helper, onnx = (require(name, "writing ONNX models") for name in ("onnx.numpy_helper", "onnx"))
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, values in new.items():
        if tuple(stored[name].dims) != values.shape:
            raise CompressionError(f"{file} has a head of {list(stored[name].dims)}, not {list(values.shape)}", _REMEDY)
        stored[name].CopyFrom(helper.from_array(np.ascontiguousarray(values, np.float32), name))
        # Named at its place by its size, so that any number of classes is of the declared type.
        sizes = [
            _CLASSES if size == len(bias) and axis == _axis(name, head) else size
            for axis, size in enumerate(values.shape)
        ]
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes))
    _widen_outputs(model, head)
    graph.save(model, out)
    return Opened(out, head.weight, head.bias, head.transposed)


def _axis(name: str, head: Head) -> int:
    """Which axis of the weight or the bias counts classes."""
    return 1 if name == head.weight and head.transposed else 0


def _widen_outputs(model: Any, head: Head) -> None:
    """The output has as many columns as the head is fed rows; what lies between them is said by inference alone."""
    (output,) = model.graph.output
    output.type.tensor_type.shape.dim[1].dim_param = _CLASSES
    made = {name for node in model.graph.node if node.name == head.node for name in node.output}
    kept = [value for value in model.graph.value_info if value.name not in made]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)


def _in_ir(file: Path, exported: Path, weight: Floats, bias: Floats, out: Path) -> Opened:
    network = read_network(file)
    topology = read_topology(exported)
    layer = artifact_ir.operators(network, topology).get(find_head(topology).node)
    (adding, *others) = [] if layer is None else [port.get_node() for port in layer.output(0).get_target_inputs()]
    if layer is None or others or adding.get_type_name() != "Add":
        raise CompressionError(f"{file} has no linear head with a bias", _REMEDY)
    own = _stored(layer, 1), _stored(adding, 1)
    transposed = not layer.get_attributes()["transpose_b"]
    values = weight.T if transposed else weight, bias
    for constant, name, value in zip(own, (WEIGHT, BIAS), values, strict=True):
        if constant is None or constant.data.size != value.size:
            raise CompressionError(f"{file} has no head in float of {value.size} numbers", _REMEDY)
        ops = require("openvino.opset13", "compiling for this target")
        shape = tuple(constant.data.shape)
        made = ops.constant(np.ascontiguousarray(value.reshape(shape), np.float32), dtype=np.float32, name=name)
        made.set_friendly_name(name)
        _widest(constant).replace(made.output(0))
    network.validate_nodes_and_infer_types()
    save_network(network, out)
    return Opened(out, WEIGHT, BIAS, transposed)


def _stored(node: Any, index: int) -> Any | None:
    """The constant that an operator reads, stored in float; None where it reads something else."""
    source = node.input(index).get_source_output().get_node()
    if source.get_type_name() == "Convert":
        source = source.input(0).get_source_output().get_node()
    is_float = source.get_type_name() == "Constant" and source.get_output_element_type(0).get_type_name() in (
        "f32",
        "f16",
    )
    return source if is_float else None


def _widest(constant: Any) -> Any:
    """What reads it as float32: itself, or what widens it."""
    readers = [port.get_node() for port in constant.output(0).get_target_inputs()]
    widened = len(readers) == 1 and readers[0].get_type_name() == "Convert"
    return readers[0].output(0) if widened else constant.output(0)
