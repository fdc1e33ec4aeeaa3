from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgetl.base.errors import CompressionError
from edgetl.compress.export import export_onnx
from edgetl.compress.graph import load
from edgetl.compress.layers.taps import Tapped, compare, first, torch_taps
from edgetl.compress.quantize import quantize
from edgetl.compress.recipes import load_recipe
from edgetl.core.bundle import Artifact
from edgetl.runtime.sessions import open_session
from tests.compress.images import pictures
from tests.compress.models import PREPROCESS, small_model

IMAGES = [{"image": image[None]} for image in pictures(4, seed=3)]


@pytest.fixture(scope="module", params=["ort-x86-int8", "tensorrt-int8"])
def quantized(request: pytest.FixtureRequest, small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = [{"image": image[None]} for image in pictures(12, seed=1)]
    return quantize(small_onnx, load_recipe(request.param), samples, tmp_path_factory.mktemp("taps")).path


def damaged(path: Path, weight: str, out: Path) -> Path:
    """A copy in which one channel of one layer is lost."""
    model = load(path)
    tensor = next(t for t in model.graph.initializer if t.name == weight)
    values = numpy_helper.to_array(tensor).copy()
    values[0] = 0
    tensor.CopyFrom(numpy_helper.from_array(values, weight))
    onnx.save(model, out)
    return out


def test_quantization_noise_of_every_layer(quantized: Path, small_onnx: Path) -> None:
    found = compare((small_onnx, False), (quantized, True), IMAGES)
    assert len(found) == 11
    assert [t.sqnr_db for t in found] == sorted(t.sqnr_db for t in found)
    assert {t.module for t in found} >= {"body.0", "body.5.layers.6", "head"}
    assert all(10 < t.sqnr_db < 60 for t in found)
    # The first layer has its own noise alone, the logits that of all.
    in_order = sorted(found, key=lambda t: t.order)
    assert in_order[0].node == "body.0/Conv"
    assert in_order[0].sqnr_db > in_order[-1].sqnr_db


def test_figures_agree_with_the_logits(quantized: Path, small_onnx: Path) -> None:
    head = next(t for t in compare((small_onnx, True), (quantized, True), IMAGES) if t.module == "head")
    logits = [
        np.concatenate([session.run(feeds)["logits"] for feeds in IMAGES]).astype(np.float64)
        for path in (small_onnx, quantized)
        for session in [open_session(Artifact("onnxruntime", path, "int8"), simulated=True)]
    ]
    expected = 10 * np.log10((logits[0] ** 2).sum() / ((logits[1] - logits[0]) ** 2).sum())
    assert head.sqnr_db == pytest.approx(expected, abs=0.05)


def test_a_file_agrees_with_itself(quantized: Path) -> None:
    assert {t.sqnr_db for t in compare((quantized, True), (quantized, True), IMAGES)} == {120.0}


def test_the_first_layer_that_differs_is_named(small_onnx: Path, tmp_path: Path) -> None:
    other = damaged(small_onnx, "body.4.layers.0.weight", tmp_path / "damaged.onnx")
    found = compare((small_onnx, False), (other, False), IMAGES)
    worst = first(found)
    assert worst is not None
    assert worst.module == "body.4.layers.0"
    assert first(compare((small_onnx, True), (small_onnx, False), IMAGES)) is None


def test_taps_leave_the_fused_kernels_alone(small_onnx: Path, tmp_path: Path) -> None:
    samples = [{"image": image[None]} for image in pictures(12, seed=1)]
    path = quantize(small_onnx, load_recipe("ort-x86-int8"), samples, tmp_path).path
    tapped = Tapped(path, simulated=False)
    tensors = [tensor for tensor in tapped.layers if tapped.readable(tensor, tapped)]
    assert len(tensors) == 11
    tapped.open(tensors)
    onnx.save(tapped.model, tmp_path / "tapped.onnx")
    plain, exposed = (
        open_session(Artifact("onnxruntime", file, "int8")).executed() for file in (path, tmp_path / "tapped.onnx")
    )
    assert exposed == plain
    assert plain.integer_macs == 1.0


def test_integer_kernels_follow_the_simulation(quantized: Path) -> None:
    found = compare((quantized, True), (quantized, False), IMAGES)
    assert len(found) == 11
    assert all(t.sqnr_db > 20 for t in found)


def test_torch_and_export_agree(small_onnx: Path) -> None:
    found = torch_taps(small_model(), small_onnx, IMAGES)
    assert [t.order for t in found] == list(range(11))
    assert min(t.sqnr_db for t in found) > 80
    assert first(found) is None


def test_an_export_of_other_weights_names_the_module(small_onnx: Path) -> None:
    model = small_model()
    with torch.no_grad():
        model.body[5].layers[3].weight[7] *= 2
    found = first(torch_taps(model, small_onnx, IMAGES))
    assert found is not None
    assert found.module == "body.5.layers.3"


def test_a_batch_norm_in_training_mode_is_named_by_its_convolution(small_onnx: Path) -> None:
    model = small_model()
    model.body[4].layers[4].train()
    found = first(torch_taps(model, small_onnx, IMAGES))
    assert found is not None
    assert found.module == "body.4.layers.3"
    assert model.body[4].layers[4].training


def test_activations_inside_batch_norms_are_left_out(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm is not installed")

    class Prepared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.backbone = timm.create_model("test_efficientnet", num_classes=5)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.backbone(image.to(torch.float32).permute(0, 3, 1, 2) / 255.0)

    model = Prepared().eval()
    exported = export_onnx(model, PREPROCESS, tmp_path / "model.onnx")
    found = torch_taps(model, exported, IMAGES)
    assert len(found) == 18
    assert min(t.sqnr_db for t in found) > 90


def test_nothing_in_common(small_onnx: Path) -> None:
    with pytest.raises(CompressionError, match="belongs to this model"):
        torch_taps(torch.nn.Linear(2, 2), small_onnx, IMAGES)
    with pytest.raises(CompressionError, match="no sample to compare the layers on"):
        compare((small_onnx, True), (small_onnx, True), [])
