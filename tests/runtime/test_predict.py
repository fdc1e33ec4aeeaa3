"""From image files to logits, and the self-test of a bundle."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from edgetl.base.errors import BackendError, BundleError, DataError
from edgetl.core.bundle import Bundle
from edgetl.runtime import predict, selftest

MakeBundle = Callable[..., Bundle]


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_predict_is_preprocessing_then_network(
    float_bundle: MakeBundle, image_files: list[Path], batch: int | None
) -> None:
    logits = predict(float_bundle(batch), image_files, threads=2)["logits"]
    images = np.stack([tiny.PREPROCESS.apply(file) for file in image_files])
    wanted = tiny.expected(images)
    assert logits.shape == (6, tiny.CLASSES)
    assert logits.dtype == np.float32
    assert np.abs(logits - wanted).max() <= 1e-4 * np.ptp(wanted)
    assert len(np.unique(logits[:, 0])) == 6, "each file has its own answer"


def test_predict_takes_the_role_asked_for(int8_bundle: MakeBundle, image_files: list[Path]) -> None:
    bundle = int8_bundle()
    images = np.stack([tiny.PREPROCESS.apply(file) for file in image_files])
    floats, deployed = (predict(bundle, image_files, role=role)["logits"] for role in ("float", "deployed"))
    assert np.abs(floats - tiny.expected(images)).max() <= 1e-4 * np.ptp(floats)
    assert np.abs(deployed - floats).max() > 1e-3 * np.ptp(floats), "the deployed artifact is the quantized one"
    assert np.abs(deployed - floats).max() < 0.1 * np.ptp(floats)
    simulated = predict(bundle, image_files, simulated=True)["logits"]
    assert np.abs(simulated - deployed).max() < 0.1 * np.ptp(floats)


def test_predict_of_nothing_is_empty(float_bundle: MakeBundle) -> None:
    assert predict(float_bundle(), [])["logits"].shape == (0, tiny.CLASSES)


def test_predict_reports_each_image(float_bundle: MakeBundle, image_files: list[Path]) -> None:
    told: list[tuple[int, int]] = []
    predict(float_bundle(), image_files, progress=lambda task, done, total, detail="": told.append((done, total)))
    assert told == [(done, 6) for done in range(7)]


def test_a_bad_image_is_named(float_bundle: MakeBundle, image_files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg"):
        predict(float_bundle(), [*image_files, tmp_path / "gone.jpg"])
    image_files[2].write_bytes(b"no image")
    with pytest.raises(DataError, match="is not an image") as caught:
        predict(float_bundle(seed=1), image_files)
    assert image_files[2].name in str(caught.value)


def test_a_role_that_is_not_there(float_bundle: MakeBundle, image_files: list[Path]) -> None:
    with pytest.raises(BundleError, match="no float artifact"):
        predict(float_bundle(), image_files, role="float")


def test_memory_does_not_grow_with_the_number_of_images(float_bundle: MakeBundle, image_files: list[Path]) -> None:
    bundle = float_bundle()
    predict(bundle, image_files)

    def peak(n: int) -> int:
        tracemalloc.start()
        predict(bundle, [image_files[i % 6] for i in range(n)], threads=1)
        _, high = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return high

    one_image = tiny.HEIGHT * tiny.WIDTH * 3
    assert peak(500) - peak(50) < 450 * one_image / 4


def test_selftest_passes_on_the_golden_logits(float_bundle: MakeBundle, int8_bundle: MakeBundle) -> None:
    outcome = selftest(float_bundle(), threads=1)
    assert outcome.passed is True
    assert outcome.max_difference < 1e-4
    assert outcome.n == 4
    assert selftest(float_bundle(batch=3)).passed is True


@pytest.mark.parametrize("change", ["shuffled", "shifted", "another network's"])
def test_selftest_fails_on_other_logits(float_bundle: MakeBundle, change: str) -> None:
    images = tiny.pictures(4, seed=9)
    right = tiny.expected(images)
    wrong = {
        "shuffled": right[:, ::-1],
        "shifted": right + 0.2 * np.ptp(right),
        "another network's": tiny.expected(images, seed=1),
    }[change]
    outcome = selftest(float_bundle(golden=(images, wrong)))
    assert outcome.passed is False
    assert outcome.max_difference > outcome.tolerance


def test_selftest_fails_on_another_model(float_bundle: MakeBundle) -> None:
    images = tiny.pictures(4, seed=9)
    assert selftest(float_bundle(seed=1, golden=(images, tiny.expected(images)))).passed is False


def test_selftest_needs_golden_vectors(float_bundle: MakeBundle) -> None:
    bundle = float_bundle()
    (bundle.path / "golden.npz").unlink()
    with pytest.raises(BundleError, match="no golden vectors"):
        selftest(bundle)


def test_predict_on_a_machine_without_the_runtime(int8_bundle: MakeBundle, image_files: list[Path]) -> None:
    bundle = int8_bundle()
    entry = replace(bundle.manifest.artifacts["deployed"], backend="abacus")
    other = Bundle(bundle.path, replace(bundle.manifest, artifacts={"deployed": entry}))
    with pytest.raises(BackendError, match="abacus"):
        predict(other, image_files)
