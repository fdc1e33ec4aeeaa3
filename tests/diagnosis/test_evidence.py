"""The single pieces of evidence: any change of the prefix, any order of columns, records, and what is no fault."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgetl.base.errors import CompressionError
from edgetl.compress.export import export_onnx
from edgetl.core.bundle import Bundle
from edgetl.diagnosis import Observations, diagnose
from edgetl.diagnosis.answers import audit_answers, damaged_column, permutation
from edgetl.diagnosis.hypotheses import hypotheses
from edgetl.diagnosis.prefix import explain, judge, probe
from edgetl.diagnosis.records import preprocessing
from edgetl.inputs.image import CHANNELS, INTERPOLATIONS, MODES, Preprocess
from tests.compress.models import small_model
from tests.diagnosis import faults
from tests.diagnosis.conftest import PREPARED
from tests.diagnosis.healthy import observed

RIGHT = Preprocess(12, 12, 14, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
triples = st.tuples(*[st.floats(0.05, 0.95)] * 3)


@given(st.sampled_from(list(itertools.permutations(range(3)))), triples, triples)
@settings(max_examples=60, deadline=None)
def test_any_order_and_normalisation_is_read_back(
    channels: tuple[int, int, int], mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    image = probe(RIGHT)
    planes = (image[..., list(channels)] / 255 - np.array(mean)) / np.array(std)
    told = explain(planes.transpose(2, 0, 1), image)
    assert told is not None
    assert (told.channels, told.layout) == (channels, "")
    np.testing.assert_allclose([told.mean, told.std], [mean, std], atol=1e-6)


@given(triples, triples)
@settings(max_examples=60, deadline=None)
def test_another_normalisation_is_named_and_the_right_one_is_not(
    mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    image = probe(RIGHT)
    planes = ((image / 255 - np.array(mean)) / np.array(std)).transpose(2, 0, 1)
    assert list(judge(planes, image, replace(RIGHT, mean=mean, std=std), "the graph")) == []
    kinds = [finding.kind for finding in judge(planes, image, RIGHT, "the graph")]
    away = np.abs(np.array([mean, std]) - np.array([RIGHT.mean, RIGHT.std])).max()
    assert kinds == ["normalisation"] or (away < 0.01 and kinds == [])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_every_definition_has_mistakes_that_differ_from_it(mode: str, channels: str, tmp_path: Path) -> None:
    """Each gives an image of the network's shape, and another one than the right definition does."""
    count, resize = CHANNELS[channels], {"shorter": 14, "squash": 13}.get(mode, 12)
    right = Preprocess(12, 12, resize, "bicubic", RIGHT.mean[:count], RIGHT.std[:count], mode, channels, (9, 90, 200))
    picture = np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    kinds = set()
    for hypothesis in hypotheses(right):
        made = hypothesis.prepare(tmp_path / "a.png")
        assert made.shape == (12, 12, count)
        kinds |= {hypothesis.kind} if (made != right.apply(tmp_path / "a.png")).any() else set()
    assert {"interpolation", "preprocessing" if mode != "shorter" else "interpolation"} <= kinds
    assert ("channel-order" in kinds) is (count == 3)


@pytest.mark.parametrize("channels", CHANNELS)
def test_the_graph_of_any_channels_is_judged(channels: str) -> None:
    count = CHANNELS[channels]
    right = replace(RIGHT, channels=channels, mean=RIGHT.mean[:count], std=RIGHT.std[:count])
    image = probe(right)
    planes = ((image / 255 - np.array(right.mean)) / np.array(right.std)).transpose(2, 0, 1)
    assert list(judge(planes, image, right, "the graph")) == []
    (found,) = judge(planes * 1.1, image, right, "the graph")
    assert found.kind == ("normalisation" if count == 3 else "preprocessing")
    if count == 3:
        turned = [f for f in judge(planes[::-1], image, right, "the graph") if f.kind == "channel-order"]
        assert f"as {channels[::-1]} instead of {channels}" in turned[0].what


@pytest.mark.parametrize("before", [True, False], ids=["before-normalising", "after-normalising"])
def test_a_swap_is_one_fault_on_either_side_of_the_normalisation(before: bool) -> None:
    image = probe(RIGHT)
    mean, std = np.array(RIGHT.mean), np.array(RIGHT.std)
    planes = (image[..., ::-1] / 255 - mean) / std if before else ((image / 255 - mean) / std)[..., ::-1]
    kinds = [finding.kind for finding in judge(planes.transpose(2, 0, 1), image, RIGHT, "the graph")]
    assert kinds == ["channel-order"]


