"""A verdict that holds however often it is read, while samples are added."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgetl
from edgetl.base.errors import CertifyError
from edgetl.certify import betting, certify, images_needed, noninferiority
from edgetl.certify.paired import PairedCounts
from edgetl.core.certificate import Certificate

ALPHA, MARGIN = 0.05, 0.02


def test_the_capital_is_that_of_bets_made_one_by_one() -> None:
    rng = np.random.default_rng(0)
    change = rng.choice([-1, 0, 1], 300, p=[0.03, 0.94, 0.03])
    held = np.ones(len(betting.STAKES))
    for d in change:
        held *= 1 + np.array(betting.STAKES) * (d + MARGIN) / (1 - MARGIN)
    found = betting.log_capital((change == -1).sum(), (change == 1).sum(), len(change), -MARGIN)
    assert float(found) == pytest.approx(math.log(held.mean()))


@pytest.mark.parametrize("rates", [(0.02, 0.0), (0.06, 0.04), (0.2, 0.18)])
def test_no_bet_is_better_than_fair_where_the_margin_is_lost(rates: tuple[float, float]) -> None:
    """The expected capital after three samples, over all 27 ways that they can turn out."""
    chance = {-1: rates[0], 1: rates[1], 0: 1 - sum(rates)}
    total = 0.0
    for ways in product(chance, repeat=3):
        counts = ways.count(-1), ways.count(1), 3
        total += math.prod(chance[way] for way in ways) * math.exp(float(betting.log_capital(*counts, -MARGIN)))
    assert total == pytest.approx(1.0)


@given(lost=st.integers(0, 30), gained=st.integers(0, 30), more=st.integers(0, 400))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_the_bound_is_below_the_one_of_a_single_reading(lost: int, gained: int, more: int) -> None:
    n = lost + gained + more + 1
    low = betting.lower_bound(lost, gained, n, ALPHA)
    assert -1 <= low <= (gained - lost) / n
    assert low <= noninferiority(PairedCounts(n - lost - gained, lost, gained, 0), MARGIN, ALPHA).ci_low


def test_a_true_loss_of_the_margin_hardly_ever_passes_at_any_of_twenty_looks() -> None:
    rng, sets, looks = np.random.default_rng(1), 1500, np.arange(100, 2001, 100)
    change = rng.choice([-1, 0, 1], (sets, 2000), p=[0.03, 0.96, 0.01])
    lost, gained = (np.cumsum(change == value, axis=1)[:, looks - 1] for value in (-1, 1))
    again = betting.log_capital(lost, gained, looks[None, :], -MARGIN).max(axis=1) >= -math.log(ALPHA)
    assert again.mean() <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / sets)


def test_it_needs_about_twice_as_many_samples() -> None:
    once, again = images_needed(0.02, 0.01), betting.samples_needed(0.02, 0.01, ALPHA)
    assert 1.5 < again / once < 3
    found = betting.chance_of(
        again, 0.02, 0.0, lambda lost, gained: betting.log_capital(lost, gained, again, -0.01) >= 3
    )
    assert found > 0.79


def test_a_certificate_says_that_it_may_be_read_again_and_what_that_costs() -> None:
    labels = np.arange(1500) % 3
    deployed = labels.copy()
    deployed[:2] += 1
    names = tuple("abcd")
    found = certify(labels, deployed, labels, names, margin=MARGIN, sequential=True)
    assert (found.verdict, found.sequential) == ("pass", True)
    assert "betting" in found.method
    assert any("may be read after every new batch" in note and "Its price: about" in note for note in found.notes)
    assert Certificate.from_json(found.to_json()) == found
    once = certify(labels, deployed, labels, names, margin=MARGIN)
    assert once.ci_low > found.ci_low
    assert "sequential" not in once.to_json()


def test_what_it_is_not_for_is_refused() -> None:
    values = np.arange(30.0)
    with pytest.raises(CertifyError, match="mean absolute error is judged at one reading"):
        edgetl.verify(reference=values, deployed=values, labels=values, metric="mae", sequential=True)
    labels = np.arange(30) % 2
    with pytest.raises(CertifyError, match="samples that belong together is judged at one reading"):
        edgetl.verify(reference=labels, deployed=labels, labels=labels, groups=np.arange(30) // 3, sequential=True)
