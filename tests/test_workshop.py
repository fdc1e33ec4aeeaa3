"""Comparing an attempt with the trained model on few images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.workshop import soft_difference

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
    assert soft_difference(before, after, LABELS) == pytest.approx(-0.15, abs=0.005)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(seed=st.integers(0, 1000), scale=st.floats(0.8, 1.25), shift=st.floats(-5, 5))
def test_confidence_alone_hardly_counts(seed: int, scale: float, shift: float) -> None:
    before = answers(seed, 0.9)
    assert abs(soft_difference(before, (scale * before + shift).astype(np.float32), LABELS)) < 0.005


def test_noise_that_flips_nothing_yet_is_seen_coming() -> None:
    """Margins pushed to the border: accuracy is what it was, and the soft one is not."""
    before = answers(0, 1.0)
    after = before.copy()
    rows = np.arange(0, len(LABELS), 4)
    others = after[rows].copy()
    others[np.arange(len(rows)), LABELS[rows]] = -np.inf
    after[rows, LABELS[rows]] = others.max(axis=1) + 0.01
    assert (after.argmax(axis=1) == LABELS).all()
    assert soft_difference(before, after, LABELS) == pytest.approx(-0.12, abs=0.02)


def test_what_is_not_a_number_is_not_good() -> None:
    broken = np.full((len(LABELS), 4), np.nan, np.float32)
    assert not soft_difference(answers(0, 0.9), broken, LABELS) > -1