@given(st.integers(3, 12), st.data())
@settings(max_examples=60, deadline=None)
def test_any_permutation_of_noisy_logits_is_read_back(classes: int, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(classes)))
    draw = np.random.default_rng(data.draw(st.integers(0, 99)))
    reference = draw.normal(size=(60, classes))
    found = reference[:, order] + draw.normal(scale=0.15, size=(60, classes))
    assert permutation(reference, found) == (None if order == sorted(order) else order)


@given(st.integers(3, 12), st.integers(0, 99), st.floats(0, 0.5))
@settings(max_examples=60, deadline=None)
def test_noise_in_all_classes_is_neither_a_permutation_nor_a_damaged_class(
    classes: int, seed: int, scale: float
) -> None:
    draw = np.random.default_rng(seed)
    reference = draw.normal(size=(60, classes))
    found = reference + draw.normal(scale=scale, size=(60, classes))
    assert permutation(reference, found) is None
    assert damaged_column(reference, found) is None


def test_unrelated_logits_are_no_permutation() -> None:
    draw = np.random.default_rng(0)
    assert permutation(draw.normal(size=(80, 30)), draw.normal(size=(80, 30))) is None


def test_a_fault_of_the_float_rung_is_told_of_it_alone() -> None:
    draw = np.random.default_rng(0)
    reference = draw.normal(size=(50, 5)).astype(np.float32)
    turned = np.roll(reference, 1, axis=1)
    logits = {"reference": reference, "float ONNX": turned, "deployed": turned}
    seen = Observations([Path("x")] * 50, np.zeros(50, np.int64), logits, False)
    (finding,) = audit_answers(seen, list("abcde"))
    assert (finding.kind, finding.evidence["rung"]) == ("label-order", "float ONNX")


@given(st.integers(8, 64), st.integers(0, 40), st.sampled_from(INTERPOLATIONS), triples)
@settings(max_examples=60, deadline=None)
def test_every_difference_of_preprocessing_is_named(
    side: int, more: int, interpolation: str, mean: tuple[float, float, float]
) -> None:
    other = Preprocess(side, side, side + more, interpolation, mean, RIGHT.std)
    kinds = {finding.kind for finding in preprocessing(RIGHT, other)}
    expected = {
        "interpolation": interpolation != RIGHT.interpolation,
        "preprocessing": side != RIGHT.height,
        "crop-ratio": side == RIGHT.height and other.resize != RIGHT.resize,
        "normalisation": mean != RIGHT.mean,
    }
    assert kinds == {kind for kind, differs in expected.items() if differs}


def test_what_needs_images_is_left_out_without_them(bundles: Callable[..., Bundle], tmp_path: Path) -> None:
    healthy = bundles("x86-generic")
    noisy = faults.of_noise(healthy, tmp_path / "noisy")
    seen = observed(noisy, healthy)
    gone = [tmp_path / "nowhere" / path.name for path in seen.paths]
    assert diagnose(noisy, replace(seen, paths=gone), root=None) == ()


@pytest.mark.parametrize("changes", [{"estimator": "percentile", "percentile": 99.9}, {"estimator": "entropy"}])
def test_estimators_that_cut_are_no_fault(
    bundles: Callable[..., Bundle], tmp_path: Path, changes: dict[str, object]
) -> None:
    healthy = bundles("x86-generic")
    folder = faults.copied(healthy, tmp_path / "other")
    faults.quantized_again(healthy, folder, faults.calibration_images(healthy), **changes)
    record = faults.quantization_of(healthy)
    recipe = {**(record.recipe or {}), **changes}
    other = faults.sealed(healthy, folder, quantization=replace(record, recipe=recipe))
    assert diagnose(other, observed(other, healthy), root=healthy.dataset.root) == ()


def test_answers_from_another_machine_are_no_fault(bundles: Callable[..., Bundle]) -> None:
    """Other instruction sets round integers differently: 1 to 2 % of the range, in no direction."""
    healthy = bundles("x86-generic")
    seen = observed(healthy, healthy)
    deployed = seen.logits["deployed"]
    noise = np.random.default_rng(0).normal(scale=0.02 * np.ptp(deployed), size=deployed.shape).astype(np.float32)
    elsewhere = replace(seen, logits={**seen.logits, "deployed": deployed + noise}, simulated=None)
    assert diagnose(healthy, elsewhere, root=healthy.dataset.root) == ()


def test_one_module_in_training_mode_is_refused_by_name(tmp_path: Path) -> None:
    model = small_model()
    model.body[1].train()
    with pytest.raises(CompressionError, match=r"body\.1 in the model is in training mode"):
        export_onnx(model, PREPARED, tmp_path / "model.onnx")
    assert isinstance(model.body[1], torch.nn.BatchNorm2d)
