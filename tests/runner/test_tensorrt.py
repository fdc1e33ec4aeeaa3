"""Artifacts for TensorRT: the backend is compiled where NVIDIA's headers are, and runs where a GPU is."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from edgetl.core.bundle import Artifact
from tests.runner.built import Runner
from tests.runtime.tiny import model, seal


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "model").mkdir(parents=True)
    onnx.save(model(), folder / "model/model.onnx")
    return seal(folder, Artifact("tensorrt", folder / "model/model.onnx", "fp32")).path


def test_it_says_that_it_is_not_compiled(runner: Runner, bundle: Path) -> None:
    if runner.compiled_with("EDGETL_TENSORRT"):
        pytest.skip("NvInferRuntime.h was found here")
    done = runner.run(bundle)
    assert done.returncode == 8
    assert "built without TensorRT" in done.stderr
    assert runner.run("--pixels", bundle).returncode == 0


def test_it_asks_for_an_engine(runner: Runner, bundle: Path) -> None:
    """Or for a GPU, or for its libraries: in one line."""
    if not runner.compiled_with("EDGETL_TENSORRT"):
        pytest.skip("NvInferRuntime.h was not found: NVIDIA's headers come with JetPack or TensorRT")
    done = runner.run(bundle)
    assert done.returncode == 6
    assert any(words in done.stderr for words in ("build_engine.sh --out", "no NVIDIA GPU", "cannot be opened"))
