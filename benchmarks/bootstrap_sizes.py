"""How often the bootstraps pass a model that lost exactly the margin, by simulation; see ``size_simulation.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from edgetl.certify import MetricTest, paired_test
from edgetl.tasks import TASKS

ALPHA = 0.05
TRIALS = 1000
BCA_TRIALS = 300

Floats = npt.NDArray[np.float64]


def tested(task: str, answer: str, arrays: tuple[Any, Any, Any], metric: str, margin: float) -> MetricTest:
    """The paired test of (reference, deployed, labels); ``answer`` is what the task calls the first two."""
    judged, labels = TASKS[task], arrays[2]
    before, after = (judged.evidence({answer: values}, labels) for values in arrays[:2])
    return paired_test(judged.metrics[metric], before, after, margin, ALPHA)


# --- balanced accuracy, by simulation


def balanced_rates(classes: int, discordance: float, loss: float, where: str) -> tuple[Floats, Floats]:
    """(lost, gained) rates of each class, with a mean loss of ``loss``: even, or all in the first class."""
    losses = np.full(classes, loss) if where == "even" else np.array([loss * classes] + [0.0] * (classes - 1))
    total = np.maximum(losses, discordance)
    return (total + losses) / 2, (total - losses) / 2


def draw_classes(sizes: Sequence[int], rates: tuple[Floats, Floats], rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """(reference, deployed, labels) with random flips; the reference is always right but where images are gained."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    other, u = (labels + 1) % len(sizes), rng.random(len(labels))
    lost, gained = u < rates[0][labels], u > 1 - rates[1][labels]
    return np.where(gained, other, labels), np.where(lost, other, labels), labels


def plain_balanced_bound(reference: Any, deployed: Any, labels: Any, rng: np.random.Generator) -> float:
    """Lower bound of the plain percentile bootstrap within classes, written without the package."""
    sizes = np.bincount(labels)
    change = (deployed == labels).astype(int) - (reference == labels)
    tables = np.stack([np.bincount(labels, change == value, len(sizes)) for value in (-1, 1, 0)], axis=1)
    drawn = rng.multinomial(sizes, tables / sizes[:, None], size=(1000, len(sizes)))
    return float(np.quantile(((drawn[..., 1] - drawn[..., 0]) / sizes).mean(axis=1), ALPHA))


BALANCED: tuple[tuple[str, Sequence[int], float, str], ...] = (
    ("10 classes of 10", (10,) * 10, 0.05, "even"),
    ("10 classes of 30, only losses", (30,) * 10, 0.01, "even"),
    ("10 classes of 100", (100,) * 10, 0.02, "even"),
    ("10 classes of 100", (100,) * 10, 0.1, "even"),
    ("10 classes of 500", (500,) * 10, 0.05, "even"),
    ("10 classes of 30 to 1,000", (30, 50, 80, 120, 180, 250, 350, 500, 700, 1000), 0.05, "even"),
    (
        "10 classes of 30 to 1,000, all lost in the smallest",
        (30, 50, 80, 120, 180, 250, 350, 500, 700, 1000),
        0.02,
        "one",
    ),
    ("200 classes of 5", (5,) * 200, 0.05, "even"),
)


def balanced_cells(margin: float = 0.01) -> list[dict[str, Any]]:
    """Rates of a pass at a true loss of the margin, by the package's bound and by the plain percentile one."""
    cells = []
    for name, sizes, discordance, where in BALANCED:
        rng = np.random.default_rng(7)
        rates = balanced_rates(len(sizes), discordance, margin, where)
        passed = plain = 0
        for _ in range(TRIALS):
            arrays = draw_classes(sizes, rates, rng)
            passed += tested("classification", "class", arrays, "balanced-accuracy", margin).verdict == "pass"
            plain += plain_balanced_bound(*arrays, rng) > -margin
        cells.append(simulated({"data": name, "discordance": discordance, "margin": margin}, passed, plain))
    return cells


def simulated(cell: dict[str, Any], passed: int, plain: int) -> dict[str, Any]:
    error = float(np.sqrt(ALPHA * (1 - ALPHA) / TRIALS))
    return {**cell, "size": passed / TRIALS, "size_plain": plain / TRIALS, "trials": TRIALS, "error": error}


# --- regression, by simulation


