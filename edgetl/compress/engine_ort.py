"""ONNX Runtime's static quantizer: Q/DQ models for ONNX Runtime and, with other settings, for TensorRT.

Ranges come from :mod:`edgetl.compress.layers.ranges`: the quantizer's own calibrators keep every tensor of every
sample, and need minutes for percentiles and entropy.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.base.extras import require, version
from edgetl.compress import bias, graph, qdq
from edgetl.compress.calibration import Calibration, Ranges
from edgetl.compress.recipes import Recipe

#: Operators that both runtimes execute in integers, sorted: the quantizer's own default order varies from run to run.
QUANTIZABLE = (
    "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool", "LeakyRelu",
    "MatMul", "MaxPool", "Mul", "Pad", "Relu", "Reshape", "Resize", "Sigmoid", "Softmax", "Split", "Squeeze",
    "Transpose", "Unsqueeze",
)  # fmt: skip
_PURPOSE = "quantizing for ONNX Runtime and TensorRT"


def quantize(model: Path, recipe: Recipe, calibration: Calibration, out: Path) -> dict[str, Any]:
    """Write the Q/DQ model to ``out`` (see :func:`edgetl.compress.quantize.quantize`)."""
    shapes = require("onnxruntime.quantization.shape_inference", _PURPOSE)
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        # The exporter has inferred all shapes, dynamic batch included.
        shapes.quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
        if recipe.bias_correction != "none":
            graph.save(graph.with_biases(graph.load(prepared)), prepared)
        skipped = _left_in_float(graph.load(prepared), recipe)
        ranges = calibration.ranges(model, prepared, recipe)
        quantized = _quantized(prepared, recipe, ranges, skipped)
        removed = {
            "before_activations": qdq.merge_activations(quantized) if recipe.merge_activations else 0,
            "on_constants": qdq.free_constants(quantized, graph.load(prepared)) if recipe.backend == "tensorrt" else 0,
            "on_outputs": qdq.free_outputs(quantized),
            "beside_float": qdq.free_floats(quantized) if recipe.exclude_nodes or recipe.exclude_operators else 0,
        }
        corrected = bias.correct(quantized, prepared, calibration.batches, recipe.bias_correction, calibration.progress)
    graph.save(quantized, out)
    graph.load(out)
    return {
        "engine": f"onnxruntime {version('onnxruntime')}",
        "estimator": {"name": recipe.estimator, "tensors": len(ranges)},
        "left_in_float": skipped,
        "pairs_removed": removed,
        "bias_correction": corrected,
    }


def _quantized(prepared: Path, recipe: Recipe, ranges: Ranges, skipped: list[str]) -> Any:
    calibrate = require("onnxruntime.quantization.calibrate", _PURPOSE)
    quantizer = require("onnxruntime.quantization.qdq_quantizer", _PURPOSE).QDQQuantizer
    reader = require("onnxruntime.quantization.quant_utils", _PURPOSE)
    types = {"uint8": reader.QuantType.QUInt8, "int8": reader.QuantType.QInt8}
    ends = {name: (np.array(low, np.float32), np.array(high, np.float32)) for name, (low, high) in ranges.items()}
    made = quantizer(
        reader.load_model_with_shape_infer(prepared),
        recipe.per_channel,
        False,
        types[recipe.weights],
        types[recipe.activations],
        calibrate.TensorsData(calibrate.CalibrationMethod.MinMax, ends),
        [],
        skipped,
        [kind for kind in QUANTIZABLE if kind not in recipe.exclude_operators],
        {
            "ActivationSymmetric": recipe.activations_symmetric,
            "WeightSymmetric": True,
            "QuantizeBias": recipe.bias == "int32",
        },
    )
    made.quantize_model()
    raw = prepared.with_name("raw.onnx")
    made.model.save_model_to_file(str(raw), False)
    return graph.load(raw)


def _left_in_float(model: Any, recipe: Recipe) -> list[str]:
    named = [node.name for node in model.graph.node if node.name in recipe.exclude_nodes]
    return sorted({*graph.before_weights(model), *named})
