"""How often a model passes that lost exactly the margin; the whole grid is in ``benchmarks/size_simulation.py``."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from edgetl.certify import (
    PairedCounts,
    cautious_lower_bound,
    images_needed,
    noninferiority,
    score_statistic,
)
from tests.certify.tested import balanced_accuracy_test, label_set_test, score_test

ALPHA = 0.05
DRAWS = 20_000


@functools.cache
def most_lost(gained: int, n: int, margin: float) -> int:
    """The most losses with which the lower bound is above the margin, -1 for none; it is at most the score bound."""
    lost = np.arange(n - gained + 1)
    edge = int(np.sum(score_statistic(lost, gained, n, -margin) > stats.norm.isf(ALPHA))) - 1
    while edge >= 0 and cautious_lower_bound(edge, gained, n, ALPHA) <= -margin:
        edge -= 1
    return edge


def rate(n: int, margin: float, lost_rate: float, gained_rate: float) -> tuple[float, float]:
    """Share of simulated data sets that pass, and the Monte-Carlo error of that share at 5 %."""
    rates = [lost_rate, gained_rate, 1 - lost_rate - gained_rate]
    lost, gained, _ = np.random.default_rng(n).multinomial(n, rates, DRAWS).T
    distinct, which = np.unique(gained, return_inverse=True)
    edge = np.array([most_lost(int(g), n, margin) for g in distinct])
    passed = lost <= edge[which]
    # The data sets nearest to the edge are judged by the public verdict as well.
    for i in np.argsort(np.abs(lost - edge[which]))[:5].tolist():
        counts = PairedCounts(n - int(lost[i]) - int(gained[i]), int(lost[i]), int(gained[i]), 0)
        assert (noninferiority(counts, margin, ALPHA).verdict == "pass") == passed[i]
    return float(np.mean(passed)), float(np.sqrt(ALPHA * (1 - ALPHA) / DRAWS))


CELLS = [
    (50, 0.2, 0.01), (50, 0.05, 0.02), (100, 0.05, 0.01), (200, 0.02, 0.01), (500, 0.1, 0.01), (1000, 0.005, 0.005),
    (1000, 0.01, 0.01), (2000, 0.02, 0.01), (2000, 0.2, 0.01), (5000, 0.01, 0.01), (5000, 0.1, 0.02), (5000, 0.2, 0.01),
]  # fmt: skip


@pytest.mark.parametrize(("n", "discordance", "margin"), CELLS)
def test_a_true_loss_of_the_margin_passes_in_5_percent_at_most(n: int, discordance: float, margin: float) -> None:
    passed, error = rate(n, margin, (discordance + margin) / 2, (discordance - margin) / 2)
    assert passed <= ALPHA + 3 * error


@pytest.mark.parametrize(
    ("discordance", "margin", "tolerance"),
    [(0.01, 0.01, 0.05), (0.02, 0.01, 0.05), (0.05, 0.02, 0.04), (0.2, 0.02, 0.02)],
)
def test_the_power_without_a_loss_is_that_of_the_formula(discordance: float, margin: float, tolerance: float) -> None:
    passed, _ = rate(images_needed(discordance, margin), margin, discordance / 2, discordance / 2)
    assert passed == pytest.approx(0.8, abs=tolerance)


# --- the bootstraps


def balanced_size(sizes: list[int], lost: list[float], gained: float, trials: int) -> float:
    """Share of data sets that pass at a margin of 1 point, which is the mean of ``lost`` less ``gained``."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(len(sizes)), sizes)
    rates, other = np.array(lost)[labels], (labels + 1) % len(sizes)
    assert np.mean(lost) - gained == pytest.approx(0.01)
    passed = 0
    for u in rng.random((trials, len(labels))):
        reference, deployed = np.where(u > 1 - gained, other, labels), np.where(u < rates, other, labels)
        passed += balanced_accuracy_test(reference, deployed, labels).verdict == "pass"
    return passed / trials


@pytest.mark.parametrize(
    ("sizes", "lost", "gained"),
    [
        # The plain percentile bootstrap passes 37 % of these: without a loss its interval has no width.
        ([10] * 10, [0.01] * 10, 0.0),
        ([100] * 10, [0.055] * 10, 0.045),
        ([40, 100, 200, 400, 800], [0.05, 0.0, 0.0, 0.0, 0.0], 0.0),
        ([5] * 100, [0.035] * 100, 0.025),
    ],
)
def test_balanced_accuracy_passes_a_true_loss_of_the_margin_in_5_percent_at_most(
    sizes: list[int], lost: list[float], gained: float
) -> None:
    trials = 500
    assert balanced_size(sizes, lost, gained, trials) <= ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / trials)


@pytest.mark.parametrize(
    ("metric", "share", "margin"),
    # The plain percentile bootstrap passes 10 % and more of these, and one whose unseen sample only loses labels, too.
    [("macro-AP", 0.0275, 0.1712), ("micro-F1", 0.021, 0.0260)],
)
def test_several_labels_pass_a_true_loss_of_the_margin_in_5_percent_at_most(
    metric: str, share: float, margin: float
) -> None:
    """Of few samples every answer is extreme and random; of the others all labels are told apart."""
    rng, trials, passed = np.random.default_rng(2), 300, 0
    for _ in range(trials):
        labels = rng.random((300, 5)) < 0.2
        reference = 8.0 * labels - 4 + rng.normal(size=labels.shape)
        extreme = rng.choice([-1, 1], labels.shape) * (20 + rng.random(labels.shape))
        deployed = np.where(rng.random((300, 1)) < share, extreme, reference)
        passed += label_set_test(reference, deployed, labels, metric, margin, replicates=200).verdict == "pass"
    assert passed / trials <= ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / trials)


def rarely_off(n: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.float64], ...]:
    """One image in a hundred is off by a further 1, so the mean absolute error grows by 0.01."""
    labels = rng.normal(size=n)
    reference = labels + 0.1 * rng.normal(size=n)
    return reference, reference + np.where(rng.random(n) < 0.01, np.sign(reference - labels), 0), labels


def alike(n: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.float64], ...]:
    """Every image is off by a further 0.01 on average, with noise."""
    labels = rng.normal(size=n)
    return labels + 1, labels + 1.01 + 0.2 * rng.normal(size=n), labels


@pytest.mark.parametrize(("draw", "n"), [(rarely_off, 100), (rarely_off, 500), (alike, 1000)])
def test_regression_passes_a_true_loss_of_the_margin_in_5_percent_at_most(draw: Any, n: int) -> None:
    """The plain percentile bootstrap passes 38 % of the first."""
    rng, trials = np.random.default_rng(1), 150
    passed = sum(score_test(*draw(n, rng), "mae", 0.01, replicates=1000).verdict == "pass" for _ in range(trials))
    assert passed / trials <= ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / trials)
