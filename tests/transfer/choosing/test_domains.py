"""Distances between sets of samples, against an independent implementation and against chance."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2_contingency
from sklearn.metrics.pairwise import rbf_kernel

from edgetl.transfer.choosing.domains import PERMUTATIONS, label_shift, mmd, proxy_a_distance


def drawn(seed: int, moved: float = 0.0, n: int = 120, d: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (n, d)) + moved


def test_sets_of_one_distribution_are_not_apart() -> None:
    assert abs(proxy_a_distance(drawn(0), drawn(1))) < 0.4
    assert mmd(drawn(0), drawn(1)).p > 0.05


def test_sets_that_differ_are_told_apart_the_more_they_differ() -> None:
    found = [proxy_a_distance(drawn(0), drawn(1, moved)) for moved in (0.1, 0.3, 1.0, 3.0)]
    assert found == sorted(found)
    assert found[-1] == pytest.approx(2.0)
    assert mmd(drawn(0), drawn(1, 0.5)).p == 1 / (1 + PERMUTATIONS)


def test_the_order_of_samples_does_not_count() -> None:
    one, other = (x[np.argsort(x[:, 0])] for x in (drawn(0), drawn(1)))
    assert abs(proxy_a_distance(one, other)) < 0.4, "folds are drawn, not cut"


def test_mmd_equals_its_definition() -> None:
    x, y = drawn(2, n=30), drawn(3, 0.4, n=40)
    both = np.concatenate([x, y])
    squared = ((both[:, None] - both[None]) ** 2).sum(-1)
    gamma = 1 / np.median(squared[np.triu_indices(len(both), 1)])
    xx, yy, xy = rbf_kernel(x, x, gamma), rbf_kernel(y, y, gamma), rbf_kernel(x, y, gamma)
    unbiased = (xx.sum() - 30) / (30 * 29) + (yy.sum() - 40) / (40 * 39) - 2 * xy.mean()
    assert mmd(x, y).value == pytest.approx(unbiased, abs=1e-12)


def test_p_values_of_equal_sets_are_uniform() -> None:
    found = [mmd(drawn(2 * k, n=25, d=3), drawn(2 * k + 1, n=25, d=3)).p for k in range(100)]
    assert 0.01 <= np.mean(np.array(found) <= 0.1) <= 0.2


def test_label_shift() -> None:
    same = label_shift(np.arange(90) % 3, np.arange(60) % 3, 3)
    assert same.value == pytest.approx(0.0)
    assert same.p == 1.0
    none = label_shift(np.zeros(20, int), np.ones(20, int), 2)
    assert none.value == 1.0
    assert none.p == 1 / (1 + PERMUTATIONS)


def test_label_shift_finds_what_a_chi_squared_test_finds() -> None:
    rng, agree = np.random.default_rng(5), 0
    for _ in range(40):
        one, other = rng.choice(3, 80, p=[0.5, 0.3, 0.2]), rng.choice(3, 60, p=[0.35, 0.35, 0.3])
        table = np.stack([np.bincount(one, minlength=3), np.bincount(other, minlength=3)])
        agree += (chi2_contingency(table).pvalue < 0.05) == (label_shift(one, other, 3).p < 0.05)
    assert agree >= 34
