"""From a float ONNX model to what a recipe or a precision asks for, by the engine that the recipe names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.base.errors import CompressionError, EdgetlError
from edgetl.base.progress import Progress, silent
from edgetl.base.storage import sha256_file
from edgetl.compress import engine_dynamic, engine_nncf, engine_ort, float16, graph
from edgetl.compress.batches import grouped
from edgetl.compress.calibration import Calibration
from edgetl.compress.equalize import equalize
from edgetl.compress.quiet import quiet
from edgetl.compress.recipes import DYNAMIC, Recipe
from edgetl.core.compression import Quantization
from edgetl.core.tensors import Arrays

#: Name of the equalized float ONNX file beside the quantized one.
SOURCE = "source.onnx"
_Engine = Callable[[Path, Recipe, Calibration, Path], dict[str, Any]]
#: engine of a recipe → (name of the file it writes, function)
_ENGINES: Mapping[str, tuple[str, _Engine]] = {
    "onnxruntime": ("quantized.onnx", engine_ort.quantize),
    "nncf-openvino": ("quantized.xml", engine_nncf.quantize),
    DYNAMIC: ("quantized.onnx", engine_dynamic.quantize),
}


@dataclass(frozen=True)
class QuantizedModel:
    """A compressed model and how it came about.

    Attributes:
        path: ``.onnx``, or ``.xml`` with its ``.bin`` beside it.
        record: what a bundle keeps of that.
    """

    path: Path
    record: Quantization


def quantize(
    model: Path,
    recipe: Recipe,
    samples: Iterable[Arrays],
    out: Path,
    progress: Progress = silent,
    *,
    cache: Path | None = None,
) -> QuantizedModel:
    """Quantize a float ONNX model to int8, the preprocessing before its first weighted operator excepted.

    The same model, recipe and samples give the same bytes.

    Args:
        model: what :func:`edgetl.compress.export.export_onnx` wrote.
        recipe: from :func:`edgetl.compress.recipes.recipe_for`.
        samples: the inputs of one each, (1, …) by name, from the calibration split; none where the recipe calibrates
            nothing.
        out: folder to write into. Where the recipe equalizes, the float model that was then quantized is kept there
            as :data:`SOURCE`.
        progress: told of each sample.
        cache: folder for what was observed on the samples, under a key of the model and the samples: another recipe
            finds it there. Nothing is kept without it.

    Raises:
        CompressionError: no sample, or the engine cannot quantize the model.
    """
    batch = graph.fixed_batch(graph.load(model))
    chosen = list(samples)
    if not chosen and recipe.calibrates:
        raise CompressionError("there is no sample to take the ranges from", "give the calibration split samples")
    name, engine = _ENGINES[recipe.engine]
    calibration = Calibration(grouped(chosen, batch or 1), cache, progress)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with quiet():
            equalized = equalize(model, out / SOURCE, calibration.batches) if recipe.equalize else None
            details = engine(out / SOURCE if equalized else model, recipe, calibration, out / name)
    except EdgetlError:
        raise
    except Exception as error:  # the engines raise many kinds, and none of them is the user's to handle
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise CompressionError(
            f"{recipe.engine} cannot quantize {model} ({reason[0]})", "export with --precision fp32, or another recipe"
        ) from error
    record = Quantization(
        precision="int8",
        recipe=recipe.to_json(),
        samples=len(chosen),
        source_sha256=sha256_file(model),
        equalization=equalized.to_json() if equalized else None,
        **{**details, "left_in_float": tuple(details["left_in_float"])},
    )
    return QuantizedModel(out / name, record)


def to_float(model: Path, backend: str, precision: str, out: Path) -> QuantizedModel:
    """Give a float ONNX model the precision fp32 (as it is) or fp16, as the backend wants it.

    For TensorRT, fp16 is a strongly typed graph: every tensor is float16 but inputs and outputs. OpenVINO
    takes the fp32 graph: its compiler stores the weights in float16.

    Args:
        model: float ONNX file.
        backend: ``onnxruntime``, ``openvino`` or ``tensorrt``.
        precision: ``fp32`` or ``fp16``.
        out: folder to write into.

    Raises:
        CompressionError: the backend has no such precision.
    """
    source = sha256_file(model)
    if precision == "fp32":
        return QuantizedModel(model, Quantization(precision, "none", source_sha256=source))
    converters = {"tensorrt": ("float16.onnx", float16.to_onnx), "openvino": ("float16.xml", float16.to_ir)}
    if precision != "fp16" or backend not in converters:
        raise CompressionError(f"{backend} does not take {precision} models", "use fp32 or int8")
    name, convert = converters[backend]
    out.mkdir(parents=True, exist_ok=True)
    with quiet():
        details = convert(model, out / name)
    return QuantizedModel(out / name, Quantization(precision, source_sha256=source, **details))
