"""OpenVINO: sessions on CPU, GPU or NPU, and what they executed."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BackendError
from edgetl.base.extras import require
from edgetl.core.artifact import Artifact, HeadValues
from edgetl.core.tensors import Arrays, TensorSpec
from edgetl.runtime.sessions import Executed, check_feeds, closed

_TYPES = {"u8": "int8", "i8": "int8", "f32": "fp32", "f16": "fp16", "bf16": "bf16"}
#: Left alone, the CPU plugin runs float layers in bfloat16 where it can: say what is meant.
_HINTS = {"int8": "f32", "fp32": "f32", "fp16": "f16"}


@functools.cache
def core() -> Any:
    """The one ``openvino.Core`` of this process.

    The CPU plugin of each further one would take the stack that signal handlers run on from the one before, and give it
    back when it goes: two that go in the order in which they came leave a stack that is unmapped, and the next signal
    that Python handles, a child's end or Ctrl-C, ends the process without a word (intel_cpu's SigAltStackSetup,
    OpenVINO 2026.4).
    """
    return require("openvino", "running this bundle").Core()


class OpenVinoSession:
    """A model in one OpenVINO device plugin."""

    def __init__(
        self, artifact: Artifact, device: str, threads: int, simulated: bool, pinned: bool | None = None
    ) -> None:
        config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if device == "CPU":
            config |= {"INFERENCE_NUM_THREADS": threads}
            config |= {} if pinned is None else {"ENABLE_CPU_PINNING": pinned}
        if device in ("CPU", "GPU"):
            config |= {"INFERENCE_PRECISION_HINT": _HINTS[artifact.precision]}
        found = core().available_devices
        if device not in {name.split(".")[0] for name in found}:
            raise BackendError(f"OpenVINO finds no {device} here (only {', '.join(found)})", "run on the target device")
        try:
            self._model = core().read_model(artifact.path)
            if simulated:
                write_out(self._model)
            fed = {} if artifact.head is None else _open_head(self._model, artifact.head)
            self._compiled = core().compile_model(self._model, device, config)
        except RuntimeError as error:
            raise BackendError(f"OpenVINO cannot load {artifact.path} ({error})", "export the bundle again") from error
        self._request = self._compiled.create_infer_request()
        tensor = require("openvino", "running this bundle").Tensor
        for name, values in fed.items():
            self._request.set_tensor(name, tensor(values))
        self.inputs = tuple(_spec(port) for port in self._compiled.inputs if not fed.keys() & port.get_names())
        self._outputs: list[str] = [port.get_any_name() for port in self._compiled.outputs]

    def run(self, feeds: Arrays) -> dict[str, npt.NDArray[Any]]:
        """See :class:`edgetl.runtime.sessions.Session`."""
        check_feeds(feeds, self.inputs)
        if self._request is None:
            raise closed()
        for index, spec in enumerate(self.inputs):
            given, bound = feeds[spec.name], self._request.get_input_tensor(index)
            # bound.shape is slow to ask: 0.03 ms.
            if (values := bound.data).shape != given.shape:
                bound.shape = given.shape
                values = bound.data
            np.copyto(values, given)
        # Not start_async() and wait(): another thread would work, whose waking takes a thirtieth of a small network.
        # Nor infer(feeds), whose conversions take as long.
        self._request.infer(share_outputs=True)
        return {name: self._request.get_output_tensor(i).data.copy() for i, name in enumerate(self._outputs)}

    def executed(self) -> Executed:
        """Read the runtime model's precisions; multiply-accumulates come from the layers of the file."""
        convolutions = {node.get_friendly_name(): _macs(node) for node in self._model.get_ops()}
        layers = []
        for node in self._compiled.get_runtime_model().get_ops():
            info = {key: str(value.astype(str)) for key, value in node.get_rt_info().items()}
            names = info["originalLayersNames"].split(",")
            count = max((convolutions.get(name, 0) for name in names), default=0)
            if info["layerType"] in ("FullyConnected", "MatMul"):
                # The plugin renames matrix products beyond recognition, but keeps their operands' shapes.
                count = math.prod(_sizes(node.output(0))) * _sizes(node.input(0))[-1]
            if count:
                # Products of float values with weights stored in 8 bits go by the weights' type: the kernel tells more.
                in_float = info["primitiveType"].endswith("_f32")
                kind = "f32" if in_float else info["runtimePrecision"].lower()
                layers.append((_TYPES.get(kind, kind), count))
        return Executed.from_layers(layers)

    def close(self) -> None:
        """Drop the compiled model."""
        self._request = self._compiled = self._model = None


