"""Comparing an attempt with the trained model on few images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.certify import expected_difference

LABELS = np.arange(200) % 4


def answers(seed: int, right: float) -> np.ndarray:
    """Logits with a margin of about 3 for the true class on a share of the images, and for the next one elsewhere."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 0.3, (len(LABELS), 4)).astype(np.float32)
    chosen = np.where(np.arange(len(LABELS)) < right * len(LABELS), LABELS, (LABELS + 1) % 4)
    logits[np.arange(len(LABELS)), chosen] += 3
    return logits


def test_clear_answers_count_as_right_or_wrong() -> None:
    before, after = answers(0, 0.95), answers(1, 0.80)
    assert expected_difference(before, after, LABELS) == pytest.approx(-0.15, abs=0.015)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(seed=st.integers(0, 1000), scale=st.floats(0.8, 1.25), shift=st.floats(-5, 5))
def test_confidence_alone_does_not_count(seed: int, scale: float, shift: float) -> None:
    before = answers(seed, 0.9)
    assert abs(expected_difference(before, (scale * before + shift).astype(np.float32), LABELS)) < 1e-3


@settings(deadline=None, derandomize=True, max_examples=30)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 60))
def test_it_is_the_mean_over_all_pairs(seed: int, n: int) -> None:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, n)
    before, after = draw.normal(size=(2, n, 2)).astype(np.float32)
    rows = np.arange(n)
    m, d = ((x[rows, labels] - x[rows, 1 - labels]).astype(np.float64) for x in (before, after))
    slope = (m * d).sum() / (m * m).sum()
    pairs = [slope * m[i] + (d[j] - slope * m[j]) > 1e-9 for i in range(n) for j in range(n)]
    assert expected_difference(before, after, labels) == pytest.approx(np.mean(pairs) - np.mean(m > 0), abs=2 / n**2)


def test_it_is_less_noisy_than_counting_flips() -> None:
    """The same noise drawn again and again on 200 images near the border."""
    draw = np.random.default_rng(0)
    margins = draw.normal(1.5, 1.0, 200)
    before = np.zeros((200, 2), np.float32)
    before[:, 0] = margins
    labels = np.zeros(200, np.int64)
    counted, expected = [], []
    for _ in range(200):
        after = before.copy()
        after[:, 0] += draw.normal(0, 0.5, 200).astype(np.float32)
        counted.append(np.mean(after[:, 0] > 0) - np.mean(margins > 0))
        expected.append(expected_difference(before, after, labels))
    assert np.std(expected) < 0.5 * np.std(counted)
    assert np.mean(expected) == pytest.approx(np.mean(counted), abs=0.003)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 60), neighbours=st.integers(1, 60))
def test_it_is_the_mean_over_the_nearest_margins(seed: int, n: int, neighbours: int) -> None:
    draw = np.random.default_rng(seed)
    before, after = draw.normal(size=(2, n, 2)).astype(np.float32)
    m = before[:, 0].astype(np.float64) - before[:, 1]
    d = after[:, 0].astype(np.float64) - after[:, 1]
    slope, order = (m * d).sum() / (m * m).sum(), np.argsort(m)
    rest, size, right = (d - slope * m)[order], min(neighbours, n), []
    for place, row in enumerate(order):
        first = min(max(place - size // 2, 0), n - size)
        right.append(np.mean([slope * m[row] + r > 1e-9 for r in rest[first : first + size]]))
    found = expected_difference(before, after, np.zeros(n, np.int64), neighbours)
    assert found == pytest.approx(np.mean(right) - np.mean(m > 0), abs=3 / n)
    if neighbours == 1:
        assert found == pytest.approx(np.mean(d > 0) - np.mean(m > 0), abs=1e-9)


def test_what_learned_is_foretold_among_neighbours() -> None:
    """Weights fitted again keep what is clear, and mend what is close: all pairs foretell a loss that is none."""
    draw = np.random.default_rng(0)
    margins = draw.normal(2.0, 1.5, 300)
    learned = margins + np.where(np.abs(margins) < 0.5, 0.2, 0.0) + draw.normal(0, 0.8, 300) * np.abs(margins)
    before, after = (np.stack([m, np.zeros(300)], 1).astype(np.float32) for m in (margins, learned))
    labels, truth = np.zeros(300, np.int64), np.mean(learned > 0) - np.mean(margins > 0)
    near, all_pairs = (expected_difference(before, after, labels, n) for n in (20, None))
    assert abs(near - truth) < 0.02 < abs(all_pairs - truth)


def test_what_is_not_a_number_is_not_good() -> None:
    broken = np.full((len(LABELS), 4), np.nan, np.float32)
    assert not expected_difference(answers(0, 0.9), broken, LABELS) > -1
