"""Half precision: a strongly typed ONNX graph for TensorRT, an IR with float16 weights for OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgetl.backends.openvino import read_network, save_network
from edgetl.base.errors import CompressionError
from edgetl.base.extras import require, version
from edgetl.compress import graph

#: Largest finite float16, and what stands for infinity where something is masked: the largest float32 and its like.
_LARGEST, _INFINITE = 65504.0, 1e30


def to_onnx(model: Path, out: Path) -> dict[str, Any]:
    """Convert every float tensor of an ONNX file to float16, the logits excepted; the input stays uint8.

    Raises:
        CompressionError: a weight is too large for float16.
    """
    converter = require("onnxruntime.transformers.float16", "converting to float16")
    numpy_helper = require("onnx.numpy_helper", "converting to float16")
    loaded = graph.load(model)
    for tensor in loaded.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not values.ndim and abs(values) > _INFINITE:
            values = np.asarray(np.copysign(_LARGEST, values), values.dtype)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        if values.dtype.kind == "f" and values.size and abs(values).max() > _LARGEST:
            raise CompressionError(f"the weights '{tensor.name}' exceed float16", "export with --precision fp32")
    outputs = [value.name for value in loaded.graph.output]
    half = converter.convert_float_to_float16(loaded, keep_io_types=outputs, op_block_list=[])
    graph.save(half, out)
    graph.load(out)
    return {"engine": f"onnxruntime {version('onnxruntime')}"}


def to_ir(model: Path, out: Path) -> dict[str, Any]:
    """Convert an ONNX file to an OpenVINO IR whose weights are stored in float16."""
    save_network(read_network(model), out, float16=True)
    return {"engine": f"openvino {version('openvino')}"}
