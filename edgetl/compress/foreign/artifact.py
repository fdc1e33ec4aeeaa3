"""A model that another tool compressed, with the input and output that runners know.

Nothing is folded, converted or renamed: what is certified has to be what was given. Where it takes an image as a network
does, the preprocessing is put before it, as edgetl puts it before a network that it exports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.backends.base import onnx_precision
from edgetl.backends.openvino import read_network, save_network
from edgetl.base.errors import CompressionError
from edgetl.base.extras import require, version
from edgetl.compress import graph
from edgetl.compress.foreign import inputs, outputs
from edgetl.compress.foreign.deployable import open_model
from edgetl.compress.foreign.reading import MOST_BYTES, STANDARD, read_model
from edgetl.compress.foreign.simplifying import shape_of
from edgetl.core.tensors import TensorSpec
from edgetl.inputs import Input, Preprocess

#: Operators that ONNX Runtime has beside those of the standard, which its quantizer writes.
OF_ORT = ("com.microsoft",)
#: Backend → suffixes of the files that it takes.
FORMATS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": (".onnx",),
    "openvino": (".xml", ".onnx"),
    "tensorrt": (".onnx",),
    "litert": (".onnx",),
}
_REMEDY = "give the file that was made from this very model"


@dataclass(frozen=True)
class Given:
    """A compressed model as its backend compiles it.

    Attributes:
        model: an ONNX model, or an OpenVINO network.
        precision: int8, fp16 or fp32, read from what it holds.
        producer: what the file says of who wrote it.
        changes: what was put before and behind it, a clause each.
    """

    model: Any
    precision: str
    producer: str
    changes: tuple[str, ...]

    def save(self, out: Path) -> Path:
        """Write it; the file."""
        if isinstance(self.model, require("onnx", "writing ONNX models").ModelProto):
            return graph.save(self.model, out / "given.onnx")
        save_network(self.model, out / "given.xml")
        return out / "given.xml"


def read_artifact(file: Path, backend: str, definition: Input, spec: TensorSpec, labels: str) -> Given:
    """Read a file that another tool compressed for a backend.

    Args:
        file: ``.onnx``, or an OpenVINO ``.xml`` with its ``.bin`` beside it.
        backend: that is to run it.
        definition: how a sample becomes the network's input.
        spec: the output that the task reads.
        labels: kind of label of the task.

    Raises:
        CompressionError: the backend takes no such file, it is damaged, or of another model.
        BackendError: OpenVINO cannot read it.
    """
    taken = FORMATS[backend]
    if file.suffix.lower() not in taken:
        what = f"{backend} takes {' or '.join(taken)} files here, and {file.name} is none"
        raise CompressionError(what, "give the artifact in that form, or name a target of another runtime")
    read: Callable[..., Given] = _from_ir if file.suffix.lower() == ".xml" else _from_onnx
    return read(file, backend, definition, spec, labels)


def _from_onnx(file: Path, backend: str, definition: Input, spec: TensorSpec, labels: str) -> Given:
    onnx = require("onnx", "reading ONNX models")
    model = read_model(file, (*STANDARD, *(OF_ORT if backend == "onnxruntime" else ())))
    producer = " ".join(filter(None, (model.producer_name, model.producer_version)))
    names = [value.name for value in model.graph.output]
    outputs.choose_output(model, spec.name if len(names) > 1 and spec.name in names else None)
    changes: tuple[str, ...] = ()
    if not _as_exported(model, definition, spec):
        inputs.fit(model, definition)
        model = onnx.shape_inference.infer_shapes(model)
        ending = outputs.cut_activation(model, labels)
        outputs.shape_output(model, spec, binary=False)
        takes = inputs.lay(model, definition)
        changes = (
            *([f"{ending} at the end cut off"] if ending else []),
            *([f"preprocessing put before the input ({takes})"] if takes else []),
        )
    try:
        onnx.checker.check_model(model)
        _try_out(model, spec)
    except CompressionError:
        raise
    except Exception as error:  # the checker and the runtime raise many kinds
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CompressionError(f"{file} cannot be run here ({reason[0][:200]})", _REMEDY) from error
    return Given(model, onnx_precision(model), producer, changes)


def _as_exported(model: Any, definition: Input, spec: TensorSpec) -> bool:
    """Whether it takes and gives what edgetl's own export does."""
    taken = [(value.name, inputs.dtype_of(value), shape_of(value)[1:]) for value in model.graph.input]
    fed = [(one.name, one.dtype, list(one.shape[1:])) for one in definition.tensors]
    (given,) = model.graph.output
    return taken == fed and given.name == spec.name and shape_of(given)[1:] == [spec.shape[1]]


