"""The self-test on the device: numbers, the words for them, and how a file becomes the network's input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from PIL import Image

from edgetl.core.bundle import Artifact, Bundle
from edgetl.inputs import Input, Preprocess
from edgetl.runtime import selftest
from edgetl.runtime.predict import task_of
from edgetl.runtime.selftest import golden
from edgetl.workflow.golden_vectors import _probe

MakeBundle = Callable[..., Bundle]
NAMES = ("ash", "birch", "cedar", "fir")


def vectors(bundle: Bundle, definition: Input = tiny.PREPROCESS, **more: Any) -> dict[str, Any]:
    """Golden vectors as export writes them."""
    images = tiny.pictures(4, seed=9)
    named = (task_of(bundle), bundle.labels)
    return {**golden(named, {"image": images}, {"logits": tiny.expected(images)}, _probe(definition)), **more}


def sealed(bundle: Bundle, held: dict[str, Any], **options: Any) -> Bundle:
    artifact = Artifact("onnxruntime", bundle.path / "model" / "model.onnx", "fp32")
    return tiny.seal(bundle.path, artifact, vectors=held, **options)


def test_it_passes_where_all_is_as_it_was(float_bundle: MakeBundle) -> None:
    bundle = float_bundle()
    outcome = selftest(sealed(bundle, vectors(bundle)))
    assert outcome.problems == ()
    assert outcome.passed
    assert (outcome.agreement, outcome.n) == (1.0, 4)
    assert outcome.input_difference == 0


def test_bundles_without_answers_and_probe_are_tested_by_numbers_alone(float_bundle: MakeBundle) -> None:
    outcome = selftest(float_bundle())
    assert (outcome.passed, outcome.agreement, outcome.input_difference) == (True, None, None)


def test_labels_in_another_order_fail(float_bundle: MakeBundle) -> None:
    bundle = float_bundle()
    outcome = selftest(sealed(bundle, vectors(bundle), names=NAMES[::-1]))
    assert not outcome.passed
    assert "have the label that they should have" in outcome.problems[0]
    assert outcome.agreement is not None
    assert outcome.agreement < 1


@pytest.mark.parametrize("names", [NAMES[:3], (*NAMES, "oak")])
def test_labels_that_do_not_fit_the_network_fail(float_bundle: MakeBundle, names: tuple[str, ...]) -> None:
    bundle = float_bundle()
    outcome = selftest(sealed(bundle, vectors(bundle), names=names))
    assert not outcome.passed
    assert f"{len(names)} labels take logits" in outcome.problems[0]


@pytest.mark.parametrize(
    "changes",
    [
        *({"interpolation": "nearest"}, {"resize": 50}, {"mode": "squash"}, {"channels": "BGR"}),
        *({"interpolation": "bicubic"}, {"resize": 38}),
    ],
    ids=str,
)
def test_another_preprocessing_fails(float_bundle: MakeBundle, changes: dict[str, Any]) -> None:
    bundle = float_bundle()
    held = vectors(bundle, replace(tiny.PREPROCESS, **changes))
    outcome = selftest(sealed(bundle, held))
    assert not outcome.passed
    assert any("becomes another input here" in problem for problem in outcome.problems), outcome


def test_a_decoder_that_rounds_otherwise_passes(float_bundle: MakeBundle) -> None:
    bundle = float_bundle()
    held = vectors(bundle)
    noise = np.random.default_rng(0).integers(-1, 2, held["probe.image"].shape)
    held["probe.image"] = np.clip(held["probe.image"].astype(int) + noise, 0, 255).astype(np.uint8)
    outcome = selftest(sealed(bundle, held))
    assert outcome.passed, outcome.problems
    assert outcome.input_difference is not None
    assert 0 < outcome.input_difference < 0.006


@pytest.mark.parametrize(
    "more",
    [{"probe": np.zeros(40, np.uint8)}, {"probe_suffix": np.array("/../../x.jpg")}],
    ids=["damaged", "elsewhere"],
)
def test_a_probe_that_means_harm(float_bundle: MakeBundle, more: dict[str, Any]) -> None:
    bundle = float_bundle()
    outcome = selftest(sealed(bundle, vectors(bundle, **more)))
    assert outcome.passed is ("probe" not in more)


def test_an_unclear_answer_is_not_counted(float_bundle: MakeBundle) -> None:
    """Other instruction sets round otherwise, and turn answers that were hardly ones."""
    bundle = float_bundle()
    images = tiny.pictures(4, seed=9)
    outputs = tiny.expected(images)
    outputs[:] = outputs.mean() + np.array([[0.0, 1e-3, 0, 0]]) + np.array([[1.0], [0], [0], [0]])
    held = {**vectors(bundle), "out.logits": outputs, "answers": np.array(["fir"] * 4)}
    assert selftest(sealed(bundle, held)).agreement is None


@pytest.mark.parametrize("make", [tiny.text_bundle, tiny.tensor_bundle], ids=["text", "tensor"])
def test_texts_and_arrays_have_probes_too(tmp_path: Path, make: Callable[[Path], Bundle]) -> None:
    if make is tiny.text_bundle:
        pytest.importorskip("tokenizers", reason="tokenizers (edgetl[text]) cuts texts into tokens")
    from edgetl.inputs import input_of
    from edgetl.runtime.selftest import read_golden

    bundle = make(tmp_path / "bundle")
    known = read_golden(bundle)
    feeds = {name: np.concatenate([sample[name] for sample in known.feeds]) for name in known.feeds[0]}
    held = golden((task_of(bundle), bundle.labels), feeds, known.outputs, _probe(input_of(bundle)))
    options = {"definition": input_of(bundle), "task": bundle.manifest.task, "names": bundle.labels}
    outcome = selftest(sealed(bundle, held, **options))
    assert outcome.passed, outcome.problems
    assert outcome.input_difference == 0
    held["probe"] = np.frombuffer(held["probe"].tobytes().replace(b"The quick", b"good very"), np.uint8)
    if make is tiny.text_bundle:
        assert not selftest(sealed(bundle, held, **options)).passed


def test_the_probe_is_a_picture_of_nobodys(float_bundle: MakeBundle, tmp_path: Path) -> None:
    made = _probe(Preprocess(32, 24, 36, "bicubic", (0.5,) * 3, (0.5,) * 3))
    assert made is not None
    (tmp_path / "probe.jpg").write_bytes(made[1])
    with Image.open(tmp_path / "probe.jpg") as picture:
        assert (picture.size, dict(picture.getexif())) == ((207, 153), {})
    assert len(made[1]) < 40_000
