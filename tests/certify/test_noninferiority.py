"""Verdicts, the size and the power of the test, and how many images it asks for."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from edgetl.base.errors import CertifyError
from edgetl.certify import (
    NonInferiority,
    PairedCounts,
    cautious_lower_bound,
    check_margin,
    images_needed,
    noninferiority,
    score_interval,
    score_statistic,
)

ALPHA = 0.05


def judged(lost: int, gained: int, n: int, margin: float = 0.01, alpha: float = ALPHA) -> NonInferiority:
    return noninferiority(PairedCounts(n - lost - gained, lost, gained, 0), margin, alpha)


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int]:
    """(lost, gained, n) with few discordant images, where the exact bound is at work, and with many."""
    n = draw(st.one_of(st.integers(1, 40), st.integers(1, 20_000)))
    lost = draw(st.one_of(st.integers(0, min(n, 6)), st.integers(0, min(n, 150))))
    gained = draw(st.one_of(st.integers(0, min(n - lost, 6)), st.integers(0, min(n - lost, 150))))
    return lost, gained, n


# --- verdicts


@pytest.mark.parametrize(
    ("lost", "gained", "n", "verdict"),
    [
        (0, 0, 298, "underpowered"),
        (0, 0, 299, "pass"),
        (0, 0, 50, "underpowered"),
        (10, 10, 5000, "pass"),
        (10, 10, 400, "underpowered"),
        (4, 0, 400, "underpowered"),
        (5, 0, 400, "fail"),
        (3, 0, 270, "underpowered"),
        (3, 0, 400, "underpowered"),
        (200, 20, 1000, "fail"),
        (20, 200, 1000, "pass"),
        (1, 0, 1, "underpowered"),
        (2, 0, 50, "underpowered"),
        (7, 2, 270, "underpowered"),
        (20, 7, 270, "fail"),
        (0, 1, 1, "underpowered"),
    ],
)
def test_verdicts_at_a_margin_of_one_point(lost: int, gained: int, n: int, verdict: str) -> None:
    assert judged(lost, gained, n).verdict == verdict


def test_not_significantly_different_is_not_a_pass() -> None:
    lost, gained, n = 14, 9, 500
    assert stats.binomtest(lost, lost + gained).pvalue > 0.3
    assert judged(lost, gained, n).verdict != "pass"


@given(table=tables(), margin=st.sampled_from([0.0, 0.002, 0.01, 0.03, 0.2]))
@example(table=(0, 0, 268), margin=0.01)
@settings(deadline=None, derandomize=True, max_examples=60)
def test_every_field_tells_the_same_story(table: tuple[int, int, int], margin: float) -> None:
    result = judged(*table, margin=margin)
    lost, gained, n = table
    assert result.difference == (gained - lost) / n
    assert -1 <= result.ci_low <= result.score_low <= result.difference <= result.score_high <= result.ci_high <= 1
    assert (result.verdict == "pass") == (result.ci_low > -margin)
    if abs(result.p_value - ALPHA) > 1e-6:
        assert (result.verdict == "pass") == (result.p_value < ALPHA)
    beyond_chance = stats.binom.cdf(gained, lost + gained, 0.5) < ALPHA
    if result.verdict == "fail":
        assert beyond_chance or result.ci_high < -margin
        assert result.difference <= -margin
    if result.ci_high < -margin:
        assert result.verdict == "fail"
    if result.verdict == "underpowered":
        assert -margin < result.difference or not beyond_chance
        assert result.n_needed is None or result.n_needed > n
    assert (result.n_needed is None) == (margin == 0)


@given(table=tables(), margin=st.sampled_from([0.005, 0.01, 0.05]), more=st.floats(1.01, 5))
@settings(deadline=None, derandomize=True, max_examples=30)
def test_a_wider_margin_or_a_laxer_level_never_spoils_a_pass(
    table: tuple[int, int, int], margin: float, more: float
) -> None:
    if judged(*table, margin=margin).verdict == "pass":
        assert judged(*table, margin=margin * more).verdict == "pass"
        assert judged(*table, margin=margin, alpha=min(ALPHA * more, 0.4)).verdict == "pass"


@given(table=tables())
@settings(deadline=None, derandomize=True, max_examples=40)
def test_one_more_loss_never_raises_the_bound_and_one_more_gain_never_lowers_it(table: tuple[int, int, int]) -> None:
    lost, gained, n = table
    if lost + gained == n:
        return
    low = cautious_lower_bound(lost, gained, n, ALPHA)
    assert cautious_lower_bound(lost + 1, gained, n, ALPHA) <= low + 1e-7
    assert cautious_lower_bound(lost, gained + 1, n, ALPHA) >= low - 1e-7


@given(table=tables())
@settings(deadline=None, derandomize=True, max_examples=30)
def test_exchanging_the_models_mirrors_the_bounds(table: tuple[int, int, int]) -> None:
    lost, gained, n = table
    there, back = judged(lost, gained, n), judged(gained, lost, n)
    assert (there.ci_low, there.ci_high) == (-back.ci_high, -back.ci_low)


def test_many_discordant_images_leave_the_score_interval_as_it_is() -> None:
    result = judged(180, 150, 9000)
    assert (result.ci_low, result.ci_high) == score_interval(180, 150, 9000, ALPHA)


def test_without_losses_the_bound_is_the_exact_binomial_one() -> None:
    """With no discordance at all, P(no loss) = (1 - m)^n decides; the rest of alpha pays for the unknown gains."""
    low = cautious_lower_bound(0, 0, 400, ALPHA)
    assert low == pytest.approx(-(1 - (ALPHA * (1 - 1 / 500)) ** (1 / 400)), rel=1e-4)


def test_margin_zero_asks_for_proof_of_being_better() -> None:
    assert judged(0, 0, 10_000, margin=0).verdict == "underpowered"
    assert judged(0, 0, 10_000, margin=0).n_needed is None
    assert judged(5, 60, 10_000, margin=0).verdict == "pass"
    assert judged(6, 5, 10_000, margin=0).verdict == "underpowered"
    assert judged(16, 5, 10_000, margin=0).verdict == "fail"


def test_a_million_images() -> None:
    assert judged(3, 0, 1_000_000, margin=1e-5).verdict == "pass"
    assert judged(3_000, 2_900, 1_000_000, margin=0.001).verdict == "pass"


# --- size and power


@pytest.mark.parametrize(("n", "discordance"), [(20, 0.1), (20, 0.3), (50, 0.02), (50, 0.1), (270, 0.005), (270, 0.03)])
def test_an_equal_model_fails_with_probability_alpha_at_most(n: int, discordance: float) -> None:
    """Exact: the chance that images which a model without a loss gets wrong make it fail."""
    chance = 0.0
    for flips in range(1, int(stats.binom.isf(1e-7, n, discordance)) + 1):
        of_so_many = float(stats.binom.pmf(flips, n, discordance))
        losses = range(flips // 2, flips + 1)
        least = bisect.bisect_left(losses, True, key=lambda k: judged(k, flips - k, n).verdict == "fail")
        chance += of_so_many * float(stats.binom.sf(losses.start + least - 1, flips, 0.5))
    assert chance <= ALPHA + 1e-6


@functools.cache
def most_lost_that_passes(n: int, margin: float, most_gained: int) -> tuple[int, ...]:
    """For each number of gained images the greatest number of losses with which the verdict is still pass, or -1."""
    edges = []
    for gained in range(most_gained + 1):
        lost = np.arange(n - gained + 1)
        edge = int(np.sum(score_statistic(lost, gained, n, -margin) > stats.norm.isf(ALPHA))) - 1
        while edge >= 0 and cautious_lower_bound(edge, gained, n, ALPHA) <= -margin:
            edge -= 1
        edges.append(edge)
    return tuple(edges)


def chance_of_a_pass(edges: Sequence[int], n: int, lost_rate: float, gained_rate: float) -> float:
    """Exact, by summing the trinomial distribution over all tables that pass."""
    gained, edge = np.arange(len(edges)), np.array(edges)
    assert stats.binom.sf(len(edges) - 1, n, gained_rate) < 1e-6
    at_most = np.where(edge >= 0, stats.binom.cdf(edge, n - gained, lost_rate / (1 - gained_rate)), 0.0)
    return float(np.sum(stats.binom.pmf(gained, n, gained_rate) * at_most))


SIZES = [(50, 0.02), (100, 0.01), (134, 0.02), (268, 0.01), (299, 0.01), (540, 0.005), (1000, 0.01)]


@pytest.mark.parametrize(("n", "margin"), SIZES)
def test_a_true_loss_of_the_margin_passes_with_probability_alpha_at_most(n: int, margin: float) -> None:
    edges = most_lost_that_passes(n, margin, 25)
    for discordance in np.geomspace(margin, min(0.2, margin + 14 / n), 25):
        chance = chance_of_a_pass(edges, n, (discordance + margin) / 2, (discordance - margin) / 2)
        assert chance <= ALPHA, f"discordance {discordance}"


def test_the_score_bound_alone_would_be_too_bold() -> None:
    """Why the exact bound is there: 268 images, a true loss of one point, nothing gained."""
    passing = [lost for lost in range(20) if score_interval(lost, 0, 268, ALPHA)[0] > -0.01]
    assert stats.binom.cdf(max(passing), 268, 0.01) == pytest.approx(0.0676, abs=5e-4)


@pytest.mark.parametrize(("n", "discordance"), [(268, 0.01), (300, 0.02), (600, 0.012)])
def test_simulated_size_of_the_public_verdict(n: int, discordance: float) -> None:
    margin, draws = 0.01, 40_000
    rates = [(discordance + margin) / 2, (discordance - margin) / 2, 1 - discordance]
    seen, times = np.unique(np.random.default_rng(1).multinomial(n, rates, draws)[:, :2], axis=0, return_counts=True)
    # Only tables that pass the score test can pass, so the others need no second look.
    bold = score_statistic(seen[:, 0], seen[:, 1], n, -margin) > stats.norm.isf(ALPHA)
    passed = sum(
        int(count)
        for (lost, gained), count in zip(seen[bold].tolist(), times[bold], strict=True)
        if judged(lost, gained, n).verdict == "pass"
    )
    assert passed / draws <= ALPHA + 4 * np.sqrt(ALPHA * (1 - ALPHA) / draws)


@pytest.mark.parametrize(("n", "discordance", "margin"), [(5000, 0.1, 0.01), (2000, 0.2, 0.01), (5000, 0.05, 0.005)])
def test_simulated_size_with_many_discordant_images(n: int, discordance: float, margin: float) -> None:
    draws = 200_000
    rates = [(discordance + margin) / 2, (discordance - margin) / 2, 1 - discordance]
    lost, gained, _ = np.random.default_rng(2).multinomial(n, rates, draws).T
    passed = score_statistic(lost, gained, n, -margin) > stats.norm.isf(ALPHA)
    assert np.mean(passed) == pytest.approx(ALPHA, abs=4 * np.sqrt(ALPHA * (1 - ALPHA) / draws))
    for i in range(5):
        assert (judged(int(lost[i]), int(gained[i]), n, margin).verdict == "pass") == passed[i]


@pytest.mark.parametrize(("discordance", "most_gained"), [(0.005, 14), (0.01, 20), (0.02, 36)])
def test_images_needed_give_the_power_they_promise(discordance: float, most_gained: int) -> None:
    n = images_needed(discordance, 0.01)
    edges = most_lost_that_passes(n, 0.01, most_gained)
    # The chance jumps where one more loss still passes.
    assert 0.795 <= chance_of_a_pass(edges, n, discordance / 2, discordance / 2) <= 0.85


@pytest.mark.parametrize(("discordance", "margin"), [(0.04, 0.01), (0.1, 0.01), (0.2, 0.02), (0.06, 0.02)])
def test_simulated_power_with_many_discordant_images(discordance: float, margin: float) -> None:
    n, draws = images_needed(discordance, margin), 50_000
    lost, gained, _ = (
        np.random.default_rng(3).multinomial(n, [discordance / 2, discordance / 2, 1 - discordance], draws).T
    )
    power = np.mean(score_statistic(lost, gained, n, -margin) > stats.norm.isf(ALPHA))
    assert power == pytest.approx(0.8, abs=0.025)


# --- how many images


def test_images_needed_for_a_margin_of_one_point() -> None:
    """The formula says 1,237 images at 2 % discordance and 2,473 at 4 %, one-sided 5 %, power 80 %; few need more."""
    assert images_needed(0.02, 0.01) == pytest.approx(1368, rel=0.02)
    assert images_needed(0.04, 0.01) == pytest.approx(2524, rel=0.02)
    assert images_needed(0.2, 0.01) == 12_366


@given(discordance=st.floats(0, 1), more=st.floats(0, 1), margin=st.floats(1e-4, 0.9))
@settings(deadline=None, derandomize=True)
def test_images_needed_grow_with_the_discordance_and_fall_with_the_margin(
    discordance: float, more: float, margin: float
) -> None:
    low, high = sorted((discordance, more))
    # Up to where one more loss passes: there the chance jumps, and the number with it.
    slack = 1.15
    assert images_needed(low, margin) <= slack * images_needed(high, margin)
    assert slack * images_needed(low, margin) >= images_needed(low, min(2 * margin, 0.95))
    assert slack * images_needed(low, margin, power=0.9) >= images_needed(low, margin)


@pytest.mark.parametrize("margin", [1e-9, 1e-200, 5e-324])
def test_a_margin_next_to_zero_asks_for_more_images_than_there_are(margin: float) -> None:
    result = judged(0, 0, 100, margin=margin)
    assert result.verdict == "underpowered"
    assert result.n_needed == 10**15


def test_with_no_discordance_seen_the_rule_of_three_speaks() -> None:
    assert judged(0, 0, 100).n_needed == images_needed(1 - 0.05**0.01, 0.01)
    assert judged(0, 0, 5000).n_needed == pytest.approx(images_needed(3 / 5000, 0.01), rel=0.03)


def test_a_loss_close_to_the_margin_asks_for_more_images_than_there_are() -> None:
    result = judged(100, 60, 5000)
    assert result.verdict == "underpowered"
    assert images_needed(0.032, 0.01) < 5000
    assert result.assumed_difference == -0.008
    assert result.n_needed == images_needed(0.032, 0.01, difference=-0.008)
    assert result.n_needed > 5000


# --- counting and refusing


def test_counts_come_from_the_arrays() -> None:
    labels = [0, 1, 2, 0, 1, 2, 0]
    reference = [0, 1, 2, 1, 1, 0, 0]
    deployed = [0, 2, 2, 0, 0, 1, 0]
    counts = PairedCounts.from_predictions(reference, deployed, labels)
    assert counts == PairedCounts(both_right=3, lost=2, gained=1, both_wrong=1)
    assert (counts.n, counts.reference_accuracy, counts.deployed_accuracy) == (7, 5 / 7, 4 / 7)
    assert (counts.difference, counts.discordance) == (-1 / 7, 3 / 7)


@given(st.data())
@settings(deadline=None, derandomize=True)
def test_counts_of_any_arrays(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 60))
    column = st.lists(st.integers(0, 3), min_size=n, max_size=n)
    labels, reference, deployed = (np.array(data.draw(column), dtype=np.uint8) for _ in range(3))
    counts = PairedCounts.from_predictions(reference, deployed, labels)
    assert counts.n == n
    assert counts.reference_accuracy == np.mean(reference == labels)
    assert counts.deployed_accuracy == np.mean(deployed == labels)


GOOD = [0, 1, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "deployed is empty"),
        ([0, 1], "different lengths (labels 3, reference 3, deployed 2)"),
        ([0.0, 1.0, 2.0], "deployed holds float64 instead of integers"),
        ([0, float("nan"), 1], "deployed contains NaN"),
        ([0, -1, 1], "deployed holds the negative index -1"),
        ([[0, 1], [1, 0], [0, 1]], "deployed has 2 dimensions instead of 1: take the argmax of the scores first"),
        (3, "deployed has 0 dimensions"),
        (["a", "b", "c"], "deployed holds <U1 instead of integers"),
        ([True, False, True], "deployed holds bool instead of integers"),
        ([None, 1, 2], "deployed holds object instead of integers"),
        ([[0], [1, 2], [0]], "deployed is not an array of class indexes"),
        (np.array([0, 2**40, 1]), "which is no class index"),
        (np.array([0, 2**63, 1], dtype=np.uint64), "which is no class index"),
    ],
)
def test_arrays_that_cannot_be_compared(values: Any, message: str) -> None:
    with pytest.raises(CertifyError) as caught:
        PairedCounts.from_predictions(GOOD, values, GOOD)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (1, -1, 0, 0), (1, 0, 0.5, 0), (True, 0, 0, 0)])
def test_counts_that_cannot_be(counts: tuple[Any, ...]) -> None:
    with pytest.raises(CertifyError):
        PairedCounts(*counts)


@pytest.mark.parametrize("margin", [-1, -0.001, 1, 1.5, float("nan"), float("inf"), "0.01", None, True])
def test_margins_out_of_range(margin: Any) -> None:
    with pytest.raises(CertifyError, match=r"^margin .* is not in the range .*: give the greatest acceptable loss"):
        judged(1, 1, 100, margin=margin)
    with pytest.raises(CertifyError):
        check_margin(margin)


@pytest.mark.parametrize("alpha", [0, 0.5, -0.1, 1, float("nan"), "x"])
def test_levels_out_of_range(alpha: Any) -> None:
    with pytest.raises(CertifyError, match=r"^alpha .* is not between 0 and 0.5"):
        judged(1, 1, 100, alpha=alpha)


@pytest.mark.parametrize("alpha", [1e-30, 1e-6, 0.01, 0.499])
def test_extreme_levels_still_give_bounds(alpha: float) -> None:
    result = judged(1, 2, 300, alpha=alpha)
    assert -1 <= result.ci_low < result.difference < result.ci_high <= 1
