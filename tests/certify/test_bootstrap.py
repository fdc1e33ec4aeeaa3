"""The paired bootstrap: against scipy, its verdicts, and what it does where it knows little."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from edgetl.base.errors import CertifyError, UnknownNameError
from edgetl.certify import certify_scores, noninferiority
from edgetl.certify.bootstrap import resampled_sums
from edgetl.certify.paired import PairedCounts
from tests.certify.tested import balanced_accuracy_test, score_test

Floats = npt.NDArray[np.float64]
SCORES = {
    "mae": metrics.mean_absolute_error,
    "rmse": metrics.root_mean_squared_error,
    "r2": metrics.r2_score,
}


def classified(n: int, classes: int = 5, lost: float = 0.03, gained: float = 0.03, seed: int = 0) -> tuple[Any, ...]:
    """(reference, deployed, labels) with classes of unequal size."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=np.arange(1, classes + 1) / (classes * (classes + 1) / 2))
    other, u = (labels + 1) % classes, rng.random(n)
    return np.where(u > 1 - gained, other, labels), np.where(u < lost, other, labels), labels


@functools.cache
def measured(n: int, seed: int = 0, worse: float = 0.05) -> tuple[Floats, Floats, Floats]:
    """(reference, deployed, labels) of a regression."""
    rng = np.random.default_rng(seed)
    labels = rng.normal(3, 1, n)
    reference = labels + 0.2 * rng.normal(size=n)
    return reference, reference + worse * rng.normal(size=n), labels


# --- balanced accuracy


@given(n=st.integers(1, 300), classes=st.integers(2, 6), seed=st.integers(0, 1000))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_balanced_scores_are_those_of_scikit_learn(n: int, classes: int, seed: int) -> None:
    reference, deployed, labels = classified(n, classes, 0.2, 0.1, seed)
    test = balanced_accuracy_test(reference, deployed, labels)
    with np.testing.suppress_warnings() as quiet:
        quiet.filter(UserWarning)
        before, after = (metrics.balanced_accuracy_score(labels, x) for x in (reference, deployed))
    assert (test.reference_score, test.deployed_score) == pytest.approx((before, after))
    assert test.difference == pytest.approx(after - before, abs=1e-12)
    assert test.ci_low <= test.difference <= test.ci_high


