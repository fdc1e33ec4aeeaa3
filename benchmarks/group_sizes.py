"""How often does a model pass that lost exactly the margin, where samples belong together?

    python benchmarks/group_sizes.py [--out FILE] [--sets N]

Groups of 1, 2, 5, 10, 20 samples, and of mixed sizes, that flip together, one by one, or in a part of the groups alone.
Beside edgetl's test stand Tango's of single samples, which takes every frame for a sample of its own, and the score
test for clustered pairs (Obuchowski 1998; Yang, Sun and Hardin 2010) with Student's t of as many groups. States its
Monte-Carlo error. Prints a markdown table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl.base.storage import write_json
from edgetl.certify import score_statistic, share_draws
from edgetl.certify.bootstrap import bounds

ALPHA = 0.05
RESULT = Path(__file__).parent / "results" / "group_sizes.json"
SAMPLES = (500, 2000)
SIZES: tuple[int | str, ...] = (1, 2, 5, 10, 20, "mixed")
#: Discordance and margin, which is the true loss.
RATES = ((0.01, 0.01), (0.02, 0.01), (0.05, 0.01), (0.05, 0.05), (0.1, 0.05), (0.2, 0.05))
FLIPS = ("together", "one by one", "in 3 of 10 groups")
REPLICATES = 400
Indexes = npt.NDArray[np.int64]
Cell = dict[str, Any]


def sizes_of(rng: np.random.Generator, kind: int | str, n: int) -> Indexes:
    """Samples of each group, about ``n`` in all."""
    if kind != "mixed":
        return np.full(n // int(kind), int(kind))
    drawn = rng.choice([1, 2, 5, 10, 20], n)
    return drawn[: int(np.searchsorted(np.cumsum(drawn), n)) + 1]


def changes(rng: np.random.Generator, sizes: Indexes, flips: str, discordance: float, margin: float) -> Indexes:
    """What each sample gains, -1, 0 or 1: the true mean is minus the margin."""
    lost, gained = (discordance + margin) / 2, (discordance - margin) / 2
    samples = int(sizes.sum())
    if flips == "together":
        drawn = rng.random(len(sizes)).repeat(sizes)
        return np.where(drawn < lost, -1, np.where(drawn < lost + gained, 1, 0))
    share = 1.0 if flips == "one by one" else 0.3
    hard = (rng.random(len(sizes)) < share).repeat(sizes)
    drawn = rng.random(samples) * share
    return np.where(hard & (drawn < lost), -1, np.where(hard & (drawn < lost + gained), 1, 0))


def score_passes(change: Indexes, sizes: Indexes, margin: float) -> bool:
    """The score test of clustered pairs: the residuals' sum over its spread between groups."""
    groups = np.arange(len(sizes)).repeat(sizes)
    residuals = np.bincount(groups, change + margin)
    spread = len(sizes) / (len(sizes) - 1) * float(np.sum((residuals - residuals.mean()) ** 2))
    total = float(residuals.sum())
    return total > 0 if spread == 0 else total / spread**0.5 > stats.t.isf(ALPHA, len(sizes) - 1)


def cell(n: int, kind: int | str, flips: str, rates: tuple[float, float], sets: int) -> Cell:
    """Shares of data sets that pass, by each test."""
    discordance, margin = rates
    rng = np.random.default_rng([n, SIZES.index(kind), FLIPS.index(flips), RATES.index(rates)])
    passed = np.zeros(3)
    for _ in range(sets):
        sizes = sizes_of(rng, kind, n)
        change = changes(rng, sizes, flips, discordance, margin)
        groups = np.arange(len(sizes)).repeat(sizes)
        low, high = share_draws(change, None, groups, REPLICATES)[1]
        single = score_statistic(np.sum(change < 0), np.sum(change > 0), len(change), -margin) > stats.norm.isf(ALPHA)
        passed += (bounds(low, high, ALPHA)[0] > -margin, single, score_passes(change, sizes, margin))
    size, size_single, size_score = (passed / sets).tolist()
    found = {"n": n, "group": kind, "flips": flips, "discordance": discordance, "margin": margin}
    return {**found, "size": size, "size_single": size_single, "size_score": size_score}


