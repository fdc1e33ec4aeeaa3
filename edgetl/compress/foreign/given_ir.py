"""An OpenVINO IR as its device's plugin compiles it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgetl.backends.openvino import precision_of, read_network
from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.base.wording import enumerated
from edgetl.compress.foreign import outputs
from edgetl.compress.foreign.given import CUT, REMEDY, SMALLEST, UNENDED, Given, Wanted, changes_of
from edgetl.core.tensors import TensorSpec
from edgetl.inputs import Preprocess

#: OpenVINO's name of a type → numpy's.
_TYPES = {"u8": "uint8", "i8": "int8", "i32": "int32", "i64": "int64", "f16": "float16", "f32": "float32"}
#: What changes no value on the way to a network's result; what is quantized behind an activation is not.
_PLAIN = ("Reshape", "Squeeze", "Unsqueeze", "Convert")
_PURPOSE = "compiling for this target"


def read_ir(file: Path, wanted: Wanted) -> Given:
    """Read an IR that another tool compressed.

    Raises:
        CompressionError: it is damaged, or of another model.
        BackendError: OpenVINO cannot read it.
    """
    network = read_network(file)
    producer = _producer(network)
    try:
        changes = _fitted(network, wanted)
    except CompressionError as error:
        raise CompressionError(f"{file}: {error.what}", REMEDY) from error
    except (RuntimeError, ValueError, TypeError) as error:  # what OpenVINO's own checks raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CompressionError(f"{file} cannot be used ({reason[-1][:200]})", REMEDY) from error
    return Given(network, precision_of(network, wanted.target), producer, changes)


def _fitted(network: Any, wanted: Wanted) -> tuple[str, ...]:
    if len(network.outputs) != 1:
        what = f"the artifact has {len(network.outputs)} outputs, and one is wanted"
        raise CompressionError(what, REMEDY)
    ports = _paired(network, wanted.definition.tensors)
    before = ""
    if isinstance(wanted.definition, Preprocess):
        before = _lay(network, wanted.definition)
        ports = [network.inputs[0]]
    else:
        for port, spec in zip(ports, wanted.definition.tensors, strict=True):
            _check(port, spec)
    for port, spec in zip(ports, wanted.definition.tensors, strict=True):
        port.get_tensor().set_names({spec.name})
    ending = _end(network, wanted)
    network.validate_nodes_and_infer_types()
    return changes_of(ending, before)


def _paired(network: Any, specs: tuple[TensorSpec, ...]) -> list[Any]:
    """The network's input for each array that is fed: by its name, or the only one."""
    if len(specs) == len(network.inputs) == 1:
        return list(network.inputs)
    named = {name: port for port in network.inputs for name in port.get_names()}
    if len(network.inputs) != len(specs) or any(spec.name not in named for spec in specs):
        own = enumerated([min(port.get_names(), default="an unnamed one") for port in network.inputs])
        what = f"the artifact takes {own}, and its preprocessing gives {enumerated([spec.name for spec in specs])}"
        raise CompressionError(what, REMEDY)
    return [named[spec.name] for spec in specs]


def _sizes(port: Any) -> list[int | None]:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return []
    return [axis.get_length() if axis.is_static else None for axis in shape]


def _shown(port: Any) -> str:
    sizes = "x".join("n" if size is None else str(size) for size in _sizes(port)) or "of any shape"
    return f"{port.get_element_type().get_type_name()} {sizes}"


def _check(port: Any, spec: TensorSpec) -> None:
    kind = port.get_element_type().get_type_name()
    if _TYPES.get(kind) != spec.dtype or not _fits(_sizes(port)[1:], spec.shape[1:]):
        raise CompressionError(f"the artifact's input is {_shown(port)}, and its preprocessing gives {spec}", REMEDY)


def _fits(own: list[int | None], wanted: tuple[int | None, ...]) -> bool:
    return len(own) == len(wanted) and all(a in (None, b) for a, b in zip(own, wanted, strict=True))


