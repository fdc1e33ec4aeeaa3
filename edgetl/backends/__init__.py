"""Inference runtimes: one module for each, named here. Importing this imports none of them."""

from __future__ import annotations

from collections.abc import Mapping

from edgetl.backends.base import Backend, Probe
from edgetl.backends.onnxruntime import OnnxRuntime
from edgetl.backends.openvino import OpenVino
from edgetl.backends.tensorrt import TensorRt
from edgetl.errors import UnknownNameError

BACKENDS: Mapping[str, Backend] = {
    "onnxruntime": OnnxRuntime(),
    "openvino": OpenVino(),
    "tensorrt": TensorRt(),
}

__all__ = ["BACKENDS", "Backend", "Probe", "find_backend"]


def find_backend(name: str) -> Backend:
    """The backend of this name.

    Raises:
        UnknownNameError: there is none; the near names are offered.
    """
    if name not in BACKENDS:
        raise UnknownNameError("backend", name, BACKENDS)
    return BACKENDS[name]
