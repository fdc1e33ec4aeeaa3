from __future__ import annotations

from pathlib import Path

import pytest

from edgetl.compress.export import export_onnx
from tests.compress.models import PREPROCESS, small_model, small_transformer
from tests.compress.texts import TOKENS


@pytest.fixture(scope="package")
def small_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network as float ONNX with any batch."""
    return export_onnx(small_model(), PREPROCESS, tmp_path_factory.mktemp("small") / "model.onnx")


@pytest.fixture(scope="package")
def words_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small transformer as float ONNX with any batch and any length."""
    return export_onnx(small_transformer(), TOKENS, tmp_path_factory.mktemp("words") / "model.onnx")
