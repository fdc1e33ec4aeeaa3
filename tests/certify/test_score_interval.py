"""Tango's interval against published figures, other software and an independent numeric profile likelihood."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm

from edgetl.certify import score_interval, score_statistic


@st.composite
def tables(draw: st.DrawFn, most: int = 1_000_000) -> tuple[int, int, int]:
    """(lost, gained, n), small tables as often as large ones."""
    n = draw(st.one_of(st.integers(1, 60), st.integers(1, most)))
    lost = draw(st.one_of(st.integers(0, min(n, 12)), st.integers(0, n)))
    gained = draw(st.one_of(st.integers(0, min(n - lost, 12)), st.integers(0, n - lost)))
    return lost, gained, n


# Each: lost, gained, n, one-sided alpha, lower, upper, decimals of the source.
PUBLISHED = [
    # Fagerland, Lydersen and Laake (2014), Statistics in Medicine 33, 2850-2875: airway hyper-responsiveness before
    # and after stem cell transplantation (Bentur et al. 2009), table (1, 1, 7, 12), Tango's 95 % interval.
    pytest.param(7, 1, 21, 0.025, -0.517, -0.026, 3, id="Fagerland-2014-Bentur"),
    # Output of the R package PropCIs 0.3-0 as quoted in public test suites: scoreci.mp(25, 28, 618, 0.90) and
    # scoreci.mp(0, 7, 14, 0.95), whose arguments are lost, gained, n.
    pytest.param(25, 28, 618, 0.05, -0.0148, 0.0247, 4, id="PropCIs-25-28-618"),
    pytest.param(0, 7, 14, 0.025, 0.177034, 0.732008, 6, id="PropCIs-0-7-14"),
]


@pytest.mark.parametrize(("lost", "gained", "n", "alpha", "lower", "upper", "decimals"), PUBLISHED)
def test_published_intervals(
    lost: int, gained: int, n: int, alpha: float, lower: float, upper: float, decimals: int
) -> None:
    low, high = score_interval(lost, gained, n, alpha)
    assert (round(low, decimals), round(high, decimals)) == (lower, upper)


# Output of scoreci.mp of the R package PropCIs 0.3.0 (R 4.6.1), as another project's tests quote it in full precision:
# gained, lost, n, two-sided level, lower, upper. It searches with a step, and is good to about 1e-6.
PROPCIS = [
    (3, 2, 14, 0.95, -0.261078, 0.388996),
    (1, 0, 14, 0.95, -0.159262, 0.314687),
    (0, 0, 14, 0.95, -0.215311, 0.215311),
    (13, 1, 14, 0.95, 0.370626, 0.974556),
    (14, 0, 14, 0.95, 0.569378, 1.0),
    (2, 9, 20, 0.95, -0.601632, -0.027414),
    (1, 1, 2, 0.95, -0.810938, 0.810938),
    (25, 12, 200, 0.95, 0.005636, 0.126941),
    (5, 5, 16, 0.90, -0.313439, 0.313439),
    (10, 3, 50, 0.90, 0.023381, 0.260745),
    (4, 1, 28, 0.90, -0.030011, 0.256197),
    (6, 2, 42, 0.90, -0.017779, 0.216240),
    (25, 12, 200, 0.90, 0.015476, 0.116447),
]


@pytest.mark.parametrize(("gained", "lost", "n", "level", "lower", "upper"), PROPCIS)
def test_intervals_of_another_implementation(
    gained: int, lost: int, n: int, level: float, lower: float, upper: float
) -> None:
    assert score_interval(lost, gained, n, (1 - level) / 2) == pytest.approx((lower, upper), abs=2e-6)


def closed_form(lost: int, gained: int, n: int, alpha: float) -> tuple[float, float]:
    """Yang, Sun and Hardin (2013), Statistics in Medicine 32, 1336-1342: the bounds are roots of a polynomial.

    The score equation (n d - (gained - lost))^2 = z^2 n (2 q + d' (1 - d')) has the square root of q's quadratic in it;
    squared once more it is of the fourth degree. Here it is made and solved with numpy's polynomials.
    """
    from numpy.polynomial import Polynomial

    d, z2 = Polynomial([0.0, 1.0]), norm.isf(alpha) ** 2
    # With loss x = -d: q = (root - b) / (4 n), b = (2 n - lost + gained) x - (lost + gained).
    x = -d
    b = (2 * n - lost + gained) * x - (lost + gained)
    square = b * b + 8 * n * gained * x * (1 - x)
    rest = (n * d - (gained - lost)) ** 2 / (z2 * n) - x * (1 - x) + b / (2 * n)
    roots = (rest * rest - square / (4 * n * n)).roots()
    real = np.sort(roots[np.abs(roots.imag) < 1e-7].real)
    return float(real[0]), float(real[-1])


@pytest.mark.parametrize(
    ("lost", "gained", "n"), [(7, 1, 21), (12, 8, 1000), (3, 3, 538), (40, 25, 2470), (250, 300, 5000), (25, 28, 618)]
)
def test_interval_agrees_with_the_non_iterative_one(lost: int, gained: int, n: int) -> None:
    assert score_interval(lost, gained, n, 0.05) == pytest.approx(closed_form(lost, gained, n, 0.05), abs=1e-7)


def test_worked_example_of_tangos_paper() -> None:
    """Section 6.1, soft contact lenses: 43 both effective, 1 under the standard only, none under the new only.

    Printed there: Z = 1.709 for a margin of 0.1, p = 0.044, lower 90 % limit -0.096.
    """
    z = float(score_statistic(1, 0, 44, -0.1))
    assert z == pytest.approx(1.709, abs=5e-4)
    assert norm.sf(z) == pytest.approx(0.044, abs=5e-4)
    assert round(score_interval(1, 0, 44, 0.05)[0], 3) == -0.096


def profile_score(lost: int, gained: int, n: int, difference: float) -> float:
    """The score statistic with the nuisance rate found by maximising the trinomial likelihood numerically."""

    def negative_likelihood(rate: float) -> float:
        lost_rate, same = rate - difference, 1 - 2 * rate + difference
        terms = ((gained, rate), (lost, lost_rate), (n - lost - gained, same))
        return -sum(count * math.log(max(p, 1e-300)) for count, p in terms if count)

    low, high = max(0.0, difference), (1 + difference) / 2
    rate = minimize_scalar(negative_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
    # A bounded search never touches its ends, where the maximum lies when a count is 0.
    rate = min((low, high, rate), key=negative_likelihood)
    variance = 2 * rate - difference - difference**2
    return ((gained - lost) / n - difference) * math.sqrt(n / variance)


def profile_interval(lost: int, gained: int, n: int, alpha: float) -> tuple[float, float]:
    """Both bounds by inverting :func:`profile_score`."""
    observed, critical = (gained - lost) / n, norm.isf(alpha)
    ends = []
    for sign, edge in ((1, -1.0), (-1, 1.0)):
        if observed == edge:
            ends.append(edge)
            continue
        inside, outside = observed - sign * 1e-9, edge + sign * 1e-9
        ends.append(brentq(lambda d, s=sign: profile_score(lost, gained, n, d) - s * critical, inside, outside))
    return ends[0], ends[1]


@pytest.mark.parametrize("alpha", [0.05, 0.025])
@pytest.mark.parametrize(
    ("lost", "gained", "n"),
    [(0, 0, 100), (1, 0, 44), (7, 1, 21), (12, 8, 1000), (3, 3, 538), (0, 9, 30), (40, 25, 2470), (250, 300, 5000)],
)
def test_interval_agrees_with_a_numeric_profile_likelihood(lost: int, gained: int, n: int, alpha: float) -> None:
    assert score_interval(lost, gained, n, alpha) == pytest.approx(profile_interval(lost, gained, n, alpha), abs=2e-6)


@given(table=tables(), alpha=st.floats(1e-6, 0.49))
@example(table=(0, 0, 1), alpha=0.05)
@example(table=(1, 0, 1), alpha=0.05)
@example(table=(0, 0, 1_000_000), alpha=0.05)
@example(table=(500_000, 500_000, 1_000_000), alpha=0.05)
@settings(deadline=None, derandomize=True, max_examples=200)
def test_bounds_solve_the_score_equation_and_enclose_the_observed(table: tuple[int, int, int], alpha: float) -> None:
    lost, gained, n = table
    low, high = score_interval(lost, gained, n, alpha)
    observed = (gained - lost) / n
    assert -1 <= low <= observed <= high <= 1
    critical = norm.isf(alpha)
    for bound, expected, edge in ((low, critical, -1.0), (high, -critical, 1.0)):
        # At the edge of the range, or where the statistic is too steep for a float, nothing can be solved.
        if abs(bound - edge) > 1e-9:
            assert float(score_statistic(lost, gained, n, bound)) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@given(table=tables(), alpha=st.floats(0.001, 0.4))
@settings(deadline=None, derandomize=True)
def test_exchanging_the_models_mirrors_the_interval(table: tuple[int, int, int], alpha: float) -> None:
    lost, gained, n = table
    low, high = score_interval(lost, gained, n, alpha)
    assert score_interval(gained, lost, n, alpha) == (-high, -low)


@given(table=tables(), first=st.floats(-0.999, 0.999), second=st.floats(-0.999, 0.999))
@settings(deadline=None, derandomize=True, max_examples=300)
def test_statistic_falls_with_the_difference_and_with_losses_and_rises_with_gains(
    table: tuple[int, int, int], first: float, second: float
) -> None:
    lost, gained, n = table
    low, high = sorted((first, second))
    tolerance = 1e-7

    def z(lost: int, gained: int, difference: float) -> float:
        return float(score_statistic(lost, gained, n, difference))

    assert z(lost, gained, low) >= z(lost, gained, high) - tolerance * (1 + abs(z(lost, gained, high)))
    if lost + gained < n:
        here = z(lost, gained, low)
        assert z(lost + 1, gained, low) <= here + tolerance * (1 + abs(here))
        assert z(lost, gained + 1, low) >= here - tolerance * (1 + abs(here))


@given(lost=st.integers(0, 500), gained=st.integers(0, 500), more=st.integers(0, 10_000))
@settings(deadline=None, derandomize=True)
def test_statistic_at_zero_is_that_of_mcnemar(lost: int, gained: int, more: int) -> None:
    expected = (gained - lost) / math.sqrt(gained + lost) if gained + lost else 0.0
    n = max(lost + gained + more, 1)
    assert float(score_statistic(lost, gained, n, 0.0)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 10, 1000, 1_000_000])
def test_without_discordance_the_bounds_have_a_closed_form(n: int) -> None:
    z = norm.isf(0.05)
    bound = z * z / (n + z * z)
    assert score_interval(0, 0, n, 0.05) == pytest.approx((-bound, bound), rel=1e-9)


def test_statistic_broadcasts() -> None:
    lost, gained = np.arange(4)[:, None], np.arange(3)
    z = score_statistic(lost, gained, 50, -0.02)
    assert z.shape == (4, 3)
    assert z[2, 1] == score_statistic(2, 1, 50, -0.02)
