from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino", reason="openvino is not installed")
pytest.importorskip("nncf", reason="nncf is not installed: OpenVINO models cannot be quantized")

from edgetl.backends import BACKENDS
from edgetl.base.errors import BackendError
from edgetl.compress.quantize import quantize, to_float
from edgetl.compress.recipes import load_recipe
from edgetl.core.targets import find_target
from tests.backends.contract import BackendContract
from tests.compress.images import pictures
from tests.compress.models import logits_of


class TestOpenVinoOnTheCpu(BackendContract):
    name = "openvino"
    target_name = "intel-cpu"
    recipe = "openvino-int8"
    batch = 1
    files = frozenset({"model.xml", "model.bin"})


class TestOpenVinoForTheNpu:
    def test_shapes_are_static_and_the_cpu_plugin_simulates(self, small_onnx: Path, tmp_path: Path) -> None:
        backend, target = BACKENDS["openvino"], find_target("intel-npu")
        half = to_float(small_onnx, "openvino", "fp16", tmp_path / "half").path
        artifact = backend.compile(half, target, tmp_path / "out")
        assert (artifact.precision, artifact.device) == ("fp16", "NPU")
        session = backend.open(artifact, simulated=True)
        assert session.inputs[0].shape == (1, 32, 32, 3)
        images = pictures(10)
        found = np.concatenate([session.run({"image": image[None]})["logits"] for image in images])
        expected = logits_of(small_onnx, images)
        assert np.abs(found - expected).max() < 0.01 * np.ptp(expected)
        session.close()

    def test_fp16_halves_the_weights(self, small_onnx: Path, tmp_path: Path) -> None:
        backend = BACKENDS["openvino"]
        full = backend.compile(small_onnx, find_target("intel-igpu"), tmp_path / "full")
        half = backend.compile(
            to_float(small_onnx, "openvino", "fp16", tmp_path / "half").path,
            find_target("intel-igpu"),
            tmp_path / "out",
        )
        sizes = [artifact.path.with_suffix(".bin").stat().st_size for artifact in (half, full)]
        assert sizes[0] < 0.6 * sizes[1]


def test_every_layer_of_a_real_network_runs_in_integers(lite0_onnx: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 1, 224, 224, 3), dtype=np.uint8)
    images = [{"image": image} for image in noise]
    model = quantize(lite0_onnx, load_recipe("openvino-int8"), images, tmp_path / "quantized").path
    session = BACKENDS["openvino"].open(BACKENDS["openvino"].compile(model, find_target("intel-cpu"), tmp_path / "out"))
    executed = session.executed()
    session.close()
    # Read without OpenVINO's common transformations, the 16 depthwise convolutions stay in float.
    assert executed.layers == {"int8": 50}
    assert executed.integer_macs == 1.0


def test_an_ir_without_its_weights_is_refused(small_onnx: Path, tmp_path: Path) -> None:
    model = to_float(small_onnx, "openvino", "fp16", tmp_path).path
    model.with_suffix(".bin").unlink()
    with pytest.raises(BackendError, match=r"lacks its weights, float16\.bin"):
        BACKENDS["openvino"].compile(model, find_target("intel-igpu"), tmp_path / "out")
