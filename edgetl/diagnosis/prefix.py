"""The preprocessing inside a graph, executed by itself and explained: channels, layout, mean and standard deviation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import EdgetlError
from edgetl.base.extras import require
from edgetl.compress import graph
from edgetl.core.bundle import Bundle
from edgetl.core.findings import Finding
from edgetl.inputs import preprocess_of
from edgetl.inputs.image import Preprocess
from edgetl.runtime.ov import core

Array = npt.NDArray[np.float64]
#: Largest deviation from an exact normalisation, in standard deviations; one grey level is 0.017 under ImageNet's.
TOLERANCE = 0.008
#: The same where another tool has quantized the preprocessing's own constants.
TOLERANCE_QUANTIZED = 0.04
#: Operators between the normalised image and the first layer that are no preprocessing.
_AFTER = ("QuantizeLinear", "DequantizeLinear", "Pad", "Identity", "Cast", "FakeQuantize", "Convert")
_FIRST = ("Convolution", "GroupConvolution", "MatMul")


@dataclass(frozen=True)
class Explanation:
    """How a graph turns an image into its first layer's input.

    Attributes:
        channels: which channel of the image each plane comes from; (0, 1, 2) is right.
        layout: how rows and columns are read; "" is right.
        mean, std: of each plane, on the scale 0…1.
    """

    channels: tuple[int, int, int]
    layout: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def audit_prefix(bundle: Bundle) -> tuple[Finding, ...]:
    """Compare the preprocessing of the exported graph and of the artifact with ``preprocess.json``."""
    preprocess = preprocess_of(bundle)
    found: list[Finding] = []
    for where, model in (("the exported graph", bundle.exported), ("the artifact", bundle.artifact().graph)):
        image = probe(preprocess)
        planes, tolerance = planes_of(model, image)
        if planes is None or planes.shape != (len(preprocess.mean), preprocess.height, preprocess.width):
            continue
        already = {finding.kind for finding in found}
        found += [f for f in judge(planes, image, preprocess, where, tolerance) if f.kind not in already]
    return tuple(found)


def probe(preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """An image of the network's size whose channels, rows and columns all differ: uint8 (H, W, channels)."""
    draw = np.random.default_rng(0)
    shape = (preprocess.height, preprocess.width, len(preprocess.mean))
    return draw.integers(0, 256, shape).astype(np.uint8)


def judge(
    planes: Array, image: npt.NDArray[np.uint8], preprocess: Preprocess, where: str, tolerance: float = TOLERANCE
) -> Iterator[Finding]:
    """What is wrong with the planes (channels, H, W) that a graph made of an image (H, W, channels)."""
    mean, std = np.array(preprocess.mean), np.array(preprocess.std)
    if _close(planes, (image.transpose(2, 0, 1) / 255 - mean[:, None, None]) / std[:, None, None], tolerance):
        return
    explained = explain(planes, image, tolerance) if len(mean) == 3 else None
    if explained is None:
        yield Finding("preprocessing", f"In {where}, the image reaches the first layer changed beyond normalisation.")
        return
    if explained.layout:
        yield Finding("layout", f"In {where}, {explained.layout}.", evidence={"where": where})
    if explained.channels != (0, 1, 2):
        right = preprocess.channels
        order = "".join(right[i] for i in explained.channels)
        what = f"In {where}, the first layer reads the channels as {order} instead of {right}."
        yield Finding("channel-order", what, evidence={"where": where, "order": order})
    own = np.array([explained.mean, explained.std])
    # Whoever swaps channels may do so before or after normalising: neither is a second fault.
    orders = ([0, 1, 2], list(explained.channels))
    if not any(np.abs((own - np.array([mean, std])[:, order]) / std[order]).max() < tolerance for order in orders):
        what = (
            f"In {where}, the image is normalised by mean {_shown(own[0])} and std {_shown(own[1])}; preprocess.json "
            f"says {_shown(mean)} and {_shown(std)}."
        )
        numbers = {"mean": own[0].tolist(), "std": own[1].tolist()}
        yield Finding("normalisation", what, evidence={"where": where, **numbers})


def explain(planes: Array, image: npt.NDArray[np.uint8], tolerance: float = TOLERANCE) -> Explanation | None:
    """The arrangement and the affine function that make planes (3, H, W) of an image (H, W, 3); None if none does."""
    height, width = image.shape[:2]
    layouts: dict[str, Callable[[Array], Array]] = {
        "": lambda x: x.transpose(2, 0, 1),
        "NHWC memory is reinterpreted as NCHW without a transposition": lambda x: x.reshape(3, height, width),
        "NCHW memory is reinterpreted as NHWC without a transposition": lambda x: (
            x.transpose(2, 0, 1).reshape(height, width, 3).transpose(2, 0, 1)
        ),
    }
    if height == width:
        layouts["rows and columns are swapped"] = lambda x: x.transpose(2, 1, 0)
    for name, arrange in layouts.items():
        arranged = arrange(image.astype(np.float64) / 255)
        for channels in itertools.permutations(range(3)):
            fitted = _affine(planes, arranged[list(channels)], tolerance)
            if fitted is not None:
                return Explanation((channels[0], channels[1], channels[2]), name, *fitted)
    return None


