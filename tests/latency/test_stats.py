"""Percentiles, their intervals, and when too few samples were taken to tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.latency import effective_samples, percentile, samples_needed, speedup
from edgetl.latency.stats import TREND_BLOCKS, mean, trend
from edgetl.runtime.intervals import block_length

QUANTILES = [0.01, 0.1, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999]
TIMES = st.lists(st.floats(0.001, 1e5), min_size=40, max_size=80)


@pytest.mark.parametrize(("q", "n"), [(0.5, 6), (0.9, 36), (0.99, 368), (0.1, 36), (0.01, 368)])
def test_samples_needed(q: float, n: int) -> None:
    assert samples_needed(q) == n


@pytest.mark.parametrize("q", QUANTILES)
def test_with_so_many_samples_both_ends_of_an_interval_exist(q: float) -> None:
    """Independently: the chance that all samples lie on one side of the quantile, from the binomial distribution."""
    stats = pytest.importorskip("scipy.stats", reason="scipy (edgetl[dev]) is the independent implementation")
    n = samples_needed(q)

    def one_sided(count: int) -> float:
        below = stats.binom(count, q)
        return float(max(below.pmf(0), below.pmf(count)))

    assert one_sided(n) <= 0.025 < one_sided(n - 1)


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_the_order_statistic_interval_covers(q: float) -> None:
    """Simulated: with samples_needed(q) samples, [smallest, largest] holds the quantile 95 times in 100."""
    rng = np.random.default_rng(0)
    draws = rng.exponential(size=(4000, samples_needed(q)))
    true = -math.log(1 - q)
    covered = np.mean((draws.min(1) <= true) & (true <= draws.max(1)))
    assert covered >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 4000)


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_too_few_samples_are_refused(q: float) -> None:
    samples = np.random.default_rng(1).gamma(2, size=samples_needed(q))
    assert percentile(samples, q) is not None
    assert percentile(samples[:-1], q) is None
    assert percentile([], q) is None


@given(samples=TIMES, q=st.sampled_from([0.1, 0.5, 0.9]))
@settings(deadline=None, max_examples=25)
def test_the_estimate_is_numpys_quantile(samples: list[float], q: float) -> None:
    found = percentile(samples, q)
    assert found is not None
    assert found.value == pytest.approx(np.quantile(samples, q))
    assert min(samples) <= found.ci_low <= found.ci_high <= max(samples)
    assert percentile(samples, q) == found, "the same samples give the same interval"


@given(samples=TIMES, factor=st.sampled_from([2.0, 0.5, 1024.0]))
@settings(deadline=None, max_examples=15)
def test_units_do_not_matter(samples: list[float], factor: float) -> None:
    one, scaled = percentile(samples, 0.9), percentile([factor * x for x in samples], 0.9)
    assert one is not None
    assert scaled is not None
    for name in ("value", "ci_low", "ci_high"):
        assert getattr(scaled, name) == pytest.approx(factor * getattr(one, name))


@pytest.mark.parametrize(("n", "q"), [(40, 0.5), (60, 0.9), (500, 0.5), (500, 0.99), (501, 0.9)])
def test_the_interval_is_the_percentile_bootstraps(n: int, q: float) -> None:
    """Against plain resampling, which is what it comes to where successive samples have nothing in common."""
    rng = np.random.default_rng(7)
    samples = rng.lognormal(1, 0.4, n)
    found = percentile(samples, q)
    assert found is not None
    plain = np.quantile(samples[rng.integers(n, size=(8000, n))], q, axis=1)
    low, high = np.quantile(plain, [0.025, 0.975])
    width = high - low
    assert abs(found.ci_low - low) < 0.2 * width
    assert abs(found.ci_high - high) < 0.2 * width


@pytest.mark.parametrize(("n", "q", "least"), [(50, 0.5, 0.88), (200, 0.9, 0.88), (800, 0.99, 0.85)])
def test_the_interval_covers_the_true_quantile(n: int, q: float, least: float) -> None:
    """Nominally 95 %; the bootstrap's known shortfall in the tail of small samples is allowed for."""
    rng = np.random.default_rng(11)
    true, hits, trials = -math.log(1 - q), 0, 60
    for _ in range(trials):
        found = percentile(rng.exponential(size=n), q)
        assert found is not None
        hits += found.ci_low <= true <= found.ci_high
    assert hits / trials >= least


def test_speedup_is_a_ratio_of_medians() -> None:
    rng = np.random.default_rng(2)
    fast = rng.gamma(50, 0.02, 301)
    found = speedup(3 * fast, fast)
    assert found.value == pytest.approx(3)
    assert found.ci_low == pytest.approx(3, rel=0.05)
    assert found.ci_high == pytest.approx(3, rel=0.05)
    back = speedup(fast, 3 * fast)
    assert back.value == pytest.approx(1 / 3)
    assert speedup(3 * fast, fast) == found


def test_speedup_resamples_pairs() -> None:
    """A disturbance that hits both of a pair must not widen the interval; shuffled, it does."""
    rng = np.random.default_rng(3)
    shared = rng.lognormal(0, 0.8, 400)
    fast, slow = shared * rng.normal(1, 0.01, 400), 2 * shared * rng.normal(1, 0.01, 400)
    paired, shuffled = speedup(slow, fast), speedup(rng.permutation(slow), fast)
    assert paired.ci_low <= 2.1
    assert paired.ci_high >= 1.9
    assert (paired.ci_high - paired.ci_low) < 0.3 * (shuffled.ci_high - shuffled.ci_low)