def noisy(n: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Normal errors; those of the deployed model are greater."""
    labels = rng.normal(size=n)
    before = rng.normal(size=n)
    return labels + 0.1 * before, labels + 0.1 * before + 0.05 * rng.normal(size=n), labels


def rare(n: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Almost always equal predictions; of one image in a hundred the deployed model is off by a further 1."""
    labels = rng.normal(size=n)
    reference = labels + 0.1 * rng.normal(size=n)
    return reference, reference + np.where(rng.random(n) < 0.01, np.sign(reference - labels), 0), labels


def heavy(n: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Errors of Student's t with 5 degrees of freedom, whose sixth moment is infinite; the deployed model's add one."""
    labels = rng.normal(size=n)
    before = 0.1 * rng.standard_t(5, size=n)
    return labels + before, labels + before + 0.05 * rng.standard_t(5, size=n), labels


def rarely_far(n: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """As one image in a hundred, but by how much it is off is log-normal: one in six of them by more than 1.6."""
    labels = rng.normal(size=n)
    reference = labels + 0.1 * rng.normal(size=n)
    off = np.sign(reference - labels) * rng.lognormal(0, 0.5, size=n)
    return reference, reference + np.where(rng.random(n) < 0.01, off, 0), labels


SCORE: dict[str, Callable[[Floats, Floats], float]] = {
    "mae": lambda values, labels: float(np.abs(values - labels).mean()),
    "rmse": lambda values, labels: float(np.sqrt(np.square(values - labels).mean())),
    "r2": lambda values, labels: -float(1 - np.square(values - labels).mean() / labels.var()),
}
DRAWS = {
    "normal errors": noisy,
    "heavy tails": heavy,
    "one image in 100 off": rare,
    "one image in 100 off, log-normal": rarely_far,
}
REGRESSION = (
    ("mae", "normal errors", 50), ("mae", "normal errors", 500), ("rmse", "normal errors", 200),
    ("r2", "normal errors", 200), ("mae", "one image in 100 off", 100), ("mae", "one image in 100 off", 300),
    ("mae", "one image in 100 off", 1000), ("rmse", "one image in 100 off", 300), ("r2", "one image in 100 off", 300),
    ("mae", "heavy tails", 100), ("rmse", "heavy tails", 300), ("r2", "heavy tails", 300),
    ("rmse", "one image in 100 off, log-normal", 300),
)  # fmt: skip


#: Breaks what an interval of a mean takes for granted (``edgetl.tasks.regression.ASSUMES``): most of the loss comes
#: from images that are off by more than a standard deviation of the labels, and often none of the worst is seen.
BEYOND = ("one image in 100 off, log-normal",)


def true_loss(metric: str, data: str) -> float:
    """From 4 million images."""
    reference, deployed, labels = DRAWS[data](4_000_000, np.random.default_rng(99))
    return SCORE[metric](deployed, labels) - SCORE[metric](reference, labels)


def plain_score_bound(arrays: tuple[Floats, Floats, Floats], metric: str, rng: np.random.Generator) -> float:
    """Lower bound of the plain percentile bootstrap, written without the package."""
    reference, deployed, labels = arrays
    chosen = rng.integers(0, len(labels), (1000, len(labels)))
    squares = [np.abs(v - labels) if metric == "mae" else np.square(v - labels) for v in (reference, deployed)]
    before, after = (values[chosen].mean(axis=1) for values in squares)
    if metric == "rmse":
        before, after = np.sqrt(before), np.sqrt(after)
    if metric == "r2":
        before, after = (values / labels[chosen].var(axis=1) for values in (before, after))
    return float(np.quantile(before - after, ALPHA))


def bca_size(metric: str, data: str, n: int, margin: float) -> float:
    """Rate of a pass by the BCa interval of scipy, for mae."""
    rng, passed = np.random.default_rng(5), 0
    for _ in range(BCA_TRIALS):
        reference, deployed, labels = DRAWS[data](n, rng)
        change = np.abs(reference - labels) - np.abs(deployed - labels)
        if not change.any():
            passed += 1  # no width: the bound is 0
            continue
        found = stats.bootstrap(
            (change,), np.mean, n_resamples=1000, confidence_level=1 - 2 * ALPHA, vectorized=True, rng=rng
        )
        passed += bool(found.confidence_interval.low > -margin)
    return passed / BCA_TRIALS


def regression_cells() -> list[dict[str, Any]]:
    """Rates of a pass at a margin that is the true loss."""
    cells = []
    for metric, data, n in REGRESSION:
        margin, rng = true_loss(metric, data), np.random.default_rng(11)
        passed = plain = 0
        for _ in range(TRIALS):
            arrays = DRAWS[data](n, rng)
            passed += tested("regression", "values", arrays, metric, margin).verdict == "pass"
            plain += plain_score_bound(arrays, metric, rng) > -margin
        cell = simulated({"metric": metric, "data": data, "n": n, "margin": margin}, passed, plain)
        if data in BEYOND:
            cell["beyond"] = True
        if metric == "mae" and n in (50, 300):
            cell["size_bca"] = bca_size(metric, data, n, margin)
        cells.append(cell)
    return cells