def test_balanced_interval_is_that_of_scipy_within_classes() -> None:
    """With many flips in every class the unseen image hardly counts, and both are the same bootstrap."""
    reference, deployed, labels = classified(6000)
    test = balanced_accuracy_test(reference, deployed, labels)
    changes = tuple((deployed == c).astype(int)[labels == c] - (reference == c)[labels == c] for c in range(5))

    def mean_change(*samples: Any, axis: int = -1) -> Any:
        return sum(sample.mean(axis=axis) for sample in samples) / 5

    theirs = stats.bootstrap(
        changes, mean_change, n_resamples=2000, confidence_level=0.9, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    width = theirs.high - theirs.low
    assert (test.ci_low, test.ci_high) == pytest.approx((theirs.low, theirs.high), abs=0.1 * width)
    assert test.ci_high - test.ci_low > 0.97 * width


def test_without_flips_the_rule_of_three_holds_for_the_smallest_class() -> None:
    labels = np.repeat([0, 1, 2], [400, 50, 900])
    test = balanced_accuracy_test(labels, labels, labels)
    assert test.ci_low == pytest.approx(math.log(0.05) / 50 / 3, rel=0.01)
    assert test.ci_high == -test.ci_low
    assert test.verdict == "underpowered"
    assert test.n_needed is not None
    assert test.n_needed > len(labels)


@pytest.mark.parametrize("n", [50, 100, 270])
def test_what_is_needed_without_flips_is_told_from_few_images(n: int) -> None:
    labels = np.arange(n) % 10
    needed = balanced_accuracy_test(labels, labels, labels).n_needed
    assert needed == pytest.approx(300, abs=2), "-log(0.05) / 0.01, however many were seen"


def test_equal_classes_without_flips_need_as_many_images_as_accuracy_does() -> None:
    for n, verdict in ((270, "underpowered"), (310, "pass")):
        labels = np.arange(n) % 10
        assert balanced_accuracy_test(labels, labels, labels).verdict == verdict
        assert noninferiority(PairedCounts(n, 0, 0, 0)).verdict == verdict


@pytest.mark.parametrize(
    ("lost", "gained", "verdict"),
    [(0.2, 0.0, "fail"), (0.0, 0.05, "pass"), (0.01, 0.01, "pass"), (0.02, 0.013, "underpowered")],
)
def test_balanced_verdicts(lost: float, gained: float, verdict: str) -> None:
    assert balanced_accuracy_test(*classified(4000, 5, lost, gained)).verdict == verdict


def test_equal_input_gives_equal_bounds_and_other_draws_hardly_other_ones() -> None:
    arrays = classified(2000)
    assert balanced_accuracy_test(*arrays) == balanced_accuracy_test(*arrays)
    assert score_test(*measured(300), "mae", 0.1) == score_test(*measured(300), "mae", 0.1)
    few, many = balanced_accuracy_test(*arrays), balanced_accuracy_test(*arrays, replicates=20_000)
    assert few.ci_low == pytest.approx(many.ci_low, abs=0.1 * (many.ci_high - many.ci_low))


def test_a_class_for_nearly_every_image() -> None:
    labels = np.arange(30_000) % 10_000
    test = balanced_accuracy_test(labels, np.where(labels < 300, 0, labels), labels)
    assert test.difference == pytest.approx(-299 / 10_000)
    assert test.verdict == "fail"


# --- regression


@pytest.mark.parametrize("metric", SCORES)
def test_scores_are_those_of_scikit_learn_and_negative_is_a_loss(metric: str) -> None:
    reference, deployed, labels = measured(400)
    test = score_test(reference, deployed, labels, metric, 0.1)
    before, after = (SCORES[metric](labels, values) for values in (reference, deployed))
    assert (test.reference_score, test.deployed_score) == pytest.approx((before, after))
    assert test.difference == pytest.approx((after - before) if metric == "r2" else (before - after), abs=1e-12)
    assert test.difference < 0


@pytest.mark.parametrize("metric", SCORES)
@pytest.mark.parametrize("n", [1500, 20_000])
def test_intervals_are_those_of_scipy(metric: str, n: int) -> None:
    """With many images, drawn one by one or in groups, the unseen image hardly counts where all changes are alike."""
    rng = np.random.default_rng(2)
    labels = rng.normal(size=n)
    reference = labels + rng.normal(size=n)
    arrays = (reference, reference + 0.8 * rng.normal(size=n), labels)
    error = abs if metric == "mae" else np.square

    def loss(before: Floats, after: Floats, truth: Floats, axis: int = -1) -> Any:
        first, second = (error(values - truth).mean(axis=axis) for values in (before, after))
        if metric == "rmse":
            return np.sqrt(first) - np.sqrt(second)
        return (first - second) / truth.var(axis=axis) if metric == "r2" else first - second

    theirs = stats.bootstrap(
        arrays, loss, paired=True, vectorized=True, n_resamples=600, confidence_level=0.9, method="percentile",
        rng=rng, batch=50,
    ).confidence_interval  # fmt: skip
    ours = score_test(*arrays, metric, 0.1)
    width = theirs.high - theirs.low
    assert (ours.ci_low, ours.ci_high) == pytest.approx((theirs.low, theirs.high), abs=0.2 * width)


@given(n=st.integers(1, 200), k=st.integers(1, 3))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_resampled_sums_have_the_mean_of_the_images(n: int, k: int) -> None:
    moments = np.random.default_rng(n).normal(size=(n, k)) + 1
    sums = resampled_sums(moments, 400, np.random.default_rng(0))
    assert sums.shape == (400, k)
    spread = moments.std(axis=0) * np.sqrt(n)
    assert np.all(np.abs(sums.mean(axis=0) - moments.sum(axis=0) * max(n - 1, 1) / n) <= 6 * spread / 20 + 1e-9)


def test_groups_keep_variance_and_skewness() -> None:
    """Beyond 2,000 images whole groups are drawn; a skewed sum keeps its first three moments."""
    values = (np.random.default_rng(4).random((30_000, 1)) < 0.001) * 1.0
    sums = resampled_sums(values, 20_000, np.random.default_rng(0))[:, 0]
    total = values.sum()
    assert sums.mean() == pytest.approx(total, rel=0.02)
    assert sums.var() == pytest.approx(total, rel=0.08)
    assert stats.skew(sums) == pytest.approx(1 / math.sqrt(total), abs=0.08)


@pytest.mark.parametrize(
    ("metric", "n", "verdict"), [("r2", 150, "underpowered"), ("r2", 330, "pass"), ("mae", 330, "pass")]
)
def test_equal_predictions_pass_once_there_are_enough_images(metric: str, n: int, verdict: str) -> None:
    labels = np.random.default_rng(0).normal(size=n)
    assert score_test(labels, labels, labels, metric, 0.01).verdict == verdict


def test_margins_are_in_the_labels_unit() -> None:
    reference, deployed, labels = measured(2000)
    small, large = (certify_scores(s * reference, s * deployed, s * labels, "mae", s * 0.02) for s in (1.0, 1000.0))
    assert small.verdict == large.verdict == "pass"
    assert large.ci_low == pytest.approx(1000 * small.ci_low)
    assert certify_scores(1000 * reference, 1000 * deployed, 1000 * labels, "mae", 0.02).verdict == "fail"


def test_a_regression_certificate() -> None:
    certificate = certify_scores(*measured(2000), metric="rmse", margin=0.05)
    assert certificate.metric == "rmse"
    assert certificate.reference_accuracy is None
    assert certificate.reference_score == pytest.approx(0.2, abs=0.02)
    assert certificate.ci_low < certificate.difference < certificate.ci_high
    assert certificate.verdict == "pass"
    words = certificate.sentence()
    assert words.startswith("On 2,000 samples held back for certification the rmse of the reference is 0.1992 ")
    assert "With 95 % confidence the loss of root mean square error is smaller than the margin of 0.05." in words
    assert type(certificate).from_json(certificate.to_json()) == certificate


def test_a_regression_that_needs_more_images_says_how_many() -> None:
    certificate = certify_scores(*measured(60), metric="mae", margin=0.02)
    assert certificate.verdict == "underpowered"
    assert certificate.n_needed is not None
    assert certificate.n_needed > 60
    assert f"about {certificate.n_needed:,} would give an 80 % chance to" in certificate.reasons[0]


GOOD = [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"deployed": [1.0, 2.0]}, "different lengths (labels 3, reference 3, deployed 2)"),
        ({"deployed": [1.0, float("nan"), 2.0]}, "deployed holds NaN or infinity"),
        ({"labels": [[1.0], [2.0], [3.0]]}, "labels is float64 of the shape (3, 1)"),
        ({"labels": []}, "labels is float64 of the shape (0,)"),
        ({"reference": ["a", "b", "c"]}, "reference is <U1"),
        ({"reference": [[1.0], [2.0, 3.0], [1.0]]}, "reference is not an array of numbers"),
        ({"labels": [1.0, 1.0, 1.0], "metric": "r2"}, "R² is not defined"),
        ({"margin": -0.1}, "margin -0.1 is not a number from 0 up"),
        ({"margin": "1"}, "margin 1 is not a number from 0 up"),
        ({"margin": float("nan")}, "margin nan is not a number from 0 up"),
        ({"margin": 2, "metric": "r2"}, "margin 2 is not in the range"),
        ({"alpha": 0.6}, "alpha 0.6 is not between"),
    ],
)
def test_scores_that_cannot_be_compared(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CertifyError) as caught:
        certify_scores(**{"reference": GOOD, "deployed": GOOD, "labels": GOOD, **changes})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_metrics_offer_the_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="did you mean mae"):
        certify_scores(GOOD, GOOD, GOOD, metric="mea")
