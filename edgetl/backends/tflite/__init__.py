"""From ONNX to LiteRT's ``.tflite``."""

from __future__ import annotations

from edgetl.backends.tflite.convert import convert

__all__ = ["convert"]