def test_speedup_of_no_pairs() -> None:
    with pytest.raises(ValueError, match="as many samples"):
        speedup([1.0, 2.0], [1.0])


def test_speedup_interval_covers() -> None:
    rng = np.random.default_rng(5)
    hits, trials = 0, 40
    for _ in range(trials):
        found = speedup(rng.lognormal(math.log(2), 0.3, 31), rng.lognormal(0, 0.3, 31))
        hits += found.ci_low <= 2 <= found.ci_high
    assert hits >= 0.85 * trials


def autoregressive(rho: float, n: int, seed: int, level: float = 50.0) -> np.ndarray:
    """Timings around ``level`` ms, each like the one before it to the degree ``rho``; standard deviation 1."""
    rng = np.random.default_rng(seed)
    values, noise = np.empty(n), rng.normal(0, math.sqrt(1 - rho * rho), n)
    values[0] = rng.normal()
    for i in range(1, n):
        values[i] = rho * values[i - 1] + noise[i]
    return values + level


@pytest.mark.parametrize("n", [40, 300, 3000])
@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.3, 0.9])
def test_the_block_length_is_that_of_arch(n: int, rho: float) -> None:
    """Against the package arch, whose code is by other hands."""
    bootstrap = pytest.importorskip("arch.bootstrap", reason="arch (edgetl[dev]) is the independent implementation")
    for seed in range(4):
        series = autoregressive(rho, n, seed)
        wanted = float(bootstrap.optimal_block_length(series)["circular"].iloc[0])
        # arch norms each correlation by its own overlap, which now and then calls another lag significant.
        assert abs(block_length(series) - max(1.0, wanted)) <= max(1.0, 0.1 * wanted)


def test_no_blocks_where_nothing_can_be_told() -> None:
    assert block_length([]) == block_length([3.0]) == block_length([2.0] * 100) == 1


@pytest.mark.parametrize(("rho", "least"), [(0.0, 0.86), (0.8, 0.80)])
def test_dependent_samples_get_an_interval_that_covers(rho: float, least: float) -> None:
    hits, alone, trials = {"p50": 0, "mean": 0}, 0, 60
    for seed in range(trials):
        samples = autoregressive(rho, 400, seed)
        middle, average = percentile(samples, 0.5), mean(samples)
        assert middle is not None
        hits["p50"] += middle.ci_low <= 50 <= middle.ci_high
        hits["mean"] += average.ci_low <= 50 <= average.ci_high
        alone += abs(samples.mean() - 50) <= 1.96 * samples.std() / math.sqrt(400)
    assert min(hits.values()) >= least * trials
    if rho:
        assert alone < 0.7 * trials, "one by one, the same samples would have promised too much"


def test_the_mean_is_numpys() -> None:
    samples = autoregressive(0.5, 101, 3)
    found = mean(samples)
    assert found.value == pytest.approx(samples.mean())
    assert found.ci_low < found.value < found.ci_high
    assert 0 < found.width < 0.1


def test_a_trend_is_found_and_sized() -> None:
    samples = autoregressive(0.3, 600, 1)
    found = trend(list(samples + np.linspace(0, 5, 600)))
    assert found is not None
    assert found.change == pytest.approx(5 / 52.5, rel=0.15)
    assert found.p < 1e-4


def test_a_trend_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy (edgetl[dev]) is the independent implementation")
    for seed in range(20):
        samples = autoregressive(0.4, 500, seed)
        found = trend(list(samples))
        medians = np.median(samples.reshape(TREND_BLOCKS, -1), axis=1)
        assert found is not None
        slope = stats.theilslopes(medians).slope
        assert found.change == pytest.approx(slope * (TREND_BLOCKS - 1) / np.median(medians))
        kendall = stats.kendalltau(np.arange(TREND_BLOCKS), medians, method="asymptotic")
        # Mann and Kendall's test counts half a step less, for continuity.
        assert found.p == pytest.approx(kendall.pvalue, abs=0.06)
        assert found.p >= kendall.pvalue - 1e-9


def test_no_trend_where_there_is_none() -> None:
    assert trend([5.0] * 200) == trend([5.0] * 100)
    flat = trend([5.0] * 200)
    assert flat is not None
    assert (flat.change, flat.p) == (0, 1)
    assert trend(list(range(99))) is None
    wrong = sum(found.p < 0.01 for seed in range(100) if (found := trend(list(autoregressive(0.0, 200, seed)))))
    assert wrong <= 5


@pytest.mark.parametrize("rho", [0.5, 0.8])
def test_dependent_samples_count_for_fewer(rho: float) -> None:
    found = np.mean([effective_samples(autoregressive(rho, 4000, seed), 0.5) for seed in range(10)])
    # Signs of a normal series correlate by 2 / pi asin(rho ** lag).
    lags = 2 / np.pi * np.arcsin(rho ** np.arange(1, 200))
    assert found == pytest.approx(4000 / (1 + 2 * lags.sum()), rel=0.2)


def test_independent_samples_mostly_count_whole() -> None:
    rng = np.random.default_rng(3)
    found = [effective_samples(rng.exponential(size=400), 0.9) for _ in range(40)]
    assert np.median(found) == 400


def test_a_percentile_that_dependent_samples_cannot_tell_is_refused() -> None:
    slow = np.repeat(np.random.default_rng(4).exponential(size=40), 20)
    assert len(slow) > samples_needed(0.99)
    assert percentile(slow, 0.99) is None
    assert percentile(slow, 0.5) is not None
