"""How often does a model pass that lost exactly the margin, and how often one that lost nothing?

    python benchmarks/size_simulation.py [--out FILE] [--only FIELD ...]

The test of accuracy is enumerated: its verdicts are found for every table of lost and gained images that matters, once
for each number of images and margin, and the chances of the tables that pass are added up, so those figures have no
Monte-Carlo error. The bootstraps of balanced accuracy, macro-AP, micro-F1 and the metrics of regression are simulated,
next to the plain percentile bootstrap and, for two cells, scipy's BCa. The simulated columns state their Monte-Carlo
error. Then 50,000 saved predictions are judged again, with everything that a certificate holds. ``--only`` measures
the named fields of the result anew and keeps the others. Prints markdown tables.
"""

from __future__ import annotations

import argparse
import json
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

from benchmarks.bootstrap_sizes import balanced_cells, regression_cells
from benchmarks.label_set_sizes import label_set_cells, samples_needed
from benchmarks.value_ranges import ranged_cells
from edgetl.base.storage import write_json
from edgetl.certify import (
    PairedCounts,
    Predictions,
    certify_answers,
    images_needed,
    noninferiority,
    score_statistic,
)
from edgetl.certify.unconditional import MOST_DISCORDANT, tail
from edgetl.tasks import find_task

ALPHA = 0.05
SIZES = (50, 100, 200, 500, 1000, 2000, 5000)
DISCORDANCES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
MARGINS = (0.01, 0.02)
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
        # The exact bound is above the margin where its tail there is: that takes one evaluation, and the bound several.
        while 0 <= low[g] <= MOST_DISCORDANT - g and tail(int(low[g]), g, n, ALPHA).probability(-margin) > ALPHA:
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


# --- time


def seconds_for_50_000() -> dict[str, float]:
    """CPU seconds (best of 5) to load and to certify 50,000 predictions of 10 classes, with rungs and a baseline."""
    rng, n = np.random.default_rng(0), 50_000
    labels = rng.integers(0, 10, n)
    reference = 1.5 * rng.normal(size=(n, 10))
    reference[np.arange(n), labels] += 4
    deployed = reference + 0.1 * rng.normal(size=(n, 10))
    rungs = {name: reference + 0.01 * rng.normal(size=(n, 10)) for name in ("float ONNX", "Q/DQ in float")}
    models = {"reference": reference, **rungs, "deployed": deployed}
    saved = Predictions.from_outputs(
        find_task("classification"),
        labels=labels,
        outputs={name: {"logits": logits} for name, logits in models.items()},
        baseline=("probe", {"logits": reference + 3 * rng.normal(size=(n, 10))}),
        paths=[f"class-{label}/{i:06d}.jpg" for i, label in enumerate(labels)],
        sha256=[f"{value:064x}" for value in rng.integers(0, 2**62, n).tolist()],
        classes=tuple("0123456789"),
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "predictions.npz"
        saved.save(file)
        times = []
        for _ in range(5):
            began = time.process_time()
            loaded = Predictions.load(file)
            middle = time.process_time()
            certify_answers(**loaded.arguments(), margin=0.005).to_json()
            times.append((middle - began, time.process_time() - middle))
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


def label_sets(result: dict[str, Any]) -> list[str]:
    """The tables of macro-AP and micro-F1, and what the unseen sample costs them."""
    head = ["metric", "labels", "reference", "fault", "n", "margin", "edgetl", "± error", "plain percentile"]
    rows = [
        [
            *(c[name] for name in ("metric", "labels", "reference", "fault")),
            f"{c['n']:,}",
            f"{c['margin']:.4f}",
            *(percent(c[name]) for name in ("size", "error", "size_plain", "power_without_loss")),
        ]
        for c in result["label_sets"]
    ]
    needed = [
        [c["metric"], c["labels"], *(f"{c['samples'][margin]:,}" for margin in ("0.05", "0.02", "0.01"))]
        for c in result["samples_needed"]
    ]
    return [
        "Several labels a sample, passes (%) at a true loss of the margin (with Monte-Carlo error), and without a loss "
        "from a fifth as many data sets; 300 replicates:",
        table([[*head, "without a loss"], *rows]),
        "Samples from which two models that are always right pass, by the margin:",
        table([["metric", "labels", "0.05", "0.02", "0.01"], *needed]),
    ]


def ranged(cells: Sequence[dict[str, Any]]) -> list[str]:
    """The table of regression with a known range."""
    error = percent(float(np.sqrt(ALPHA * (1 - ALPHA) / cells[0]["trials"])))
    head = ["metric", "data", "n", "margin", "with --value-range", "without: conditional"]
    rows = [
        [
            *(c[name] for name in ("metric", "data")),
            f"{c['n']:,}",
            f"{c['margin']:.4f}",
            *(percent(c[name]) for name in ("size", "size_without")),
        ]
        for c in cells
    ]
    told = (
        f"Regression with rare and large errors, passes (%) at a true loss of the margin (Monte-Carlo error {error}):"
    )
    return [told, table([head, *rows])]


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
    parts += ["Power (%) at the images that `n_needed` asks for to have 80 %:"]
    parts += [table([["margin", "discordance", "images", "power"], *rows])]
    rows = [
        [c["data"], f"{100 * c['discordance']:g} %", percent(c["size"]), percent(c["size_plain"])]
        for c in result["balanced"]
    ]
    error = percent(result["balanced"][0]["error"])
    parts += [f"Balanced accuracy, passes (%) at a true loss of the margin of 1 % (Monte-Carlo error {error}):"]
    parts += [table([["data", "discordance", "edgetl", "plain percentile"], *rows])]
    parts += label_sets(result)
    rows = [
        [
            c["metric"],
            c["data"] + (" (beyond what is assumed)" if c.get("beyond") else ""),
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
    parts += ranged(result["ranged"])
    spent = result["fifty_thousand"]
    parts += [f"50,000 predictions: loaded in {spent['load']:.2f} s, judged in {spent['judge']:.2f} s of CPU time."]
    return "\n\n".join(parts)


MEASURED: dict[str, Callable[[], Any]] = {
    "accuracy": accuracy_cells,
    "power": power_cells,
    "balanced": balanced_cells,
    "label_sets": label_set_cells,
    "samples_needed": samples_needed,
    "regression": regression_cells,
    "ranged": ranged_cells,
    "fifty_thousand": seconds_for_50_000,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--only", nargs="+", choices=MEASURED, help="measure these fields anew, keep the others")
    options = parser.parse_args()
    result: dict[str, Any] = {"alpha": ALPHA}
    if options.only:
        result = json.loads(options.out.read_text(encoding="utf-8"))
    spent: dict[str, float] = result.get("cpu_seconds", {})
    for name in options.only or MEASURED:
        began = time.process_time()
        result[name] = MEASURED[name]()
        spent[name] = round(time.process_time() - began, 1)
    result["worst_size"] = max(c["size"] for c in result["accuracy"] if c["size"] is not None)
    result["cpu_seconds"] = spent
    write_json(options.out, result)
    print(report(result))


if __name__ == "__main__":
    main()