def _open_head(model: Any, head: HeadValues) -> dict[str, npt.NDArray[np.float32]]:
    """Make inputs, of any number of classes, of the two constants that are a head, in place; what they are fed.

    Raises:
        BackendError: the model has no such constants.
    """
    ops, fed = require("openvino.opset13", "running this bundle"), {}
    constants = {node.get_friendly_name(): node for node in model.get_ops() if node.get_type_name() == "Constant"}
    for name, values, axis in ((head.weight_name, head.stored, int(head.transposed)), (head.bias_name, head.bias, -1)):
        if name not in constants:
            raise BackendError("the artifact has no head that stands open", "export the bundle again")
        shape = _sizes(constants[name].output(0))
        shape[axis] = -1
        made = ops.parameter(shape, np.float32, name=name)
        made.output(0).set_names({name})
        constants[name].output(0).replace(made.output(0))
        model.add_parameters([made])
        fed[name] = values.reshape([size if size > 0 else -1 for size in shape])
    model.validate_nodes_and_infer_types()
    return fed


def write_out(model: Any) -> None:
    """Replace every FakeQuantize by the arithmetic that defines it, in place, so that no plugin makes integers of it.

    The CPU plugin's own switch, LP_TRANSFORMS_MODE, gave wrong answers in OpenVINO 2026.4 for a small MobileNet.
    """
    ops = require("openvino.opset13", "simulating this bundle")
    for node in [node for node in model.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]:
        x, low, high, first, last = (node.input_value(index) for index in range(5))
        steps = ops.constant(np.float32(node.get_attributes()["levels"] - 1))
        # A channel that never varied has a range of width 0.
        width = ops.maximum(ops.subtract(high, low), ops.constant(np.float32(1e-30)))
        inside = ops.subtract(ops.minimum(ops.maximum(x, low), high), low)
        number = ops.round(ops.multiply(ops.divide(inside, width), steps), "half_to_even")
        value = ops.add(ops.multiply(ops.divide(number, steps), ops.subtract(last, first)), first)
        node.output(0).replace(value.output(0))


def _spec(port: Any) -> TensorSpec:
    sizes = tuple(size.get_length() if size.is_static else None for size in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), np.dtype(port.get_element_type().to_dtype()).name, sizes)


def _sizes(port: Any) -> list[int]:
    return [size.get_length() if size.is_static else 1 for size in port.get_partial_shape()]


def _macs(node: Any) -> int:
    if node.get_type_name() not in ("Convolution", "GroupConvolution"):
        return 0
    weight = _sizes(node.input(1))
    # Grouped weights are G×O×I×h×w, plain ones O×I×h×w: I×h×w products for each output value.
    inner = weight[2:] if node.get_type_name() == "GroupConvolution" else weight[1:]
    return math.prod(_sizes(node.output(0))) * math.prod(inner)


def open_session(artifact: Artifact, *, threads: int, simulated: bool) -> OpenVinoSession:
    """Load an IR; ``simulated`` takes the CPU plugin whatever it was made for, and quantizes in float arithmetic."""
    return OpenVinoSession(artifact, "CPU" if simulated else artifact.device or "CPU", threads, simulated)


def open_sessions(
    artifact: Artifact, count: int, *, threads: int, batch: int, simulated: bool
) -> list[OpenVinoSession]:
    """Sessions that will work at once: the plugin would pin the threads of each of them to the same first cores."""
    device, pinned = "CPU" if simulated else artifact.device or "CPU", False if count > 1 else None
    return [OpenVinoSession(artifact, device, threads, simulated, pinned) for _ in range(count)]
