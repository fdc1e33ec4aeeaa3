"""Training for 8 bits: what it mends, what it leaves alone, and that the rounding it trains for is the deployed one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from edgetl.base.errors import CompressionError
from edgetl.compress.distil import Training, distil, sizes
from edgetl.compress.divergences import DIVERGENCES, of_classes
from edgetl.compress.export import check_parity, export_onnx
from edgetl.compress.recipes import Recipe, load_recipe, with_changes
from edgetl.compress.rounding import Rounded
from edgetl.inputs.image import Preprocess
from edgetl.tasks import TASKS
from edgetl.transfer.model import Deployable
from tests.compress.images import SIZE, pictures
from tests.compress.models import one_thread

PREPROCESS = Preprocess(SIZE, SIZE, SIZE, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
IMAGES, OTHERS = pictures(768, seed=5), torch.from_numpy(pictures(64, seed=77))
PER_TENSOR = with_changes(load_recipe("ort-x86-int8"), per_channel=False)
SHORT = Training(steps=60, learning_rate=1e-3, seed=3)


def tiny(spread: float = 1.0) -> Deployable:
    """timm's test network with batch norms that have seen images and logits of size two.

    The linear bottlenecks' channels are multiplied by seeded factors from 1/spread to spread and divided again by
    the next layer: the same function, and hostile to 8 bits.
    """
    torch.manual_seed(0)
    body = timm.create_model("test_efficientnet", num_classes=10)
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    model, seen = Deployable(body, PREPROCESS), torch.from_numpy(pictures(128, seed=99))
    draw, blocks = torch.Generator().manual_seed(1), body.blocks
    with torch.no_grad(), one_thread():
        model.train()(seen)
        logits = model.eval()(seen)
        body.classifier.weight.mul_(2 / (logits - logits.mean(0)).std())
        body.classifier.bias.copy_(body.classifier.bias - model(seen).mean(0))
        pairs = [(blocks[1][0].bn2, blocks[2][0].conv_exp), (blocks[2][0].bn2, blocks[3][0].conv_pw)]
        pairs += [(blocks[3][0].bn3, blocks[4][0].conv_pw), (blocks[4][0].bn3, body.conv_head)]
        for norm, reader in pairs:
            factors = torch.exp((2 * torch.rand(norm.num_features, generator=draw) - 1) * math.log(spread))
            norm.weight.mul_(factors)
            norm.bias.mul_(factors)
            reader.weight.div_(factors.view(1, -1, 1, 1))
    return model


@pytest.fixture(autouse=True)
def throughout() -> Iterator[None]:
    with one_thread():
        yield


def distance(teacher: nn.Module, student: nn.Module, recipe: Recipe) -> float:
    """Divergence of the rounded student from the float teacher on images that neither training nor ranges saw."""
    rounded = Rounded(student, recipe)
    rounded.observe(torch.from_numpy(IMAGES[:64]))
    with torch.no_grad():
        return float(of_classes(teacher(OTHERS), rounded(OTHERS), 1.0))


@pytest.fixture(scope="module")
def hostile() -> Deployable:
    return tiny(spread=8.0)


@pytest.fixture(scope="module")
def mended(hostile: Deployable) -> Any:
    with one_thread():
        return distil(hostile, PER_TENSOR, {"image": IMAGES}, training=SHORT)


def test_the_rounded_model_comes_closer_to_its_teacher(hostile: Deployable, mended: Any) -> None:
    before, after = distance(hostile, hostile, PER_TENSOR), distance(hostile, mended.model, PER_TENSOR)
    assert before > 0.5
    assert after < 0.8 * before
    record = mended.record
    assert record["loss"]["end"] < record["loss"]["start"] / 1.5
    assert (record["steps"], record["samples"], record["held_out"]) == (60, 768, 64)
    assert record["stopped"] == "steps"
    assert 0 < record["best_step"] <= 60


def test_a_plain_model_with_the_same_names_comes_out(hostile: Deployable, mended: Any, tmp_path: Path) -> None:
    before, after = hostile.state_dict(), mended.model.state_dict()
    assert list(before) == list(after)
    assert type(mended.model) is type(hostile)
    assert not mended.model.training
    for name, value in before.items():
        frozen = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        assert torch.equal(value, after[name]) == frozen, name
    fresh = tiny(spread=8.0).state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in before.items())
    path = export_onnx(mended.model, PREPROCESS, tmp_path / "model.onnx")
    assert check_parity(path, mended.model, {"image": OTHERS[:8].numpy()}).agreement == 1.0


def test_one_seed_one_outcome(hostile: Deployable) -> None:
    def run(seed: int) -> tuple[Any, dict[str, Any]]:
        done = distil(hostile, PER_TENSOR, {"image": IMAGES[:64]}, training=Training(steps=4, batch=8, seed=seed))
        return done.record["loss"], done.model.state_dict()

    (loss, weights), (same, again), (other, _) = run(0), run(0), run(1)
    assert loss == same
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    assert loss != other


def test_batches_from_an_iterable_are_the_same_images(hostile: Deployable) -> None:
    how = Training(steps=2, batch=8)
    whole = distil(hostile, PER_TENSOR, {"image": IMAGES[:40]}, training=how)
    parts = distil(hostile, PER_TENSOR, ({"image": IMAGES[i : i + 7]} for i in range(0, 35, 7)), training=how)
    again = distil(hostile, PER_TENSOR, {"image": IMAGES[:35]}, training=how)
    assert parts.record["loss"] == again.record["loss"]
    assert (parts.record["samples"], whole.record["samples"]) == (35, 40)


@pytest.mark.parametrize(
    ("kind", "name"), [("class", "classification"), ("classes", "multi-label"), ("number", "regression")]
)
def test_each_divergence_is_the_tasks(kind: str, name: str) -> None:
    draw = np.random.default_rng(0)
    teacher = draw.normal(size=(40, 1 if kind == "number" else 5)).astype(np.float32) * 2
    student = teacher + draw.normal(size=teacher.shape).astype(np.float32)
    task = TASKS[name]
    output = task.outputs(("a", "b", "c", "d", "e"))[0].name
    expected = task.divergence({output: teacher}, {output: student}) * (teacher.var() if kind == "number" else 1)
    found = DIVERGENCES[kind](torch.from_numpy(teacher), torch.from_numpy(student), 1.0)
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_values_of_rows_of_a_table_are_distilled() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 1)).eval()
    with torch.no_grad():
        model[0].weight.mul_(torch.exp(torch.randn(32, 1)))
    rows = {"x": np.random.default_rng(0).normal(size=(256, 6)).astype(np.float32)}
    how = Training(steps=40, batch=16, learning_rate=1e-3)
    loss = distil(model, PER_TENSOR, rows, divergence=DIVERGENCES["number"], training=how).record["loss"]
    assert loss["end"] < loss["start"]


def test_time_cuts_the_steps(hostile: Deployable) -> None:
    done = distil(hostile, PER_TENSOR, {"image": IMAGES[:64]}, training=Training(steps=100_000, seconds=0.01, batch=8))
    assert 1 <= done.record["steps"] <= 4
    assert done.record["stopped"] == "seconds"


def test_labels_add_to_the_loss(hostile: Deployable) -> None:
    how = Training(steps=8, labels=0.5)
    truth = torch.arange(200) % 10
    ends = [
        distil(
            hostile, PER_TENSOR, {"image": IMAGES[:200]}, training=how,
            labelled=lambda outputs, rows, of=of: functional.cross_entropy(outputs, of[rows]),
        ).record["loss"]["end"]
        for of in (truth, truth.flip(0))
    ]  # fmt: skip
    assert ends[0] != ends[1]
    with pytest.raises(CompressionError, match="there is no loss to them"):
        distil(hostile, PER_TENSOR, {"image": IMAGES[:40]}, training=how)


def test_training_goes_on_from_other_weights_with_the_same_teacher(hostile: Deployable) -> None:
    first = distil(hostile, PER_TENSOR, {"image": IMAGES[:64]}, training=SHORT)
    again = distil(first.model, PER_TENSOR, {"image": IMAGES[:64]}, teacher=hostile, training=SHORT)
    assert again.record["loss"]["start"] == pytest.approx(first.record["loss"]["end"], rel=1e-6)
    assert again.record["loss"]["end"] <= first.record["loss"]["end"]


def test_what_cannot_be_trained_is_refused_in_one_line(hostile: Deployable) -> None:
    broken = tiny()
    with torch.no_grad():
        broken.backbone.conv_head.weight[0, 0] = float("nan")
    cases: list[tuple[nn.Module, Any, Training, str]] = [
        (hostile, IMAGES[:7], Training(), "8 or more"),
        (hostile, IMAGES[:0], Training(), "8 or more"),
        (hostile, IMAGES[:16], Training(steps=0), "make no sense"),
        (hostile, IMAGES[:16], Training(learning_rate=float("nan")), "make no sense"),
        (tiny().train(), IMAGES[:16], Training(), "training mode"),
        (broken, IMAGES[:16], Training(), "no finite number"),
        (hostile, IMAGES[:16], Training(learning_rate=1e30, steps=8, batch=4), "no finite number|diverged"),
    ]
    for model, images, how, words in cases:
        with pytest.raises(CompressionError, match=words) as caught:
            distil(model, PER_TENSOR, {"image": images}, training=how)
        assert "\n" not in str(caught.value)


def layer(gains: list[float]) -> nn.Module:
    """A convolution and a batch norm with these gains, on uint8 images."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, len(gains), 3, bias=False)
            self.norm = nn.BatchNorm2d(len(gains), eps=0.0)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.norm(self.conv(image.to(torch.float32).permute(0, 3, 1, 2))).mean((2, 3))

    torch.manual_seed(0)
    model = One().eval()
    with torch.no_grad():
        model.norm.weight.copy_(torch.tensor(gains))
    return model


