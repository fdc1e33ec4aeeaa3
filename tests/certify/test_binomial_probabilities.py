"""The numpy binomial against scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from edgetl.certify.binomial import binomial_cdf, binomial_pmf, log_gamma

TABLES = st.integers(1, 1_000_000).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.just(n), st.floats(1e-7, 1 - 1e-7))
)


@given(x=st.floats(1, 1e6))
@settings(deadline=None, derandomize=True)
def test_log_gamma_is_that_of_the_standard_library(x: float) -> None:
    assert float(log_gamma(x)) == pytest.approx(math.lgamma(x), rel=1e-13, abs=1e-12)


@given(table=TABLES)
@settings(deadline=None, derandomize=True, max_examples=300)
def test_cdf_and_pmf_agree_with_scipy(table: tuple[int, int, float]) -> None:
    k, n, p = table
    assert float(binomial_cdf(k, n, p)) == pytest.approx(stats.binom.cdf(k, n, p), rel=1e-7, abs=1e-13)
    assert float(binomial_pmf(k, n, p)) == pytest.approx(stats.binom.pmf(k, n, p), rel=1e-7, abs=1e-200)


def test_cdf_near_the_mean_of_large_samples() -> None:
    rng = np.random.default_rng(0)
    n = rng.integers(10, 1_000_000, 500)
    k = np.floor(n * rng.random(500))
    p = np.clip((k + rng.normal(size=500) * np.sqrt(k + 1)) / n, 1e-9, 1 - 1e-9)
    np.testing.assert_allclose(binomial_cdf(k, n, p), stats.binom.cdf(k, n, p), atol=1e-8)


def test_small_probabilities_keep_their_relative_accuracy() -> None:
    lost = np.array([10, 100, 1000])
    np.testing.assert_allclose(binomial_cdf(0, lost, 0.5), 0.5**lost, rtol=1e-9)
    assert float(binomial_cdf(3, 400, 0.3)) == pytest.approx(stats.binom.cdf(3, 400, 0.3), rel=1e-9)


def test_ends_of_the_range() -> None:
    np.testing.assert_array_equal(
        binomial_cdf([-1, 5, 6, 0, 4, 0], 5, [0.5, 0.5, 0.5, 0.0, 1.0, 1.0]), [0, 1, 1, 1, 0, 0]
    )
    assert float(binomial_cdf(0, 0, 0.3)) == 1.0


def test_broadcasting_gives_the_outer_table() -> None:
    k, p = np.arange(6), np.array([[0.1], [0.7]])
    np.testing.assert_allclose(binomial_cdf(k, 5, p), special.bdtr(k, 5, p), rtol=1e-12)
