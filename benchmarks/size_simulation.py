"""How often does a model pass that lost exactly the margin, and how often one that lost nothing?

    python benchmarks/size_simulation.py [--out FILE]

The test of accuracy is enumerated: its verdicts are found for every table of lost and gained images that matters, once
for each number of images and margin, and the chances of the tables that pass are added up, so those figures have no
Monte-Carlo error. The bootstraps of balanced accuracy and of regression metrics are simulated, next to the plain
percentile bootstrap and, for two cells, scipy's BCa. The simulated columns state their Monte-Carlo error. Then 50,000
saved predictions are judged again, with everything that a certificate holds. Prints markdown tables.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl.certify import (
    PairedCounts,
    Predictions,
    balanced_accuracy_test,
    cautious_lower_bound,
    certify,
    images_needed,
    noninferiority,
    score_statistic,
    score_test,
)
from edgetl.certify.unconditional import MOST_DISCORDANT
from edgetl.storage import write_json

ALPHA = 0.05
SIZES = (50, 100, 200, 500, 1000, 2000, 5000)
DISCORDANCES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
MARGINS = (0.01, 0.02)
TRIALS = 1000
BCA_TRIALS = 300
OUTSIDE = 1e-9
RESULT = Path(__file__).parent / "results" / "size_simulation.json"

Floats = npt.NDArray[np.float64]


# --- accuracy, by enumeration


def edges(n: int, margin: float, most_gained: int) -> npt.NDArray[np.int64]:
    """For each number of gained images the most losses with which the verdict is still pass; -1 for none."""
    gained = np.arange(most_gained + 1)
    low, high = np.full(len(gained), -1), n - gained + 1
    critical = stats.norm.isf(ALPHA)
    while np.any(high - low > 1):
        middle = (low + high) // 2
        passes = score_statistic(np.maximum(middle, 0), gained, n, -margin) > critical
        low, high = np.where((high - low > 1) & passes, middle, low), np.where((high - low > 1) & ~passes, middle, high)
    for g in range(len(gained)):
        while 0 <= low[g] <= MOST_DISCORDANT - g and cautious_lower_bound(int(low[g]), g, n, ALPHA) <= -margin:
            low[g] -= 1
    return low


def chance_of_a_pass(edge: npt.NDArray[np.int64], n: int, lost_rate: float, gained_rate: float) -> float:
    """The trinomial distribution, summed over all tables that pass."""
    most = int(stats.binom.isf(OUTSIDE, n, gained_rate)) if gained_rate > 0 else 0
    gained = np.arange(most + 1)
    at_most = np.where(
        edge[: most + 1] >= 0, stats.binom.cdf(edge[: most + 1], n - gained, lost_rate / (1 - gained_rate)), 0
    )
    return float(np.sum(stats.binom.pmf(gained, n, gained_rate) * at_most))


def as_the_public_verdict(edge: npt.NDArray[np.int64], n: int, margin: float) -> bool:
    """Whether the verdict changes at the edge, as the function that users call gives it, for a dozen edges."""
    inside = np.flatnonzero(edge >= 0)
    for g in inside[:: max(1, len(inside) // 12)].tolist():
        for lost in (int(edge[g]), int(edge[g]) + 1):
            if lost + g <= n:
                passes = noninferiority(PairedCounts(n - lost - g, lost, g, 0), margin, ALPHA).verdict == "pass"
                if passes != (lost <= edge[g]):
                    return False
    return True


def accuracy_cells() -> list[dict[str, Any]]:
    """Size at a true loss of the margin, and power at no loss, over the grid."""
    cells = []
    for margin in MARGINS:
        for n in SIZES:
            edge = edges(n, margin, int(stats.binom.isf(OUTSIDE, n, max(DISCORDANCES) / 2)))
            if not as_the_public_verdict(edge, n, margin):
                raise SystemExit(f"the enumerated edge is not that of the public verdict at n {n}, margin {margin}")
            for d in DISCORDANCES:
                size = chance_of_a_pass(edge, n, (d + margin) / 2, (d - margin) / 2) if d >= margin else None
                power = chance_of_a_pass(edge, n, d / 2, d / 2)
                cells.append({"margin": margin, "n": n, "discordance": d, "size": size, "power_without_loss": power})
    return cells


def power_cells() -> list[dict[str, Any]]:
    """Power without a loss, at the number of images that the formula asks for to have 80 %."""
    cells = []
    for margin in MARGINS:
        for d in DISCORDANCES:
            n = images_needed(d, margin)
            edge = edges(n, margin, int(stats.binom.isf(OUTSIDE, n, d / 2)))
            cells.append({"margin": margin, "discordance": d, "n": n, "power": chance_of_a_pass(edge, n, d / 2, d / 2)})
    return cells


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
            passed += balanced_accuracy_test(*arrays, margin, ALPHA).verdict == "pass"
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


SCORE: dict[str, Callable[[Floats, Floats], float]] = {
    "mae": lambda values, labels: float(np.abs(values - labels).mean()),
    "rmse": lambda values, labels: float(np.sqrt(np.square(values - labels).mean())),
    "r2": lambda values, labels: -float(1 - np.square(values - labels).mean() / labels.var()),
}
DRAWS = {"normal errors": noisy, "one image in 100 off": rare}
REGRESSION = (
    ("mae", "normal errors", 50), ("mae", "normal errors", 500), ("rmse", "normal errors", 200),
    ("r2", "normal errors", 200), ("mae", "one image in 100 off", 100), ("mae", "one image in 100 off", 300),
    ("mae", "one image in 100 off", 1000), ("rmse", "one image in 100 off", 300), ("r2", "one image in 100 off", 300),
)  # fmt: skip


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
            passed += score_test(*arrays, metric, margin, ALPHA).verdict == "pass"
            plain += plain_score_bound(arrays, metric, rng) > -margin
        cell = simulated({"metric": metric, "data": data, "n": n, "margin": margin}, passed, plain)
        if metric == "mae" and n in (50, 300):
            cell["size_bca"] = bca_size(metric, data, n, margin)
        cells.append(cell)
    return cells


# --- time


def seconds_for_50_000() -> dict[str, float]:
    """Loading 50,000 predictions of 10 classes with three rungs and a baseline, and making the whole certificate; best of 5."""
    rng, n = np.random.default_rng(0), 50_000
    labels = rng.integers(0, 10, n)
    reference = 1.5 * rng.normal(size=(n, 10))
    reference[np.arange(n), labels] += 4
    saved = Predictions.from_logits(
        labels=labels,
        reference=reference,
        deployed=reference + 0.1 * rng.normal(size=(n, 10)),
        rungs={name: reference + 0.01 * rng.normal(size=(n, 10)) for name in ("float ONNX", "Q/DQ in float")},
        baseline=("probe", reference + 3 * rng.normal(size=(n, 10))),
        paths=[f"class-{label}/{i:06d}.jpg" for i, label in enumerate(labels)],
        sha256=[f"{value:064x}" for value in rng.integers(0, 2**62, n).tolist()],
        classes=tuple("0123456789"),
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "predictions.npz"
        saved.save(file)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            loaded = Predictions.load(file)
            middle = time.perf_counter()
            certify(**loaded.arguments(), margin=0.005).to_json()
            times.append((middle - began, time.perf_counter() - middle))
        load, judge = np.min(times, axis=0).tolist()
        return {"load": load, "judge": judge, "megabytes": file.stat().st_size / 1e6}


# --- tables


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f}"


def table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def grid(cells: Sequence[dict[str, Any]], figure: str, margin: float) -> str:
    found = {(c["n"], c["discordance"]): c[figure] for c in cells if c["margin"] == margin}
    head = ["n", *(f"{100 * d:g} %" for d in DISCORDANCES)]
    return table([head, *([f"{n:,}", *(percent(found[n, d]) for d in DISCORDANCES)] for n in SIZES)])


def report(result: dict[str, Any]) -> str:
    parts = []
    for margin in MARGINS:
        name = f"margin {100 * margin:g} %, by images and discordance"
        parts += [f"Passes (%) at a true loss of the margin, exact; {name}:", grid(result["accuracy"], "size", margin)]
        parts += [f"Passes (%) without a loss, exact; {name}:", grid(result["accuracy"], "power_without_loss", margin)]
    rows = [
        [f"{100 * c['margin']:g} %", f"{100 * c['discordance']:g} %", f"{c['n']:,}", percent(c["power"])]
        for c in result["power"]
    ]
    parts += ["Power (%) at the images that the formula asks for to have 80 %:"]
    parts += [table([["margin", "discordance", "images", "power"], *rows])]
    rows = [
        [c["data"], f"{100 * c['discordance']:g} %", percent(c["size"]), percent(c["size_plain"])]
        for c in result["balanced"]
    ]
    error = percent(result["balanced"][0]["error"])
    parts += [f"Balanced accuracy, passes (%) at a true loss of the margin of 1 % (Monte-Carlo error {error}):"]
    parts += [table([["data", "discordance", "edgetl", "plain percentile"], *rows])]
    rows = [
        [
            c["metric"],
            c["data"],
            f"{c['n']:,}",
            f"{c['margin']:.4f}",
            percent(c["size"]),
            percent(c["size_plain"]),
            percent(c.get("size_bca")),
        ]
        for c in result["regression"]
    ]
    parts += [f"Regression, passes (%) at a true loss of the margin (Monte-Carlo error {error}):"]
    parts += [table([["metric", "data", "n", "margin", "edgetl", "plain percentile", "BCa"], *rows])]
    spent = result["fifty_thousand"]
    parts += [f"50,000 predictions: loaded in {spent['load']:.2f} s, judged in {spent['judge']:.2f} s."]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=RESULT)
    out = parser.parse_args().out
    began = time.process_time()
    result: dict[str, Any] = {
        "alpha": ALPHA,
        "accuracy": accuracy_cells(),
        "power": power_cells(),
        "balanced": balanced_cells(),
        "regression": regression_cells(),
        "fifty_thousand": seconds_for_50_000(),
    }
    result["worst_size"] = max(c["size"] for c in result["accuracy"] if c["size"] is not None)
    result["cpu_seconds"] = round(time.process_time() - began, 1)
    write_json(out, result)
    print(report(result))


if __name__ == "__main__":
    main()
