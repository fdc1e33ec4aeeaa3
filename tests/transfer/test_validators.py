"""Judging without labels: where answers are sure, various and alike, against numpy, scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from sklearn.metrics.pairwise import cosine_similarity

from edgetl.transfer.scores import Scores
from edgetl.transfer.strategies import adaptation
from edgetl.transfer.validators import NAMES, VALIDATORS, certainty, density, information, judged, nuclear_norm


def logits(seed: int, n: int = 12, classes: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (n, classes)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30), n=st.integers(2, 40), classes=st.integers(2, 9))
def test_each_is_its_definition(seed: int, n: int, classes: int) -> None:
    x = logits(seed, n, classes).astype(np.float64)
    p = softmax(x, axis=1)
    mean = entropy(p, axis=1).mean()
    assert certainty(x) == pytest.approx(-mean)
    # Mutual information is the mean divergence of each answer from the average one.
    assert information(x) == pytest.approx((p * (log_softmax(x, axis=1) - np.log(p.mean(0)))).sum(1).mean())
    assert nuclear_norm(x) == pytest.approx(np.linalg.norm(p, "nuc") / np.sqrt(n * min(n, classes)))
    near = cosine_similarity(p) / 0.05
    rows = [softmax(np.delete(row, place)) for place, row in enumerate(near)]
    assert density(x) == pytest.approx(np.mean([entropy(row) for row in rows]))


def test_sure_and_various_answers_are_best() -> None:
    various, alike = 50 * np.eye(4)[np.arange(20) % 4], 50 * np.eye(4)[np.zeros(20, int)]
    unsure = np.zeros((20, 4))
    assert information(various) == pytest.approx(np.log(4))
    assert nuclear_norm(various) == pytest.approx(1.0)
    for value in (information, nuclear_norm):
        assert value(various) > max(value(alike), value(unsure))
    # What is sure of one class for everything, certainty alone does not see through.
    assert certainty(alike) == pytest.approx(certainty(various))


def test_a_validator_ranks_and_the_source_s_own_metric_is_kept() -> None:
    before = Scores({"accuracy": 0.9}, 0.3, 10, "accuracy")
    found = judged(before, VALIDATORS["nuclear-norm"], logits(0))
    assert (found.ranked, found.metrics["accuracy"]) == ("target_nuclear_norm", 0.9)
    assert found.value == pytest.approx(nuclear_norm(logits(0)))
    both = judged(before, VALIDATORS["both"], logits(0)).value
    assert both == pytest.approx(0.9 + information(logits(0)) / np.log(4))
    assert judged(before, VALIDATORS["source"], logits(0)) == before
    # Judged at the temperature of the source, answers that are half as sure everywhere are the same.
    labels = logits(2).argmax(1)
    labels[:3] = (labels[:3] + 1) % 4
    sure = [judged(before, VALIDATORS["information"], x * logits(0), (x * logits(2), labels)).value for x in (1, 0.5)]
    assert sure[0] == pytest.approx(sure[1], rel=0.03)
    assert judged(before, None, None) == before


def test_strategies_name_the_validators_that_there_are() -> None:
    assert adaptation.VALIDATORS == NAMES