def _try_out(model: Any, spec: TensorSpec) -> None:
    """One sample of nothing: a shape that the file does not tell shows when it runs."""
    session = open_model(model)
    feeds = {
        value.name: np.zeros([size if isinstance(size, int) else 1 for size in value.shape], _TYPES[value.type])
        for value in session.get_inputs()
    }
    (found,) = session.run([spec.name], feeds)
    if found.ndim != 2 or found.shape[1] != spec.shape[1]:
        what = f"the artifact gives {list(found.shape)} for a sample, and there are {spec.shape[1]} classes or values"
        raise CompressionError(what, _REMEDY)


_TYPES = {
    "tensor(uint8)": np.uint8,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


def _from_ir(file: Path, backend: str, definition: Input, spec: TensorSpec, labels: str) -> Given:
    weights = file.with_suffix(".bin")
    try:
        size = sum(one.stat().st_size for one in (file, weights))
    except OSError as error:
        what = f"cannot read {error.filename} ({error.strerror})"
        raise CompressionError(what, "an IR is an .xml and the .bin beside it") from error
    if size > MOST_BYTES:
        raise CompressionError(f"{file} takes {size / 1e9:.1f} GB, more than 2 GB", "shrink it")
    network = read_network(file)
    counts = len(network.inputs), len(network.outputs)
    if counts != (len(definition.tensors), 1):
        what = f"{file} has {counts[0]} inputs and {counts[1]} outputs, and {len(definition.tensors)} and 1 are wanted"
        raise CompressionError(what, _REMEDY)
    before = _lay_ir(network, definition) if isinstance(definition, Preprocess) else ""
    ending = _end_ir(network, spec)
    network.validate_nodes_and_infer_types()
    changes = (
        *([f"{ending} at the end cut off"] if ending else []),
        *([f"preprocessing put before the input ({before})"] if before else []),
    )
    kinds = {op.get_type_name() for op in network.get_ops()}
    halves = {op.get_output_element_type(0).get_type_name() for op in network.get_ops() if op.get_output_size()}
    precision = "int8" if "FakeQuantize" in kinds else "fp16" if "f16" in halves else "fp32"
    return Given(network, precision, f"openvino {version('openvino')}", changes)


def _lay_ir(network: Any, definition: Preprocess) -> str:
    """Put the preprocessing before a network that takes an image in floats, in place; how it takes one, or ""."""
    port, (spec,) = network.inputs[0], definition.tensors
    sizes = [axis.get_length() if axis.is_static else None for axis in port.get_partial_shape()]
    kind = port.get_element_type().get_type_name()
    height, width, channels = spec.shape[1:]
    wanted = {"NHWC": [height, width, channels], "NCHW": [channels, height, width]}
    layout = next((name for name, shape in wanted.items() if _fits(sizes[1:], shape)), "")
    if not layout:
        shown = "x".join("n" if size is None else str(size) for size in sizes)
        what = f"the artifact's input is {kind} {shown}, and its preprocessing gives {height}x{width}x{channels}"
        raise CompressionError(what, _REMEDY)
    how = "" if (kind, layout) == ("u8", "NHWC") else f"{kind} {layout}"
    if how:
        preprocess = require("openvino.preprocess", "compiling for this target")
        steps = preprocess.PrePostProcessor(network)
        first = steps.input()
        first.tensor().set_element_type(require("openvino", "compiling").Type.u8)
        first.tensor().set_layout(require("openvino", "compiling").Layout("NHWC"))
        first.tensor().set_shape([1, height, width, channels])
        first.model().set_layout(require("openvino", "compiling").Layout(layout))
        changed = first.preprocess()
        if kind != "u8":
            changed.convert_element_type(require("openvino", "compiling").Type.f32)
            changed.mean([255 * value for value in definition.mean])
            changed.scale([255 * value for value in definition.std])
        steps.build()
    network.inputs[0].get_tensor().set_names({spec.name})
    return how


def _fits(own: list[int | None], wanted: list[int | None]) -> bool:
    return len(own) == len(wanted) and all(a in (None, b) for a, b in zip(own, wanted, strict=True))


def _end_ir(network: Any, spec: TensorSpec) -> str:
    """Cut a Softmax or Sigmoid at the end off, and name the output, in place; which it was, or ""."""
    result = network.get_results()[0]
    node, ending = result.input_value(0).get_node(), ""
    if node.get_type_name() in ("Softmax", "LogSoftmax", "Sigmoid"):
        ending = node.get_type_name()
        result.input(0).replace_source_output(node.input_value(0))
    sizes = network.outputs[0].get_partial_shape()
    if len(sizes) != 2 or (sizes[1].is_static and sizes[1].get_length() != spec.shape[1]):
        what = f"the artifact's output is {sizes}, and there are {spec.shape[1]} classes or values"
        raise CompressionError(what, _REMEDY)
    network.outputs[0].get_tensor().set_names({spec.name})
    return ending
