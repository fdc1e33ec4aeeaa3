"""LogME, LEEP and NLEEP against scikit-learn's evidence, and against what they must do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import BayesianRidge

from edgetl.transfer.choosing.transferability import leep, logme, nleep, one_hot


def evidence(x: np.ndarray, y: np.ndarray) -> float:
    """Of scikit-learn's Bayesian ridge, without its priors' terms, a sample."""
    flat = dict.fromkeys(("alpha_1", "alpha_2", "lambda_1", "lambda_2"), 0.0)
    fitted = BayesianRidge(max_iter=5000, tol=1e-12, fit_intercept=False, compute_score=True, **flat).fit(x, y)
    return float(fitted.scores_[-1]) / len(y)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(8, 60), st.integers(1, 80), st.floats(0.05, 3.0), st.integers(0, 10_000))
def test_logme_is_the_evidence_that_bayesian_ridge_maximises(n: int, d: int, noise: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (n, d))
    y = x @ rng.normal(0, 1, (d, 2)) / np.sqrt(d) + noise * rng.normal(0, 1, (n, 2))
    wanted = np.mean([evidence(x, column) for column in y.T])
    # Both climb by fixed points; where the surface is flat to the side of an infinite precision, neither gets there.
    assert logme(x, y) >= wanted - 1e-4
    if d < n // 2:
        assert logme(x, y) == pytest.approx(wanted, abs=1e-4)


def test_logme_prefers_features_that_tell_the_classes_apart() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    good = np.eye(3)[labels] @ rng.normal(0, 1, (3, 20)) + 0.3 * rng.normal(0, 1, (300, 20))
    found = [logme(good + scale * rng.normal(0, 1, good.shape), one_hot(labels)) for scale in (0, 1, 4, 16)]
    assert found == sorted(found, reverse=True)
    assert logme(10 * good, one_hot(labels)) == pytest.approx(found[0], abs=1e-6), "the unit does not count"


def test_leep_of_a_source_that_knows_the_classes_and_of_one_that_knows_nothing() -> None:
    labels = np.arange(60) % 3
    assert leep(np.eye(3)[labels], labels) == pytest.approx(0.0, abs=1e-9)
    assert leep(np.full((60, 5), 0.2), labels) == pytest.approx(np.log(1 / 3))
    assert leep(np.eye(3)[(labels + 1) % 3], labels) == pytest.approx(0.0, abs=1e-9), "names do not count"


def test_leep_by_hand() -> None:
    answers, labels = np.array([[0.75, 0.25], [0.25, 0.75], [0.25, 0.75], [0.75, 0.25]]), np.array([0, 0, 1, 1])
    # Each source class lies with each class equally often: P(y|z) is a half throughout.
    assert leep(answers, labels) == pytest.approx(np.log(0.5))


def test_nleep_prefers_clusters_that_are_classes() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(240) % 4
    apart = 6 * np.eye(4)[labels] @ rng.normal(0, 1, (4, 12)) + rng.normal(0, 1, (240, 12))
    assert nleep(apart, labels) > -0.2
    assert nleep(rng.normal(0, 1, (240, 12)), labels) < nleep(apart, labels) - 0.5
    assert nleep(apart, labels, seed=3) == nleep(apart, labels, seed=3)
