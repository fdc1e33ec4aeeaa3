"""How much of the transfer's gain was kept, and whether there was any."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgetl.base.errors import CertifyError
from edgetl.certify import Baseline, certify, score_interval, transfer_gain


def answers(n: int, **right: float) -> tuple[Any, ...]:
    """(baseline, reference, deployed, labels), each right on the first share of the images."""
    labels = np.zeros(n, dtype=np.int64)
    place = np.arange(n)
    made = [(place >= round(right[name] * n)).astype(np.int64) for name in ("baseline", "reference", "deployed")]
    return (*made, labels)


def noisy(n: int, seed: int, **right: float) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    hard = rng.random(n)
    names = ("baseline", "reference", "deployed")
    made = [(hard + 0.05 * rng.normal(size=n) > right[name]).astype(np.int64) for name in names]
    return (*made, np.zeros(n, dtype=np.int64))


def test_the_share_that_was_kept() -> None:
    gain = transfer_gain("probe", *answers(1000, baseline=0.7, reference=0.9, deployed=0.85))
    assert gain.helped == "better"
    assert gain.retained == pytest.approx(0.75)
    assert gain.gap == pytest.approx(-0.2)
    assert gain.baseline_accuracy == 0.7
    assert gain.ci_low is not None
    assert gain.ci_high is not None
    assert 0.65 < gain.ci_low < 0.75 < gain.ci_high < 0.85


def test_the_interval_is_that_of_scipy() -> None:
    arrays = noisy(3000, 1, baseline=0.6, reference=0.8, deployed=0.77)
    gain = transfer_gain("scratch", *arrays)
    b, r, d = (values == arrays[3] for values in arrays[:3])

    def retained(b: Any, r: Any, d: Any, axis: int = -1) -> Any:
        return (d.mean(axis=axis) - b.mean(axis=axis)) / (r.mean(axis=axis) - b.mean(axis=axis))

    theirs = stats.bootstrap(
        (b, r, d), retained, paired=True, vectorized=True, n_resamples=2000, confidence_level=0.9,
        method="percentile", rng=np.random.default_rng(0), batch=200,
    ).confidence_interval  # fmt: skip
    width = theirs.high - theirs.low
    assert (gain.ci_low, gain.ci_high) == pytest.approx((theirs.low, theirs.high), abs=0.12 * width)


def test_the_gap_has_the_paired_score_interval() -> None:
    b, r, d, labels = noisy(4000, 2, baseline=0.7, reference=0.75, deployed=0.75)
    gain = transfer_gain("scratch", b, r, d, labels)
    lost, gained = int(np.sum((b == 0) & (r != 0))), int(np.sum((b != 0) & (r == 0)))
    assert lost + gained > 200
    low, high = score_interval(lost, gained, 4000, 0.05)
    assert (gain.gap, gain.gap_ci_low, gain.gap_ci_high) == ((lost - gained) / 4000, -high, -low)


def test_a_deployed_model_without_any_flip_has_still_an_interval() -> None:
    gain = transfer_gain("probe", *answers(500, baseline=0.7, reference=0.9, deployed=0.9))
    assert gain.retained == 1
    assert gain.ci_low == pytest.approx(1 - 3 / 100, abs=0.005)
    assert gain.ci_high == pytest.approx(1 + 3 / 100, abs=0.005)


@pytest.mark.parametrize(
    ("reference", "helped"), [(0.9, "better"), (0.702, "not shown"), (0.7, "not shown"), (0.5, "worse")]
)
def test_whether_the_transfer_helped(reference: float, helped: str) -> None:
    gain = transfer_gain("scratch", *answers(1000, baseline=0.7, reference=reference, deployed=reference))
    assert gain.helped == helped
    assert (gain.retained is None) == (helped != "better")
    assert (gain.gap_ci_high < 0, gain.gap_ci_low > 0) == (helped == "better", helped == "worse")


@given(
    n=st.integers(1, 400),
    seed=st.integers(0, 99),
    rates=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
@settings(deadline=None, derandomize=True, max_examples=60)
def test_the_interval_holds_the_share_and_the_ratio_only_where_it_means_something(
    n: int, seed: int, rates: tuple[float, float, float]
) -> None:
    arrays = noisy(n, seed, **dict(zip(("baseline", "reference", "deployed"), rates, strict=True)))
    gain = transfer_gain("probe", *arrays)
    assert gain.gap_ci_low <= gain.gap <= gain.gap_ci_high
    if gain.helped == "better":
        assert gain.retained is not None
        assert gain.ci_low is None or gain.ci_low <= gain.retained
        assert gain.ci_high is None or gain.ci_high >= gain.retained
        assert gain.retained * -gain.gap == pytest.approx(np.mean(arrays[2] == 0) - gain.baseline_accuracy, abs=1e-9)
    else:
        assert (gain.retained, gain.ci_low, gain.ci_high) == (None, None, None)


# --- in the certificate


def certified(**right: float) -> Any:
    baseline, reference, deployed, labels = answers(1000, **right)
    return certify(reference, deployed, labels, ("good", "bad"), baseline=Baseline("scratch", baseline))


def test_the_certificate_has_the_gain() -> None:
    certificate = certified(baseline=0.7, reference=0.9, deployed=0.9)
    assert certificate.transfer_gain_retained == 1
    assert certificate.transfer_gain.kind == "scratch"
    assert certificate.transfer_gain.helped == "better"
    assert not any("baseline" in note for note in certificate.notes)
    assert certificate.findings == ()


def test_a_transfer_that_did_harm_is_a_finding() -> None:
    certificate = certified(baseline=0.9, reference=0.8, deployed=0.8)
    assert certificate.verdict == "pass"
    assert certificate.transfer_gain_retained is None
    assert [finding.kind for finding in certificate.findings] == ["negative-transfer"]
    assert any("the transfer cost 10 points" in note for note in certificate.notes)
    assert any("worse than its baseline" in note and "no meaning" in note for note in certificate.notes)
    assert "the transfer did not help (warning)" in certificate.sentence()


def test_a_transfer_that_is_not_shown_to_have_helped_says_so() -> None:
    certificate = certified(baseline=0.9, reference=0.901, deployed=0.901)
    assert certificate.transfer_gain.helped == "not shown"
    assert certificate.findings == ()
    assert any("not shown to be better than its baseline" in note for note in certificate.notes)


@pytest.mark.parametrize(
    ("predictions", "message"),
    [([0, 1], "different lengths (labels 3, baseline 2)"), ([0, 1, -1], "baseline holds the negative index -1")],
)
def test_baselines_that_do_not_fit(predictions: Any, message: str) -> None:
    with pytest.raises(CertifyError) as caught:
        certify([0, 1, 0], [0, 1, 0], [0, 1, 0], baseline=Baseline("probe", predictions))
    assert message in str(caught.value)
    with pytest.raises(CertifyError, match="baseline 'knn' is unknown: choose one of scratch, probe"):
        Baseline("knn", predictions)
