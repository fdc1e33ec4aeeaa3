"""Inference runtimes: one module for each, named here. Importing this imports none of them."""

from __future__ import annotations

from collections.abc import Mapping

from edgetl.backends.base import Backend, Probe
from edgetl.backends.litert import LiteRt
from edgetl.backends.onnxruntime import OnnxRuntime
from edgetl.backends.openvino import OpenVino
from edgetl.backends.tensorrt import TensorRt

BACKENDS: Mapping[str, Backend] = {
    "onnxruntime": OnnxRuntime(),
    "openvino": OpenVino(),
    "tensorrt": TensorRt(),
    "litert": LiteRt(),
}

__all__ = ["BACKENDS", "Backend", "Probe"]
