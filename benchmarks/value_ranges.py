"""Regression whose values lie in a known range: how often a model passes that lost exactly the margin.

The errors are rare and large, which few samples show: without the range the verdict is conditional on what it assumes
of samples that were not seen. See ``size_simulation.py``, which writes the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.bootstrap_sizes import ALPHA, SCORE
from edgetl.certify import paired_test
from edgetl.tasks import TASKS

#: Of all values: labels are normal, clipped at four standard deviations.
LOW, HIGH = -4.0, 4.0
TRIALS = 200
Floats = npt.NDArray[np.float64]
Drawn = tuple[Floats, Floats, Floats]


def _clipped(reference: Floats, deployed: Floats, labels: Floats) -> Drawn:
    return np.clip(reference, LOW, HIGH), np.clip(deployed, LOW, HIGH), labels


def log_normal(n: int, rng: np.random.Generator) -> Drawn:
    """One in a hundred is off by a log-normal amount."""
    labels = np.clip(rng.normal(size=n), LOW, HIGH)
    reference = labels + 0.1 * rng.normal(size=n)
    off = np.sign(reference - labels) * rng.lognormal(0, 0.5, size=n)
    return _clipped(reference, reference + np.where(rng.random(n) < 0.01, off, 0), labels)


def rare_and_large(n: int, rng: np.random.Generator) -> Drawn:
    """One in 500 is off by half the range."""
    labels = np.clip(rng.normal(size=n), LOW, HIGH)
    reference = np.clip(labels + 0.1 * rng.normal(size=n), LOW, HIGH)
    away = np.where(labels > 0, -1, 1) * (HIGH - LOW) / 2
    return _clipped(reference, np.where(rng.random(n) < 0.002, labels + away, reference), labels)


def to_the_end(n: int, rng: np.random.Generator) -> Drawn:
    """One in 500 is at the far end of the range."""
    labels = np.clip(rng.normal(size=n), LOW, HIGH)
    reference = np.clip(labels + 0.1 * rng.normal(size=n), LOW, HIGH)
    return _clipped(reference, np.where(rng.random(n) < 0.002, np.where(labels > 0, LOW, HIGH), reference), labels)


DATA: dict[str, Callable[[int, np.random.Generator], Drawn]] = {
    "1 in 100 off, log-normal": log_normal,
    "1 in 500 off by half the range": rare_and_large,
    "1 in 500 at the far end": to_the_end,
}


def ranged_cells() -> list[dict[str, Any]]:
    """Rates of a pass at a margin that is the true loss, with the range and without it."""
    cells = []
    task = TASKS["regression"]
    assert task.bounded is not None
    for data, draw in DATA.items():
        large = draw(4_000_000, np.random.default_rng(99))
        for metric, n in (("mae", 300), ("rmse", 300), ("rmse", 2000), ("r2", 300)):
            margin = SCORE[metric](large[1], large[2]) - SCORE[metric](large[0], large[2])
            rng, passed = np.random.default_rng(13), np.zeros(2)
            for _ in range(TRIALS):
                reference, deployed, labels = draw(n, rng)
                rows = [task.evidence({"values": values}, labels) for values in (reference, deployed)]
                for place, judged in enumerate((task.bounded(task.metrics[metric], HIGH - LOW), task.metrics[metric])):
                    passed[place] += paired_test(judged, rows[0], rows[1], margin, ALPHA).verdict == "pass"
            with_range, without = (passed / TRIALS).tolist()
            cell = {"metric": metric, "data": data, "n": n, "margin": margin}
            cells.append({**cell, "size": with_range, "size_without": without, "trials": TRIALS})
    return cells