def _lay(network: Any, definition: Preprocess) -> str:
    """Put the preprocessing before a network that takes an image in floats, in place; how it takes one, or ""."""
    port, (spec,) = network.inputs[0], definition.tensors
    kind, sizes = port.get_element_type().get_type_name(), _sizes(port)
    height, width, channels = spec.shape[1:]
    layouts = {"NHWC": (height, width, channels), "NCHW": (channels, height, width)}
    layout = next((name for name, shape in layouts.items() if _fits(sizes[1:], shape)), "")
    if not layout or kind not in ("u8", "f32", "f16"):
        raise CompressionError(f"the artifact's input is {_shown(port)}, and its preprocessing gives {spec}", REMEDY)
    if (kind, layout) == ("u8", "NHWC"):
        return ""
    openvino, made = require("openvino", _PURPOSE), require("openvino.preprocess", _PURPOSE)
    steps = made.PrePostProcessor(network)
    image = steps.input()
    image.tensor().set_element_type(openvino.Type.u8)
    image.tensor().set_layout(openvino.Layout("NHWC"))
    image.tensor().set_shape(openvino.PartialShape([sizes[0] or 1, height, width, channels]))
    image.model().set_layout(openvino.Layout(layout))
    if kind != "u8":
        # A network that takes bytes normalises them itself: the definition says how, and nothing is left to do here.
        normalise = image.preprocess()
        normalise.convert_element_type(openvino.Type.f32)
        normalise.mean([255 * value for value in definition.mean])
        normalise.scale([255 * value for value in definition.std])
    steps.build()
    return f"{kind} {layout}"


def _end(network: Any, wanted: Wanted) -> str:
    """Give it the task's output, of logits, in place; how they were had, or ""."""
    result = network.get_results()[0]
    port, quantized = result.input_value(0), False
    found: list[Any] = []
    while (kind := port.get_node().get_type_name()) in (*_PLAIN, *outputs.ACTIVATIONS, "FakeQuantize"):
        quantized = quantized or (kind == "FakeQuantize" and not found)
        found += [port.get_node()] if kind in outputs.ACTIVATIONS else []
        port = port.get_node().input_value(0)
    ending = outputs.ending_of([node.get_type_name() for node in found], wanted.labels)
    if ending and not quantized:
        found[0].output(0).replace(found[0].input_value(0))
        network.validate_nodes_and_infer_types()
    last = result.input_value(0)
    last = _unended(last, ending) if quantized and ending in UNENDED else last
    result.input(0).replace_source_output(_shaped(last, wanted))
    network.validate_nodes_and_infer_types()
    network.outputs[0].get_tensor().set_names({wanted.spec.name})
    if not ending:
        return ""
    return UNENDED.get(ending, "").format(ending) if quantized else CUT.format(ending)


def _unended(port: Any, ending: str) -> Any:
    ops = require("openvino.opset13", _PURPOSE)
    inside = ops.clamp(port, SMALLEST, 1 - SMALLEST)
    log = ops.log(inside)
    if ending == "Sigmoid":
        log = ops.subtract(log, ops.log(ops.subtract(np.float32(1), inside)))
    return log.output(0)


def _shaped(port: Any, wanted: Wanted) -> Any:
    """The output as float32 (n, width)."""
    ops, width, sizes = require("openvino.opset13", _PURPOSE), wanted.spec.shape[1], _sizes(port)
    inner = [size for size in sizes[1:] if size is not None]
    count = int(np.prod(inner)) if sizes and len(inner) == len(sizes) - 1 else None
    binary = wanted.labels == "class" and width == 2 and count == 1
    if count != (1 if binary else width):
        what = f"the artifact's output is {_shown(port)}, and there are {width} classes or values"
        raise CompressionError(what, REMEDY)
    if port.get_element_type().get_type_name() != "f32":
        port = ops.convert(port, "f32").output(0)
    if len(sizes) != 2:
        port = ops.reshape(port, np.array([-1, count], np.int64), False).output(0)
    return ops.concat([ops.subtract(port, port), port], 1).output(0) if binary else port


def _producer(network: Any) -> str:
    """NNCF and OpenVINO write their versions into what they make."""
    told = {"NNCF": ["nncf", "version"], "OpenVINO": ["Runtime_version"]}
    found = {name: _told(network, path) for name, path in told.items() if network.has_rt_info(path)}
    return ", ".join(f"{name} {value}".strip() for name, value in found.items() if value)


def _told(network: Any, path: list[str]) -> str:
    value = network.get_rt_info(path)
    return str(getattr(value, "value", value))