@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_are_rounded_as_they_are_deployed_folded(per_channel: bool) -> None:
    gains = [1.0, -0.01, 30.0, 0.0]
    model = layer(gains)
    recipe = with_changes(load_recipe("ort-x86-int8"), per_channel=per_channel)
    image = torch.from_numpy(pictures(8))
    rounded = Rounded(model, recipe)
    rounded.observe(image)
    folded = model.conv.weight.detach().double().numpy() * np.array(gains).reshape(-1, 1, 1, 1)
    axes = (1, 2, 3) if per_channel else None
    scale = np.abs(folded).max(axis=axes, keepdims=True) / 127
    expected = np.round(folded / np.maximum(scale, 1e-30)) * scale
    # With bytes over 0..255 the input's grid is the integers, so that only the weights are rounded.
    rounded.ranges = [(0.0, 255.0)]
    with torch.no_grad():
        found = rounded(image).numpy()
        plain = nn.functional.conv2d(image.double().permute(0, 3, 1, 2), torch.from_numpy(expected)).mean((2, 3))
    assert np.abs(found - plain.numpy()).max() < 1e-3 * np.abs(plain.numpy()).max()
    # One scale for all leaves nothing of a channel of a three-thousandth of the range.
    assert bool(np.any(found[:, 1])) == per_channel


