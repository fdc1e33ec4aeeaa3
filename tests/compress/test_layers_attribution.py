from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgetl.base.errors import CompressionError
from edgetl.base.schema import to_json
from edgetl.certify.ladder import responsible as layers_responsible
from edgetl.compress.export import export_onnx
from edgetl.compress.graph import load
from edgetl.compress.layers.attribution import LayerNoise, attribute, responsible
from edgetl.compress.layers.points import Grid, Point, read_points
from edgetl.compress.quantize import quantize
from edgetl.compress.recipes import load_recipe
from edgetl.core.tensors import Arrays
from tests.compress.hostile import RESCALED, hostile_model
from tests.compress.images import pictures
from tests.compress.models import PREPROCESS, logits_of, small_model

IMAGES = pictures(6, seed=3)


def samples(count: int = 12) -> Iterator[Arrays]:
    return ({"image": image[None]} for image in pictures(count, seed=1))


@pytest.fixture(scope="module")
def points(small_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Point, ...]:
    made = quantize(small_onnx, load_recipe("ort-x86-int8"), samples(), tmp_path_factory.mktemp("attribution"))
    return read_points(made.path, small_onnx)


@pytest.fixture(scope="module")
def noises(small_onnx: Path, points: tuple[Point, ...]) -> tuple[LayerNoise, ...]:
    return attribute(small_onnx, points, [{"image": image[None]} for image in IMAGES])


def read_by(name: str) -> torch.Tensor:
    """What a layer of the torch model reads for IMAGES."""
    seen: list[torch.Tensor] = []
    model = small_model()
    dict(model.named_modules())[name].register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    with torch.no_grad():
        model(torch.from_numpy(IMAGES))
    return seen[0]


def weight_of(path: Path, node: str) -> torch.Tensor:
    model = load(path)
    name = next(n.input[1] for n in model.graph.node if n.name == node)
    return torch.tensor(numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name)))


def decibels(noise: torch.Tensor, signal: torch.Tensor) -> float:
    """The definition, written again: arrays are (images, channels, height, width)."""
    energy = (noise.double() ** 2).mean(dim=(0, 2, 3))
    spread = signal.double().var(dim=(0, 2, 3), unbiased=False)
    part = float((energy / (energy + spread)).mean())
    return float(10 * np.log10((1 - part) / part))


def found(noises: tuple[LayerNoise, ...], cause: str, **wanted: str) -> LayerNoise:
    return next(n for n in noises if n.cause == cause and all(getattr(n, k) == v for k, v in wanted.items()))


