"""What compression did to the probabilities, against scipy and scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from scipy.special import rel_entr, softmax
from sklearn import metrics

from edgetl.base.errors import CertifyError
from edgetl.certify import (
    LogitEvidence,
    Step,
    expected_calibration_error,
    logit_evidence,
    probability_shift,
    threshold_shift,
)

Floats = npt.NDArray[np.float64]
ORDER = ("reference", "deployed")


def models(n: int = 700, classes: int = 6, noise: float = 0.5, seed: int = 0) -> tuple[Floats, Floats, Any]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    reference = rng.normal(size=(n, classes))
    reference[np.arange(n), labels] += 2
    return reference, reference + noise * rng.normal(size=(n, classes)), labels


def shift(reference: Any, deployed: Any, labels: Any) -> dict[str, Any]:
    evidence = logit_evidence({"reference": reference, "deployed": deployed}, labels, ORDER)
    assert evidence.per_image is not None
    return probability_shift(evidence.per_image, reference.argmax(axis=1), deployed.argmax(axis=1), labels)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_figures_are_those_of_scipy_and_scikit_learn(dtype: Any) -> None:
    reference, deployed, labels = models()
    reference, deployed = reference.astype(dtype), deployed.astype(dtype)
    found = shift(reference, deployed, labels)
    p, q = (softmax(logits.astype(np.float64), axis=1) for logits in (reference, deployed))
    assert found.kl == pytest.approx(rel_entr(p, q).sum(axis=1).mean(), rel=1e-5)
    assert found.agreement == np.mean(p.argmax(axis=1) == q.argmax(axis=1))
    for name, shares in (("reference", p), ("deployed", q)):
        assert getattr(found, f"{name}_nll") == pytest.approx(metrics.log_loss(labels, shares), rel=1e-5)
        brier = metrics.brier_score_loss(labels, shares, labels=range(6), scale_by_half=False)
        assert getattr(found, f"{name}_brier") == pytest.approx(brier, rel=1e-5)
    assert found.brier_difference == pytest.approx(found.deployed_brier - found.reference_brier, abs=1e-9)
    assert found.brier_ci_low < found.brier_difference < found.brier_ci_high


def test_the_brier_interval_is_that_of_a_paired_mean() -> None:
    reference, deployed, labels = models(2000)
    found = shift(reference, deployed, labels)
    evidence = logit_evidence({"reference": reference, "deployed": deployed}, labels, ORDER)
    assert evidence.per_image is not None
    change = evidence.per_image[:, 5] - evidence.per_image[:, 4]
    half = 1.645 * change.std(ddof=1) / np.sqrt(2000)
    expected = (change.mean() - half, change.mean() + half)
    assert (found.brier_ci_low, found.brier_ci_high) == pytest.approx(expected, abs=0.15 * half)


def test_equal_models_have_no_shift() -> None:
    reference, _, labels = models()
    found = shift(reference, reference, labels)
    assert (found.kl, found.agreement, found.brier_difference) == (0, 1, 0)
    assert found.threshold.shift == 0
    assert found.threshold.deployed_kept == pytest.approx(0.9, abs=0.002)


logits = arrays_of.arrays(np.float64, (7, 4), elements=st.floats(-1e5, 1e5, width=32))


@given(reference=logits, deployed=logits, up=st.floats(-100, 100))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_any_logits_give_finite_figures_that_ignore_an_offset(reference: Floats, deployed: Floats, up: float) -> None:
    labels = np.arange(7) % 4
    evidence = logit_evidence({"reference": reference, "deployed": deployed}, labels, ORDER)
    moved = logit_evidence({"reference": reference, "deployed": deployed + up}, labels, ORDER)
    assert evidence.per_image is not None
    assert moved.per_image is not None
    assert np.isfinite(evidence.per_image).all()
    assert evidence.per_image[:, 6].min() >= 0
    np.testing.assert_allclose(evidence.per_image, moved.per_image, rtol=1e-4, atol=1e-4)


def test_infinite_logits_still_give_finite_figures() -> None:
    broken = np.array([[np.inf, 0.0], [-np.inf, 1.0]])
    evidence = logit_evidence({"reference": broken, "deployed": -broken}, np.array([1, 0]), ORDER)
    assert evidence.per_image is not None
    assert np.isfinite(evidence.per_image).all()


def test_many_classes_are_read_in_blocks_with_the_same_result() -> None:
    reference, deployed, labels = models(1500, 1000)
    whole = logit_evidence({"reference": reference, "deployed": deployed}, labels, ORDER).per_image
    halves = [
        logit_evidence({"reference": reference[part], "deployed": deployed[part]}, labels[part], ORDER).per_image
        for part in (slice(0, 333), slice(333, None))
    ]
    assert whole is not None
    np.testing.assert_allclose(whole, np.concatenate([half for half in halves if half is not None]), rtol=1e-6)


# --- calibration and thresholds


def test_calibration_error_of_a_case_worked_by_hand() -> None:
    """Two bins: (0.6, 0.6667] with confidences 0.61 and 0.65, one right; (0.9333, 1] with 0.95, 1.0, both right."""
    confidence, right = np.array([0.61, 0.65, 0.95, 1.0]), np.array([True, False, True, True])
    expected = 0.5 * abs(0.5 - 0.63) + 0.5 * abs(1 - 0.975)
    assert expected_calibration_error(confidence, right) == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
@settings(deadline=None, derandomize=True)
def test_calibration_error_bin_by_bin(rows: list[tuple[float, bool]]) -> None:
    confidence, right = np.array([c for c, _ in rows]), np.array([r for _, r in rows])
    total = 0.0
    for i in range(15):
        inside = (confidence * 15 > i) & (confidence * 15 <= i + 1)
        if i == 0:
            inside |= confidence == 0
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(confidence, right) == pytest.approx(total, abs=1e-12)


def test_a_model_that_lost_confidence_keeps_fewer_images_at_the_old_threshold() -> None:
    reference = np.linspace(0.5, 1, 100)
    deployed = reference - 0.05
    right = np.arange(100) >= 20
    found = threshold_shift(reference, deployed, right, right)
    assert found.reference == reference[10]
    assert found.shift == pytest.approx(-0.05)
    assert found.deployed_kept == pytest.approx(0.8, abs=0.011)
    assert found.reference_accuracy == pytest.approx(80 / 90)
    assert found.deployed_accuracy == pytest.approx(1, abs=0.02)


def test_a_model_that_keeps_nothing_has_no_accuracy_there() -> None:
    found = threshold_shift(np.full(5, 0.9), np.full(5, 0.3), np.ones(5, bool), np.ones(5, bool))
    assert (found.deployed_kept, found.deployed_accuracy) == (0, None)


# --- the ladder's distances


def test_logit_distance_of_a_case_worked_by_hand() -> None:
    above = np.array([[3.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    below = np.array([[10.0, 7.0, 7.0], [1.0, 1.0, 4.0]])
    step = logit_evidence({"reference": above, "deployed": below}, np.array([0, 1]), ORDER).steps["deployed"]
    # The first image only moved by an offset; the second had no direction before.
    assert step.logit_distance == pytest.approx(0.5)
    assert step.kl == pytest.approx(rel_entr(softmax(above, axis=1), softmax(below, axis=1)).sum(axis=1).mean())


def test_steps_need_logits_on_both_sides() -> None:
    reference, deployed, labels = models()
    order = ("reference", "float", "int8", "deployed")
    given_ = {"reference": reference, "float": reference, "deployed": deployed}
    evidence = logit_evidence(given_, labels, order)
    assert list(evidence.steps) == ["float"]
    assert evidence.steps["float"] == Step(0.0, 0.0)
    assert logit_evidence({"float": reference}, labels, order).per_image is None
    assert logit_evidence({}, labels, order).steps == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rung": np.zeros((3, 2))}, "logits are given for 'rung', which is no rung"),
        ({"deployed": np.zeros((3, 4))}, "different shapes"),
        ({"deployed": np.zeros((2, 2))}, "give floats (3 samples, classes)"),
        ({"deployed": np.zeros(3)}, "give floats (3 samples, classes)"),
        ({"deployed": np.full((3, 2), "a")}, "give floats (3 samples, classes)"),
        ({"deployed": np.full((3, 2), np.nan)}, "the logits of deployed contain NaN"),
    ],
)
def test_logits_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CertifyError) as caught:
        logit_evidence({"reference": np.zeros((3, 2)), **changes}, np.array([0, 1, 0]), ORDER)
    assert message in str(caught.value)
    with pytest.raises(CertifyError, match="label 2 has no column"):
        logit_evidence({"reference": np.zeros((1, 2))}, np.array([2]), ORDER)


@pytest.mark.parametrize(
    "values",
    [
        {"per_image": np.zeros((3, 6), np.float32)},
        {"per_image": np.full((3, 7), np.nan, np.float32)},
        {"steps": {"deployed": Step(float("inf"), 0.0)}},
    ],
)
def test_what_cannot_have_been_kept_of_logits(values: dict[str, Any]) -> None:
    with pytest.raises(CertifyError):
        LogitEvidence(**values)
