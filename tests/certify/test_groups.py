"""Samples that belong together: what counts is the group."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import edgetl
from edgetl.base.errors import CertifyError
from edgetl.certify import certify, certify_scores, mcnemar_loss, share_draws, sign_flip_loss
from edgetl.certify.bootstrap import bounds
from edgetl.core.certificate import Certificate

ALPHA = 0.05


def burst_answers(rng: np.random.Generator, groups: int, size: int, lost: float, gained: float) -> tuple[Any, ...]:
    """Reference, deployed and labels of two classes in bursts that flip together, and the burst of each sample."""
    labels = np.arange(groups * size) // size % 2
    flip = np.repeat(rng.choice(3, groups, p=[1 - lost - gained, lost, gained]), size)
    reference = np.where(flip == 2, 1 - labels, labels)
    deployed = np.where(flip == 1, 1 - labels, labels)
    return reference, deployed, labels, np.repeat(np.arange(groups), size)


@given(flips=st.tuples(st.integers(0, 8), st.integers(0, 8)), n=st.integers(60, 300), seed=st.integers(0, 9))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_groups_of_one_sample_change_nothing(flips: tuple[int, int], n: int, seed: int) -> None:
    labels = np.arange(n) % 3
    reference, deployed = labels.copy(), labels.copy()
    order = np.random.default_rng(seed).permutation(n)
    deployed[order[: flips[0]]] += 1
    reference[order[flips[0] : sum(flips)]] += 1
    names = tuple("abcd")
    alone = certify(reference, deployed, labels, names)
    grouped = certify(reference, deployed, labels, names, groups=[f"scene {i}" for i in order])
    assert grouped == alone
    assert grouped.units == grouped.n == n


def test_a_certificate_says_how_many_units_it_rests_on() -> None:
    reference, deployed, labels, groups = burst_answers(np.random.default_rng(1), 400, 5, 0.01, 0.01)
    found = edgetl.verify(reference=reference, deployed=deployed, labels=labels, groups=groups, margin=0.05)
    assert (found.n, found.units) == (2000, 400)
    assert found.to_json()["units"] == 400
    assert "On 2,000 samples in 400 independent groups held back" in found.sentence()
    assert "whole groups" in found.method
    assert Certificate.from_json(found.to_json()) == found


def test_bursts_have_a_wider_interval_than_single_samples() -> None:
    reference, deployed, labels, groups = burst_answers(np.random.default_rng(2), 200, 10, 0.03, 0.03)
    alone, together = (certify(reference, deployed, labels, groups=g) for g in (None, groups))
    assert together.difference == alone.difference
    assert together.ci_high - together.ci_low > 2 * (alone.ci_high - alone.ci_low)


def test_an_older_certificate_counts_every_sample() -> None:
    record = certify(*burst_answers(np.random.default_rng(3), 40, 1, 0.0, 0.0)[:3]).to_json()
    from edgetl.base.storage import sealed

    del record["units"]
    assert Certificate.from_json(sealed(record)).units == record["n"]


@pytest.mark.parametrize("groups", [[0, 1], np.zeros((4, 1), int), [0.5, 1.0, 2.0, 3.0]])
def test_groups_that_do_not_fit_are_refused(groups: Any) -> None:
    with pytest.raises(CertifyError, match="give an integer or a name for each of the 4 samples"):
        certify([0, 1, 0, 1], [0, 1, 0, 1], [0, 1, 0, 1], groups=groups)


# --- the test


@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
@settings(deadline=None, derandomize=True)
def test_the_sign_flip_test_is_that_of_all_sign_flips(change: list[int]) -> None:
    lost = -sum(c for c in change if c < 0)
    sums = [
        sum(abs(c) for c, sign in zip(change, signs, strict=True) if sign)
        for signs in product((0, 1), repeat=len(change))
    ]
    assert sign_flip_loss(np.array(change)) == pytest.approx(np.mean(np.array(sums) >= lost))


@given(lost=st.integers(0, 60), gained=st.integers(0, 60))
@settings(deadline=None, derandomize=True)
def test_of_single_samples_it_is_mcnemars(lost: int, gained: int) -> None:
    change = np.array([-1] * lost + [1] * gained + [0] * 5)
    assert sign_flip_loss(change) == pytest.approx(float(mcnemar_loss(lost, gained)), abs=1e-12)
    if lost + gained:
        assert sign_flip_loss(change) == pytest.approx(
            stats.binomtest(lost, lost + gained, alternative="greater").pvalue
        )


def test_a_burst_that_flips_is_no_collapse_of_its_class() -> None:
    labels = np.repeat(np.arange(2), 200)
    deployed = labels.copy()
    deployed[:12] = 1
    groups = np.arange(400) // 12
    assert certify(labels, deployed, labels, "ab").classes["a"].collapsed
    assert not certify(labels, deployed, labels, "ab", groups=groups).classes["a"].collapsed


def test_the_spread_is_that_of_a_sum_over_groups() -> None:
    rng = np.random.default_rng(5)
    sizes = rng.integers(1, 12, 600)
    groups = np.repeat(np.arange(600), sizes)
    change = np.repeat(rng.choice([-1, 0, 1], 600, p=[0.1, 0.8, 0.1]), sizes)
    difference, (low, high) = share_draws(change, None, groups, 2000)
    residuals = np.bincount(groups, change - difference)
    # The sandwich variance of a ratio of sums over groups (Obuchowski 1998, equation 4).
    deviation = np.sqrt(600 / 599 * np.sum(residuals**2)) / len(change)
    assert np.std((low + high) / 2) == pytest.approx(deviation, rel=0.06)
    assert bounds(low, high, ALPHA)[0] < difference - 1.6 * deviation


def size(groups: int, per: int, discordance: float, margin: float, draws: int = 400) -> float:
    """Share of data sets in bursts that flip together, and truly lose the margin, that pass."""
    rng = np.random.default_rng([groups, per])
    passed = 0
    for _ in range(draws):
        flips = rng.choice(
            [-1, 1, 0], groups, p=[(discordance + margin) / 2, (discordance - margin) / 2, 1 - discordance]
        )
        low, high = share_draws(np.repeat(flips, per), None, np.repeat(np.arange(groups), per), 300)[1]
        passed += bounds(low, high, ALPHA)[0] > -margin
    return passed / draws


@pytest.mark.parametrize(("groups", "per"), [(250, 2), (400, 5), (200, 10), (100, 20)])
def test_a_true_loss_of_the_margin_passes_in_5_percent_at_most(groups: int, per: int) -> None:
    assert size(groups, per, 0.1, 0.04) <= ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / 400)


# --- other metrics, several tasks


def test_regression_is_judged_by_group() -> None:
    rng = np.random.default_rng(7)
    labels = rng.normal(size=600)
    reference = labels + 0.1 * rng.normal(size=600)
    deployed = reference + np.repeat(0.05 * rng.normal(size=60), 10)
    alone = certify_scores(reference, deployed, labels, margin=0.2)
    together = edgetl.verify(
        reference=reference, deployed=deployed, labels=labels, metric="mae", margin=0.2, groups=np.arange(600) // 10
    )
    assert (alone.units, together.units) == (600, 60)
    assert together.ci_high - together.ci_low > alone.ci_high - alone.ci_low


def test_label_sets_are_judged_by_group() -> None:
    rng = np.random.default_rng(8)
    labels = (rng.random((300, 3)) < 0.3).astype(int)
    logits = 4 * labels - 2 + rng.normal(size=(300, 3))
    moved = logits + np.repeat(rng.normal(size=(30, 3)), 10, axis=0)
    groups = np.arange(300) // 10
    for metric in ("macro-AP", "micro-F1", "subset-accuracy"):
        found = [
            edgetl.verify(reference=logits, deployed=moved, labels=labels, metric=metric, groups=g, margin=0.1)
            for g in (None, groups)
        ]
        assert found[0].difference == found[1].difference
        assert found[1].ci_low < found[0].ci_low
        assert found[1].units == 30