def _affine(
    planes: Array, image: Array, tolerance: float
) -> tuple[tuple[float, float, float], tuple[float, float, float]] | None:
    slopes, offsets = zip(
        *(np.polyfit(x.reshape(-1), y.reshape(-1), 1) for x, y in zip(image, planes, strict=True)), strict=True
    )
    slope, offset = np.array(slopes), np.array(offsets)
    if not (slope > 1e-6).all() or not _close(planes, image * slope[:, None, None] + offset[:, None, None], tolerance):
        return None
    std, mean = 1 / slope, -offset / slope
    return tuple(mean.tolist()), tuple(std.tolist())


def _close(planes: Array, expected: Array, tolerance: float) -> bool:
    # Relative to the spread: a graph that divides by nothing at all gives values of hundreds.
    return bool(np.abs(planes - expected).max() <= tolerance * max(1.0, float(expected.std())))


def _shown(values: Array) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"


def planes_of(model: Path, image: npt.NDArray[np.uint8]) -> tuple[Array | None, float]:
    """Input of a graph's first layer, float64 (C, H, W), for one image; None where it is not made from the image alone.

    Other tools quantize what stands before the first layer, too: what that cuts off and rounds is left out.

    Args:
        model: ``.onnx`` or OpenVINO ``.xml``.
        image: uint8 (H, W, 3).

    Returns:
        the planes, and how far they may be from exact ones.
    """
    if model.suffix == ".tflite":
        return None, TOLERANCE
    try:
        made, exact = _by_openvino(model, image) if model.suffix == ".xml" else _by_onnxruntime(model, image)
    except EdgetlError:
        raise
    except Exception:  # a graph that cannot be cut open is one about which this module says nothing
        return None, TOLERANCE
    found = None if made is None or made.ndim != 4 else np.asarray(made[0], np.float64)
    return found, TOLERANCE if exact else TOLERANCE_QUANTIZED


_Made = tuple[npt.NDArray[Any] | None, bool]


def _by_onnxruntime(model: Path, image: npt.NDArray[np.uint8]) -> _Made:
    loaded = graph.load(model)
    _without_pairs(loaded)
    inside = set(graph.before_weights(loaded))
    makers = {name: node for node in loaded.graph.node for name in node.output}
    first = next((n for n in loaded.graph.node if n.op_type in graph.WEIGHTED), None)
    tensor = first.input[0] if first is not None else ""
    while tensor in makers and makers[tensor].op_type in _AFTER and makers[tensor].input[0] in makers:
        tensor = makers[tensor].input[0]
    if tensor not in makers or makers[tensor].name not in inside:
        return None, True
    onnx, runtime = require("onnx", "reading ONNX models"), require("onnxruntime", "running ONNX models")
    cut = onnx.utils.Extractor(loaded).extract_model([loaded.graph.input[0].name], [tensor])
    session = runtime.InferenceSession(cut.SerializeToString(), providers=["CPUExecutionProvider"])
    size = graph.fixed_batch(loaded) or 1
    made = session.run([tensor], {loaded.graph.input[0].name: np.repeat(image[None], size, 0)})[0]
    return made, all(node.op_type != "DequantizeLinear" for node in cut.graph.node)


def _without_pairs(model: Any) -> None:
    """Let every reader of a quantized activation read what was quantized, in place."""
    makers = {name: node for node in model.graph.node for name in node.output}
    through = {}
    for node in model.graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if maker is not None and maker.op_type == "QuantizeLinear":
            through[node.output[0]] = maker.input[0]
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = _followed(name, through)


def _followed(name: str, through: Mapping[str, str]) -> str:
    seen = {name}
    while name in through and through[name] not in seen:
        name = through[name]
        seen.add(name)
    return name


def _by_openvino(model: Path, image: npt.NDArray[np.uint8]) -> _Made:
    openvino = require("openvino", "reading OpenVINO models")
    network = core().read_model(model)
    first = next((op for op in network.get_ordered_ops() if op.get_type_name() in _FIRST), None)
    if first is None:
        return None, True
    for op in [op for op in network.get_ordered_ops() if op.get_type_name() == "FakeQuantize"]:
        if op.input_value(0).get_node().get_type_name() != "Constant":
            op.output(0).replace(op.input_value(0))
    port = first.input(0).get_source_output()
    while port.get_node().get_type_name() in _AFTER and port.get_node().inputs():
        above = port.get_node().input(0).get_source_output()
        if above.get_node().get_type_name() in ("Parameter", "Constant"):
            break
        port = above
    cut = openvino.Model([port], network.get_parameters(), "prefix")
    stored = {op.get_output_element_type(0).get_type_name() for op in cut.get_ops() if op.get_type_name() == "Constant"}
    exact = not stored & {"i8", "u8"} and all(op.get_type_name() != "FakeQuantize" for op in cut.get_ops())
    compiled = core().compile_model(cut, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    shape = compiled.inputs[0].get_partial_shape()
    size = shape[0].get_length() if shape[0].is_static else 1
    made: npt.NDArray[Any] = compiled(np.repeat(image[None], size, 0))[0]
    return made, exact