class Through(nn.Module):
    """Gives back what its one weighted layer reads: image / 128 - shift, of 256 images of one pixel."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = shift
        self.head = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(3))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(image.to(torch.float32) / 128 - self.shift, 1))


@pytest.mark.parametrize(
    ("recipe", "shift", "lowest", "steps"),
    [
        (with_changes(PER_TENSOR, activations="uint8", activations_symmetric=False), 0.5, -0.5, 255),
        (with_changes(PER_TENSOR, activations="int8", activations_symmetric=False), 0.5, -0.5, 255),
        (with_changes(PER_TENSOR, activations="int8", activations_symmetric=True), 0.5, -1.4921875, 254),
        (load_recipe("openvino-int8"), 0.5, -1.4921875, 254),
        (load_recipe("openvino-int8"), 0.0, 0.0, 255),
    ],
)
def test_activations_fall_on_256_values(recipe: Recipe, shift: float, lowest: float, steps: int) -> None:
    rounded = Rounded(Through(shift).eval(), recipe)
    bytes_ = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 1, 3)
    highest = 255 / 128 - shift
    rounded.ranges = [(-shift, highest)]
    with torch.no_grad():
        x, y = Through(shift)(bytes_), rounded(bytes_)
        step = (highest - lowest) / steps
        assert (y - x).abs().max() <= step * 0.51
        assert torch.allclose(y / step, torch.round(y / step), atol=1e-3)
        # What lies outside the range ends at its edge.
        rounded.ranges = [(-shift, highest / 2)]
        assert rounded(bytes_).max() == pytest.approx(highest / 2, abs=step)


def test_excluded_layers_stay_in_float(hostile: Deployable) -> None:
    image = OTHERS[:4]
    names = [name for name, m in hostile.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    everything = with_changes(
        PER_TENSOR, exclude_nodes=tuple(f"{name}/Conv" for name in names), exclude_operators=("Add", "Mul", "Sigmoid")
    )
    free = Rounded(hostile, everything)
    free.observe(image)
    with torch.no_grad():
        assert torch.equal(free(image), hostile(image))
        some = Rounded(hostile, with_changes(PER_TENSOR, exclude_nodes=("backbone.conv_stem/Conv",)))
        some.observe(image)
        full = Rounded(hostile, PER_TENSOR)
        full.observe(image)
        assert len(some.ranges) == len(full.ranges) - 1
        assert not torch.equal(some(image), full(image))


def test_steps_do_not_depend_on_how_channels_are_scaled() -> None:
    even, uneven = sizes(tiny(1.0)), sizes(tiny(32.0))
    plain, rescaled = dict(tiny(1.0).named_parameters()), dict(tiny(32.0).named_parameters())
    assert even.keys() == plain.keys()
    for name in ("backbone.blocks.4.0.bn3.weight", "backbone.blocks.4.0.bn3.bias"):
        ratio = uneven[name] / even[name]
        assert ratio.max() / ratio.min() > 50
        moved = plain[name].abs() > 1e-6
        assert torch.allclose((rescaled[name] / plain[name])[moved], ratio[moved], rtol=1e-3)
