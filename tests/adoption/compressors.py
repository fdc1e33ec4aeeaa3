"""What other tools make of a float ONNX file: ONNX Runtime's quantizer and NNCF, as their users call them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import numpy.typing as npt
import onnx
import openvino
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from edgetl.runtime.ov import core

Feeds = Sequence[Mapping[str, npt.NDArray[Any]]]
#: ONNX Runtime's settings for TensorRT, which takes symmetric int8 and biases in float.
PER_CHANNEL: Mapping[str, Any] = {
    "per_channel": True,
    "activation_type": QuantType.QInt8,
    "extra_options": {"ActivationSymmetric": True, "QuantizeBias": False},
}


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Feeds) -> None:
        self.feeds: Iterator[Any] = iter(feeds)

    def get_next(self) -> Any:
        """The next sample."""
        return next(self.feeds, None)


def by_ort(model: Path, out: Path, feeds: Feeds, **options: Any) -> Path:
    """ONNX Runtime's ``quantize_static``, its defaults but for these options."""
    logging.getLogger().setLevel(logging.ERROR)
    quantize_static(model, out, _Reader(feeds), **options)
    return out


def by_nncf(model: Path, out: Path, feeds: Feeds, **options: Any) -> Path:
    """NNCF's ``quantize`` of what OpenVINO converts, saved as OpenVINO saves it."""
    logging.getLogger("nncf").setLevel(logging.ERROR)
    network = core().read_model(model)
    data = nncf.Dataset(list(feeds), lambda one: {name: np.asarray(array) for name, array in one.items()})
    openvino.save_model(nncf.quantize(network, data, subset_size=len(feeds), **options), out)
    return out


def swapped_stem(model: Any) -> None:
    """Weigh red as blue, in place."""
    _change(model, _layers(model)[0].input[1], lambda array: array[:, ::-1])


def permuted_head(model: Any) -> None:
    """Give each class the weights of the next one, in place."""
    head = _layers(model)[-1]
    by_rows = any(attribute.name == "transB" and attribute.i for attribute in head.attribute)
    _change(model, head.input[1], lambda array: np.roll(array, 1, 0 if by_rows else 1))
    if len(head.input) > 2:
        _change(model, head.input[2], lambda array: np.roll(array, 1))


def otherwise_scaled(model: Any) -> None:
    """Divide the normalised image by half of its standard deviation again, in place."""
    first = _layers(model)[0]
    model.graph.initializer.append(numpy_helper.from_array(np.float32(2), "twice"))
    place = list(model.graph.node).index(first)
    model.graph.node.insert(place, onnx.helper.make_node("Mul", [first.input[0], "twice"], ["doubled"], "doubled"))
    first.input[0] = "doubled"


def ended_by(*kinds: str) -> Callable[[Any], None]:
    """What puts these activations behind a model's output, whose name stays, in place."""

    def change(model: Any) -> None:
        (output,) = model.graph.output
        for node in model.graph.node:
            node.output[:] = ["before" if name == output.name else name for name in node.output]
        names = ["before", *(f"between{i}" for i in range(len(kinds) - 1)), output.name]
        for kind, source, made in zip(kinds, names, names[1:], strict=False):
            model.graph.node.append(onnx.helper.make_node(kind, [source], [made], made))

    return change


def tampered(model: Path, out: Path, change: Callable[[Any], None]) -> Path:
    """A copy of an ONNX file, changed."""
    loaded = onnx.load(str(model))
    change(loaded)
    onnx.checker.check_model(loaded)
    onnx.save(loaded, out)
    return out


def _layers(model: Any) -> list[Any]:
    return [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]


def _change(model: Any, name: str, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(numpy_helper.to_array(tensor))), name))