#: Groups of each class, samples of a group, discordance, margin, and where the loss is: in every class alike, or in the
#: first alone.
BALANCED: tuple[tuple[Sequence[int], int | str, float, float, str], ...] = (
    ((40,) * 10, 5, 0.1, 0.05, "even"),
    ((20,) * 5, 10, 0.3, 0.1, "even"),
    ((10, 20, 40, 80, 160), 5, 0.1, 0.04, "first"),
    ((30,) * 10, "mixed", 0.1, 0.05, "even"),
    ((60,) * 10, "mixed", 0.2, 0.03, "even"),
    ((100,) * 4, 2, 0.1, 0.03, "first"),
)


def balanced_cell(
    classes: Sequence[int], kind: int | str, discordance: float, margin: float, where: str, sets: int
) -> Cell:
    """Share of data sets that pass by balanced accuracy; groups flip together and are of one class."""
    rng, passed = np.random.default_rng([len(classes), round(100 * margin)]), 0
    losses = np.full(len(classes), margin) if where == "even" else margin * np.eye(1, len(classes))[0] * len(classes)
    label = np.arange(len(classes)).repeat(classes)
    lost, gained = ((np.maximum(discordance, losses) + sign * losses)[label] / 2 for sign in (1, -1))
    for _ in range(sets):
        sizes = rng.choice([1, 2, 5, 10, 20], len(label)) if kind == "mixed" else np.full(len(label), int(kind))
        drawn = rng.random(len(label))
        flips = np.where(drawn < lost, -1, np.where(drawn < lost + gained, 1, 0))
        groups = np.arange(len(label)).repeat(sizes)
        low, high = share_draws(flips.repeat(sizes), label.repeat(sizes), groups, REPLICATES)[1]
        passed += bounds(low, high, ALPHA)[0] > -margin
    data = (
        f"{len(classes)} classes of {min(classes)}"
        + (f" to {max(classes)}" if len(set(classes)) > 1 else "")
        + " groups"
    )
    found = {"data": data, "group": kind, "discordance": discordance, "margin": margin, "loss": where}
    return {**found, "size": float(passed / sets)}


def balanced_cells(sets: int) -> list[Cell]:
    return [balanced_cell(*cell, sets) for cell in BALANCED]


def accuracy_cells(sets: int) -> list[Cell]:
    return [cell(n, kind, flips, rates, sets) for n in SAMPLES for kind in SIZES for flips in FLIPS for rates in RATES]


def report(result: dict[str, Any]) -> str:
    """The greatest size of each test over discordances and margins, and the sizes of balanced accuracy, as tables."""
    rows = ["| n | group of | flips | edgetl | every sample by itself | clustered score test |", "|" + " --- |" * 6]
    for n in SAMPLES:
        for kind in SIZES:
            for flips in FLIPS:
                own = [c for c in result["cells"] if (c["n"], c["group"], c["flips"]) == (n, kind, flips)]
                worst = (f"{100 * max(c[key] for c in own):.1f}" for key in ("size", "size_single", "size_score"))
                rows.append(f"| {n:,} | {kind} | {flips} | {' | '.join(worst)} |")
    balanced = ["| data | group of | discordance | margin | loss | edgetl |", "|" + " --- |" * 6]
    for c in result["balanced"]:
        rates = f"{100 * c['discordance']:g} % | {100 * c['margin']:g} % | {c['loss']}"
        balanced.append(f"| {c['data']} | {c['group']} | {rates} | {100 * c['size']:.1f} |")
    error = f"{100 * result['error']:.2f}"
    return "\n".join(
        [
            "Groups: passes (%) at a true loss of the margin, the greatest over six pairs of discordance and margin "
            f"(Monte-Carlo error of each {error}; groups of 1 are here for comparison: they are tested exactly):\n",
            *rows,
            f"\nThe same of balanced accuracy, groups that flip together (Monte-Carlo error {error}):\n",
            *balanced,
        ]
    )


MEASURED: dict[str, Callable[[int], list[Cell]]] = {"cells": accuracy_cells, "balanced": balanced_cells}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--only", nargs="+", choices=MEASURED, help="measure these fields anew, keep the others")
    options = parser.parse_args(arguments)
    result: dict[str, Any] = json.loads(options.out.read_text(encoding="utf-8")) if options.only else {"alpha": ALPHA}
    for name in options.only or MEASURED:
        result[name] = MEASURED[name](options.sets)
    result["sets"], result["error"] = options.sets, float(np.sqrt(ALPHA * (1 - ALPHA) / options.sets))
    result["worst_size"] = max(c["size"] for c in (*result["cells"], *result["balanced"]))
    write_json(options.out, result)
    print(report(result))


if __name__ == "__main__":
    main()
