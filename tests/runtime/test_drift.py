"""The test behind the monitor: what it computes, how often it errs, and what it is told."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgetl.base.errors import BundleError, CertifyError
from edgetl.core.sketch import MOST_SAMPLES, Sketch
from edgetl.runtime import drift
from edgetl.runtime.drift import DriftTest


def sketch(values: np.ndarray) -> Sketch:
    return Sketch(len(values), {f"c{i}": tuple(sorted(column)) for i, column in enumerate(values.T.tolist())})


def told(row: np.ndarray) -> dict[str, float]:
    return {f"c{i}": float(value) for i, value in enumerate(row)}


def naively(certified: list[float], stream: list[float], seed: int) -> float:
    """The evidence of one characteristic, by the definition, in plain Python."""
    rng, pool, ranks = np.random.default_rng(seed), list(certified), []
    for value in stream:
        larger, equal = sum(x > value for x in pool), sum(x == value for x in pool)
        ranks.append((larger + rng.random() * (equal + 1)) / (len(pool) + 1))
        pool.append(value)
    bets = [(0, 0), (0.5, 0), (-0.5, 0), (0.95, 0), (-0.95, 0), (0, 0.95), (0, 1.9), (0, -0.9)]
    total, left = 0.0, 1.0
    for j, start in enumerate([0, *(2**k for k in range(14))]):
        capital = [1 / len(bets)] * len(bets)
        for p in ranks[start:]:
            dealt = [0.99 * c + 0.01 * sum(capital) / len(bets) for c in capital]
            capital = [
                c * (1 + a * (2 * p - 1) + b * (6 * p * p - 6 * p + 1))
                for c, (a, b) in zip(dealt, bets, strict=True)
            ]  # fmt: skip
        total += sum(capital) / ((j + 1) * (j + 2))
        left -= 1 / ((j + 1) * (j + 2))
    return total + left


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=12),
    st.lists(st.integers(0, 6), min_size=1, max_size=20),
    st.integers(0, 99),
)
def test_the_evidence_is_what_its_definition_says(certified: list[int], stream: list[int], seed: int) -> None:
    test = DriftTest(Sketch(len(certified), {"c0": tuple(map(float, sorted(certified)))}), 1e-9, seed)
    for value in stream:
        test.add({"c0": float(value), "unknown": 1.0})
    assert math.isclose(test.evidence, naively([*map(float, certified)], [*map(float, stream)], seed), rel_tol=1e-9)


@pytest.mark.parametrize("bets", [drift._BETS])
def test_a_bet_wins_nothing_on_average_and_never_owes(bets: np.ndarray) -> None:
    p = (np.arange(100_000) + 0.5) / 100_000
    payoffs = 1 + np.outer(2 * p - 1, bets[:, 0]) + np.outer(6 * p**2 - 6 * p + 1, bets[:, 1])
    assert np.allclose(payoffs.mean(axis=0), 1)
    assert payoffs.min() >= 0
    assert drift._WEIGHTS.sum() < 1


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Ville's inequality at alpha 0.2: of 150 streams 30 would be expected at most; binomial, 99.9 % are below 46."""
    alarms = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        test = DriftTest(sketch(rng.normal(size=(40, 3))), 0.2, seed)
        alarms += any(test.add(told(row)) for row in rng.normal(size=(150, 3)))
    assert alarms < 46


def test_a_shift_is_seen_soon_after_it_began() -> None:
    rng = np.random.default_rng(1)
    test = DriftTest(sketch(rng.normal(size=(200, 4))), 0.01)
    for row in rng.normal(size=(300, 4)):
        assert not test.add(told(row))
    for row in np.add(rng.normal(size=(100, 4)), [0, 2, 0, 0]):
        test.add(told(row))
    assert test.alarm_at is not None
    assert 300 < test.alarm_at < 360
    assert test.departures()[0].name == "c1"
    assert test.n == 400


def test_it_begins_anew_and_is_stricter_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "SEGMENT", 64)
    rng = np.random.default_rng(2)
    test = DriftTest(sketch(rng.normal(size=(30, 2))), 0.05)
    thresholds = set()
    for row in rng.normal(size=(200, 2)):
        test.add(told(row))
        thresholds.add(test.threshold)
    assert thresholds == {40.0, 80.0, 160.0, 320.0}
    assert len(test._pools["c0"]) == 30 + 200 % 64


def test_the_same_samples_give_the_same_evidence() -> None:
    rows = np.random.default_rng(3).normal(size=(60, 2))
    tests = [DriftTest(sketch(rows[:20]), 0.05, seed=4) for _ in range(2)]
    for test in tests:
        for row in rows[20:]:
            test.add(told(row))
    assert tests[0].evidence == tests[1].evidence


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, math.nan])
def test_alpha_out_of_range(alpha: float) -> None:
    with pytest.raises(CertifyError, match="alpha"):
        DriftTest(Sketch(1, {"c0": (1.0,)}), alpha)


def test_a_sample_without_a_characteristic() -> None:
    with pytest.raises(CertifyError, match="c0"):
        DriftTest(Sketch(1, {"c0": (1.0,)})).add({"c1": 2.0})


@pytest.mark.parametrize(
    ("n", "values"),
    [
        (0, {"a": ()}),
        (2, {"a": (1.0,)}),
        (2, {"a": (2.0, 1.0)}),
        (2, {"a": (1.0, math.inf)}),
        (3, {"a": (1.0, math.nan, 2.0)}),
        (2, {}),
        (MOST_SAMPLES + 1, {"a": (1.0,) * (MOST_SAMPLES + 1)}),
        (1, {f"c{i}": (1.0,) for i in range(300)}),
    ],
)
def test_no_sketch(n: int, values: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(BundleError, match="sketch"):
        Sketch(n, values)
