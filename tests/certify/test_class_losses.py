"""Recall by class, McNemar's exact test and Holm's adjustment, against scipy and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from edgetl.certify import ClassOutcome, class_outcomes, holm, mcnemar_loss


@given(p_values=st.lists(st.floats(0, 1), min_size=1, max_size=40))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    expected = multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(holm(p_values), expected, rtol=1e-12)


def test_holm_of_nothing_is_nothing() -> None:
    assert holm([]).shape == (0,)


@given(lost=st.integers(0, 3000), gained=st.integers(0, 3000))
@settings(deadline=None, derandomize=True)
def test_mcnemar_agrees_with_scipy(lost: int, gained: int) -> None:
    p = float(mcnemar_loss(lost, gained))
    if lost + gained == 0:
        assert p == 1.0
        return
    assert p == pytest.approx(stats.binomtest(lost, lost + gained, alternative="greater").pvalue, rel=1e-7, abs=1e-200)


@pytest.mark.parametrize(("lost", "gained"), [(9, 2), (25, 10), (3, 0), (40, 39)])
def test_mcnemar_is_half_of_the_two_sided_one_of_statsmodels(lost: int, gained: int) -> None:
    two_sided = mcnemar([[50, lost], [gained, 20]], exact=True).pvalue
    assert float(mcnemar_loss(lost, gained)) == pytest.approx(two_sided / 2, rel=1e-9)


def outcomes(seed: int, n: int = 400, damage: float = 0.0) -> tuple[ClassOutcome, ...]:
    """Four classes; a share ``damage`` of class 2 goes wrong in the deployed model, and no image is of class 3."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    reference = np.where(rng.random(n) < 0.9, labels, 3)
    deployed = np.where(rng.random(n) < 0.97, reference, labels)
    deployed = np.where((labels == 2) & (rng.random(n) < damage), 0, deployed)
    return class_outcomes(reference, deployed, labels, ("a", "b", "c", "unseen"))


def test_recalls_counts_and_adjustment() -> None:
    found = outcomes(0, damage=0.2)
    assert [c.name for c in found] == ["a", "b", "c", "unseen"]
    assert sum(c.n for c in found) == 400
    for c in found[:3]:
        assert c.difference == pytest.approx(c.deployed_recall - c.reference_recall, abs=1e-12)
        assert c.difference == (c.gained - c.lost) / c.n
    p_values = [c.p_value for c in found[:3]]
    np.testing.assert_allclose([c.adjusted_p for c in found[:3]], multipletests(p_values, method="holm")[1])
    assert found[2].collapsed(0.01, 0.05)
    assert not found[0].collapsed(0.01, 0.05)


def test_a_class_without_images_has_no_recall_and_takes_no_part_in_the_adjustment() -> None:
    unseen = outcomes(0)[3]
    assert (unseen.n, unseen.reference_recall, unseen.deployed_recall, unseen.difference) == (0, None, None, None)
    assert (unseen.p_value, unseen.adjusted_p) == (1.0, 1.0)
    assert not unseen.collapsed(0.0, 0.49)


def test_a_significant_loss_within_the_margin_is_not_a_collapse() -> None:
    labels = np.zeros(50_000, dtype=np.int64)
    deployed = (np.arange(50_000) < 100).astype(np.int64)
    (only, _) = class_outcomes(labels, deployed, labels, ("a", "b"))
    assert only.adjusted_p < 1e-20
    assert not only.collapsed(0.01, 0.05)
    assert only.collapsed(0.002, 0.05)


def test_false_alarms_over_many_classes_stay_within_alpha() -> None:
    """20 classes of 40 images with 10 % flips in either direction and no true loss."""
    rng, alarms, trials, classes = np.random.default_rng(5), 0, 2000, 20
    for _ in range(trials):
        flips = rng.multinomial(40, [0.05, 0.05, 0.9], classes)
        alarms += bool(np.any(holm(mcnemar_loss(flips[:, 0], flips[:, 1])) < 0.05))
    assert alarms / trials <= 0.05
