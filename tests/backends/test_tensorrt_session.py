"""TensorRT's sessions on the fake GPU of ``tests/gpu``, which enforces what a real one does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.backends.contract import BackendContract
from tests.gpu.fake import FakeGpu


class TestTensorRtOnAGpu(BackendContract):
    name = "tensorrt"
    target_name = "jetson-orin-nano"
    recipe = "tensorrt-int8"
    batch = 1
    tells = False
    files = frozenset({"model.onnx", "build_engine.py", "build_engine.sh", "parse.json"})

    @pytest.fixture(autouse=True)
    def on_a_gpu(self, gpu: FakeGpu) -> Iterator[None]:
        yield
