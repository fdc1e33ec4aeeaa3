"""ONNX Runtime's dynamic quantizer: weights in 8 bits, the range of each activation taken while the model runs.

Nothing is calibrated. What it suits are transformers, whose activations differ from token to token and whose time goes
into few large products.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edgetl.base.extras import require, version
from edgetl.compress import graph
from edgetl.compress.calibration import Calibration
from edgetl.compress.recipes import Recipe

#: Operators that it computes in integers, or whose table it stores in them, in the order of the alphabet.
QUANTIZABLE = ("Gather", "Gemm", "MatMul")
#: What the quantizer appends to the name of a Gemm of which it makes a product, and to that of a product in integers.
PRODUCT, DYNAMIC = "_MatMul", "_quant"
_PURPOSE = "quantizing for ONNX Runtime"


def quantize(model: Path, recipe: Recipe, calibration: Calibration, out: Path) -> dict[str, Any]:
    """Write the model to ``out`` (see :func:`edgetl.compress.quantize.quantize`); the calibration is not looked at."""
    quantization = require("onnxruntime.quantization", _PURPOSE)
    nodes = graph.load(model).graph.node
    left = sorted(n.name for n in nodes if n.name in recipe.exclude_nodes or n.op_type in recipe.exclude_operators)
    types = {"int8": quantization.QuantType.QInt8, "uint8": quantization.QuantType.QUInt8}
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.onnx"
        quantization.quantize_dynamic(
            model,
            raw,
            # A Gemm becomes a MatMul and an Add before it is looked for.
            op_types_to_quantize=[k for k in QUANTIZABLE if k != "Gemm" and k not in recipe.exclude_operators],
            per_channel=recipe.per_channel,
            weight_type=types[recipe.weights],
            nodes_to_exclude=[name + end for name in left for end in ("", PRODUCT)],
            extra_options={"WeightSymmetric": recipe.weights == "int8"},
        )
        graph.save(graph.load(raw), out)
    return {"engine": f"onnxruntime {version('onnxruntime')}, dynamic", "left_in_float": left}
