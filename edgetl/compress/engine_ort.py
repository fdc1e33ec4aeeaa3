"""ONNX Runtime's static quantizer: Q/DQ models for ONNX Runtime and, with other settings, for TensorRT."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgetl.compress import graph, qdq
from edgetl.compress.recipes import Recipe
from edgetl.extras import require, version

#: Operators that both runtimes execute in integers, sorted: the quantizer's own default order varies from run to run.
QUANTIZABLE = (
    "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool", "LeakyRelu",
    "MatMul", "MaxPool", "Mul", "Pad", "Relu", "Reshape", "Resize", "Sigmoid", "Softmax", "Split", "Squeeze",
    "Transpose", "Unsqueeze",
)  # fmt: skip


def quantize(model: Path, recipe: Recipe, images: Iterator[Any], out: Path) -> dict[str, Any]:
    """Write the Q/DQ model to ``out`` (see :func:`edgetl.compress.quantize.quantize`)."""
    quantization = require("onnxruntime.quantization", "quantizing for ONNX Runtime and TensorRT")
    shapes = require("onnxruntime.quantization.shape_inference", "quantizing for ONNX Runtime and TensorRT")
    with tempfile.TemporaryDirectory() as folder:
        prepared, raw = Path(folder) / "prepared.onnx", Path(folder) / "raw.onnx"
        # The exporter has inferred all shapes, dynamic batch included.
        shapes.quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        skipped = _left_in_float(graph.load(prepared), recipe)
        quantization.quantize_static(
            str(prepared),
            str(raw),
            _reader(quantization, images),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=[kind for kind in QUANTIZABLE if kind not in recipe.exclude_operators],
            per_channel=recipe.per_channel,
            activation_type=_type(quantization, recipe.activations),
            weight_type=_type(quantization, recipe.weights),
            nodes_to_exclude=skipped,
            calibrate_method=_method(quantization, recipe.estimator),
            extra_options={
                "ActivationSymmetric": recipe.activations_symmetric,
                "WeightSymmetric": True,
                "QuantizeBias": recipe.bias == "int32",
                "CalibPercentile": recipe.percentile,
            },
        )
        quantized = graph.load(raw)
    merged = qdq.merge_activations(quantized) if recipe.merge_activations else 0
    freed = qdq.free_outputs(quantized)
    graph.save(quantized, out)
    graph.load(out)
    return {
        "engine": f"onnxruntime {version('onnxruntime')}",
        "left_in_float": skipped,
        "pairs_removed": {"before_activations": merged, "on_outputs": freed},
    }


def _left_in_float(model: Any, recipe: Recipe) -> list[str]:
    named = [node.name for node in model.graph.node if node.name in recipe.exclude_nodes]
    return sorted({*graph.before_weights(model), *named})


def _reader(quantization: Any, images: Iterator[Any]) -> Any:
    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, Any] | None:
            image = next(images, None)
            return None if image is None else {"image": image}

    return Reader()


def _type(quantization: Any, name: str) -> Any:
    return {"uint8": quantization.QuantType.QUInt8, "int8": quantization.QuantType.QInt8}[name]


def _method(quantization: Any, name: str) -> Any:
    methods = quantization.CalibrationMethod
    return {"min-max": methods.MinMax, "percentile": methods.Percentile, "entropy": methods.Entropy}[name]
