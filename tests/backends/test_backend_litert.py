from __future__ import annotations

import pytest

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

from tests.backends.contract import BackendContract


class TestLiteRt(BackendContract):
    name = "litert"
    target_name = "arm64-litert"
    recipe = "litert-int8"
    batch = 1
    files = frozenset({"model.tflite", "model.onnx"})


class TestLiteRtSimulated(BackendContract):
    name = "litert"
    target_name = "arm64-litert"
    recipe = "litert-int8"
    simulated = True
    files = frozenset({"model.tflite", "model.onnx"})
