"""Layers that a recipe left in float run in float, and a simulation of integers is float arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgetl.core.bundle import Artifact
from edgetl.runtime.machine import machine, saturates
from edgetl.runtime.sessions import open_session
from tests.compress.images import pictures

pytest.importorskip("torch", reason="torch is not installed: nothing can be exported")

from edgetl.compress.export import export_onnx
from edgetl.compress.quantize import quantize
from edgetl.compress.recipes import load_recipe, with_changes
from tests.compress.models import PREPROCESS, small_model

SAMPLES = [{"image": image[None]} for image in pictures(12, seed=1)]
IMAGES = pictures(6, seed=2)
EXCLUDED = ("body.4.layers.0/Conv", "body.5.layers.3/Conv", "head/Gemm")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(small_model(), PREPROCESS, tmp_path_factory.mktemp("runtime") / "model.onnx")


def test_excluded_layers_run_in_float_in_onnx_runtime(exported: Path, tmp_path: Path) -> None:
    recipe = load_recipe("ort-x86-int8")
    whole = quantize(exported, recipe, SAMPLES, tmp_path / "whole").path
    partly = quantize(exported, with_changes(recipe, exclude_nodes=EXCLUDED), SAMPLES, tmp_path / "partly").path
    done = open_session(Artifact("onnxruntime", partly, "int8")).executed()
    assert dict(done.layers) == {"fp32": 3, "int8": 8}
    done = open_session(Artifact("onnxruntime", whole, "int8")).executed()
    assert dict(done.layers) == {"int8": 11}
    assert done.integer_macs == 1.0


@pytest.mark.skipif(saturates(machine()), reason="this CPU has no VNNI: products of int8 layers saturate in 16 bits")
def test_a_whole_model_answers_as_with_every_optimisation(exported: Path, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = quantize(exported, load_recipe("ort-x86-int8"), SAMPLES, tmp_path).path
    session = open_session(Artifact("onnxruntime", path, "int8"))
    usual = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for image in IMAGES:
        expected = usual.run(["logits"], {"image": image[None]})[0]
        assert np.array_equal(session.run({"image": image[None]})["logits"], expected)


@pytest.mark.skipif(saturates(machine()), reason="this CPU has no VNNI: products of int8 layers saturate in 16 bits")
def test_openvino_simulates_integers_in_float(exported: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf", reason="nncf is not installed: OpenVINO models cannot be quantized")
    path = quantize(exported, load_recipe("openvino-int8"), SAMPLES, tmp_path).path
    artifact = Artifact("openvino", path, "int8", "CPU")
    integers, floats = open_session(artifact), open_session(artifact, simulated=True)
    assert dict(integers.executed().layers) == {"int8": 11}
    assert dict(floats.executed().layers) == {"fp32": 11}
    exact = open_session(Artifact("onnxruntime", exported, "fp32"))
    answer, other, truth = (
        np.concatenate([session.run({"image": image[None]})["logits"] for image in IMAGES])
        for session in (integers, floats, exact)
    )
    # It is the quantized model that is simulated, not the float one, and the right one: halves are rounded apart.
    assert np.abs(other - truth).mean() > 0.002 * np.ptp(truth)
    assert np.abs(answer - other).mean() < 0.5 * np.abs(other - truth).mean()