@pytest.mark.parametrize(("module", "groups", "padding"), [("body.3.layers.6", 1, 0), ("body.3.layers.3", 64, 1)])
def test_figures_agree_with_the_same_computed_in_torch(
    module: str, groups: int, padding: int, small_onnx: Path, points: tuple[Point, ...], noises: tuple[LayerNoise, ...]
) -> None:
    point = next(p for p in points if p.module == module)
    assert point.weight is not None
    assert point.grid is not None
    x, weight = read_by(module), weight_of(small_onnx, point.node)

    def layer(values: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(values, kernel, padding=padding, groups=groups)

    signal = layer(x, weight)
    by_weights = decibels(layer(x, torch.tensor(point.weight)) - signal, signal)
    assert found(noises, "weights", node=point.node).sqnr_db == pytest.approx(by_weights, abs=0.02)
    step = (point.grid.high - point.grid.low) / 255
    rounded = torch.fake_quantize_per_tensor_affine(x, step, round(-point.grid.low / step), 0, 255)
    by_activations = decibels(layer(rounded, weight) - signal, signal)
    noise = found(noises, "activations", consumer=point.node)
    assert noise.sqnr_db == pytest.approx(by_activations, abs=0.02)
    assert noise.node == point.producer


def test_every_layer_is_measured_worst_first(points: tuple[Point, ...], noises: tuple[LayerNoise, ...]) -> None:
    assert {n.node for n in noises if n.cause == "weights"} == {p.node for p in points}
    assert {n.node for n in noises if n.cause == "activations"} == {p.producer for p in points}
    assert [n.sqnr_db for n in noises] == sorted(n.sqnr_db for n in noises)
    assert sum(n.share for n in noises) == pytest.approx(1)
    assert all(15 < n.sqnr_db < 70 for n in noises)
    assert to_json(noises[0])["sqnr_db"] == noises[0].sqnr_db


@pytest.mark.parametrize("recipe", ["ort-x86-int8", "openvino-int8"])
def test_rescaled_channels_are_named(recipe: str, tmp_path: Path) -> None:
    if recipe == "openvino-int8":
        pytest.importorskip("nncf", reason="nncf is not installed: OpenVINO models cannot be quantized")
    exported = export_onnx(hostile_model(), PREPROCESS, tmp_path / "model.onnx")
    honest = small_model()
    images = pictures(64, seed=2)
    with torch.no_grad():
        before = honest(torch.from_numpy(images)).numpy()
    assert np.allclose(before, logits_of(exported, images), atol=1e-3 * np.ptp(before))
    made = quantize(exported, load_recipe(recipe), samples(), tmp_path)
    named = responsible(
        attribute(exported, read_points(made.path, exported), [{"image": image[None]} for image in IMAGES])
    )
    right = [noise.module in RESCALED for noise in named]
    assert len(named) >= 2
    assert np.mean(right) >= 0.8, [noise.module for noise in named]
    assert right[0]


def test_saturation_is_the_share_beyond_the_grid(small_onnx: Path, points: tuple[Point, ...]) -> None:
    narrow = [replace(p, grid=Grid(0.0, 1.0, 256)) if p.module == "body.3.layers.3" else p for p in points]
    noises = attribute(small_onnx, narrow, [{"image": image[None]} for image in IMAGES])
    x = read_by("body.3.layers.3").numpy()
    noise = found(noises, "activations", consumer="body.3.layers.3/Conv")
    assert noise.saturated == pytest.approx(float((x > 1).mean()), abs=0.005)
    assert noise.saturated > 0.1
    assert found(noises, "weights", node="body.3.layers.3/Conv").saturated == 0


def test_layers_in_float_make_no_noise(small_onnx: Path, points: tuple[Point, ...]) -> None:
    floating = [replace(p, weight=None, grid=None) if p.module == "head" else p for p in points]
    noises = attribute(small_onnx, floating, [{"image": IMAGES[:1]}])
    assert "head/Gemm" not in {n.node for n in noises} | {n.consumer for n in noises}


def test_an_untouched_weight_is_silent(small_onnx: Path, points: tuple[Point, ...]) -> None:
    exact = [replace(p, weight=weight_of(small_onnx, p.node).numpy()) for p in points]
    noises = attribute(small_onnx, exact, [{"image": IMAGES[:1]}])
    assert {n.sqnr_db for n in noises if n.cause == "weights"} == {120.0}


def test_a_lost_channel_is_noise_in_one_channel(small_onnx: Path, points: tuple[Point, ...]) -> None:
    def without_channel(point: Point) -> Any:
        weight = weight_of(small_onnx, point.node).numpy().copy()
        weight[3] = 0
        return replace(point, weight=weight)

    damaged = [without_channel(p) if p.module == "body.4.layers.6" else p for p in points]
    noises = attribute(small_onnx, damaged, [{"image": image[None]} for image in IMAGES])
    assert noises[0].module == "body.4.layers.6"
    # All of one channel in 24 is noise: energy plus squared mean against variance makes it half or more of a channel.
    assert 10 * np.log10(23) - 0.5 < noises[0].sqnr_db < 10 * np.log10(47) + 0.5


def test_fixed_batches_are_measured_too(tmp_path: Path, small_onnx: Path, points: tuple[Point, ...]) -> None:
    four = export_onnx(small_model(), PREPROCESS, tmp_path / "four.onnx", batch=4)
    images = [{"image": image[None]} for image in IMAGES[:2]]
    one, other = attribute(small_onnx, points, images), attribute(four, points, images)
    assert [n.node for n in one] == [n.node for n in other]
    assert [n.sqnr_db for n in one] == pytest.approx([n.sqnr_db for n in other], abs=0.1)


def test_what_no_layer_made_has_a_name_in_every_sentence() -> None:
    """The rounding of the image itself blames no layer: its row has neither module nor node."""
    noise = LayerNoise("", "", "activations", 3.0, 0.9, 0.1, "first")
    assert noise.name == "the input"
    assert replace(noise, node="conv").name == "conv"
    assert replace(noise, node="conv", module="stem.conv").name == "stem.conv"
    (sentence,) = layers_responsible("deployed", [noise])
    assert sentence == "The ladder diverges at 'deployed'; layers behind it, the worst first: the input."


def test_the_fewest_layers_are_responsible() -> None:
    def noise(node: str, cause: Any, share: float) -> LayerNoise:
        return LayerNoise(node, node, cause, 10.0, share, 0.0, node)

    noises = [noise("a", "weights", 0.4), noise("b", "weights", 0.25), noise("c", "activations", 0.2)]
    noises += [noise("c", "weights", 0.1), noise("d", "weights", 0.05)]
    assert [n.node for n in responsible(noises)] == ["a", "c", "b"]
    assert [n.cause for n in responsible(noises)] == ["weights", "activations", "weights"]
    assert [n.node for n in responsible(noises, share=0.5)] == ["a", "c"]
    assert [n.node for n in responsible(noises, most=1)] == ["a"]
    assert responsible(()) == ()


def test_no_image(small_onnx: Path, points: tuple[Point, ...]) -> None:
    with pytest.raises(CompressionError, match="no sample to measure the layers on"):
        attribute(small_onnx, points, iter(()))


def test_images_of_another_size(small_onnx: Path, points: tuple[Point, ...]) -> None:
    with pytest.raises(CompressionError, match=r"does not take image \(1, 16, 16, 3\)"):
        attribute(small_onnx, points, [{"image": np.zeros((1, 16, 16, 3), np.uint8)}])
