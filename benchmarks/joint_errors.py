"""How often does a model fail that lost nothing: by the whole, by a class that collapsed, or by either?

    python benchmarks/joint_errors.py [--out FILE] [--sets N]

Images are lost and gained alike in every class, so nothing is truly lost. A model fails if a loss of the margin or more
is beyond chance, of all images or of a class. ``undivided`` gives each of the two the whole level, as edgetl did; now
each has half. Verdicts of some data sets are compared with those of ``certify``. Prints a markdown table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl.base.storage import write_json
from edgetl.certify import certify, holm, mcnemar_loss

ALPHA, MARGIN = 0.05, 0.01
RESULT = Path(__file__).parent / "results" / "joint_errors.json"
#: Images of each class; the last one is uneven.
DATA: dict[str, Sequence[int]] = {
    "2 classes of 150": [150] * 2,
    "5 classes of 60": [60] * 5,
    "10 classes of 100": [100] * 10,
    "10 classes of 500": [500] * 10,
    "10 classes of 30 to 1,000": [30, 30, 60, 60, 120, 120, 250, 250, 500, 1000],
    "100 classes of 50": [50] * 100,
}
DISCORDANCES = (0.02, 0.05, 0.1, 0.2)
Counts = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
CHECKED = 3


def fails(lost: Counts, gained: Counts, sizes: Counts, level: float) -> tuple[Flags, Flags]:
    """Whether each data set, a row of ``lost`` and ``gained``, fails by all images, and by a class."""
    every = lost.sum(axis=1), gained.sum(axis=1)
    whole = (mcnemar_loss(*every) < level) & (every[1] - every[0] <= -MARGIN * sizes.sum())
    adjusted = np.stack([holm(row) for row in mcnemar_loss(lost, gained)])
    return whole, np.any((adjusted < level) & (gained - lost <= -MARGIN * sizes), axis=1)


def verdict(lost: Counts, gained: Counts, sizes: Counts) -> str:
    """That of the public function."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    place = np.concatenate([np.arange(size) for size in sizes])
    other = (labels + 1) % len(sizes)
    first, second = lost[labels], (lost + gained)[labels]
    deployed = np.where(place < first, other, labels)
    reference = np.where((place >= first) & (place < second), other, labels)
    return certify(reference, deployed, labels, margin=MARGIN, alpha=ALPHA).verdict


def cell(name: str, discordance: float, sets: int) -> dict[str, Any]:
    sizes = np.array(DATA[name])
    rng = np.random.default_rng([len(name), round(1000 * discordance)])
    flips = rng.binomial(sizes, discordance, (sets, len(sizes)))
    lost = rng.binomial(flips, 0.5)
    gained = flips - lost
    found: dict[str, Any] = {"data": name, "discordance": discordance}
    for rule, level in (("undivided", ALPHA), ("divided", ALPHA / 2)):
        whole, collapsed = fails(lost, gained, sizes, level)
        rates = {"whole": whole, "class": collapsed, "either": whole | collapsed}
        found[rule] = {part: float(failing.mean()) for part, failing in rates.items()}
    either = whole | collapsed
    # Of those that fail, which are few, and of those that do not, the first are judged by the public verdict, too.
    for place in [*np.flatnonzero(either)[:CHECKED], *np.flatnonzero(~either)[:CHECKED]]:
        if (verdict(lost[place], gained[place], sizes) == "fail") != either[place]:
            raise SystemExit(f"the verdict of {name} is not that of certify: {lost[place]}, {gained[place]}")
    return found


def report(result: dict[str, Any]) -> str:
    rows = [
        f"| {c['data']} | {100 * c['discordance']:g} % | "
        + " | ".join(
            f"{100 * c[rule][part]:.2f}" for rule in ("undivided", "divided") for part in ("whole", "class", "either")
        )
        + " |"
        for c in result["cells"]
    ]
    head = "| data | discordance | whole | class | either | whole, halved | class, halved | either, halved |"
    told = (
        f"(Monte-Carlo error {100 * result['error']:.2f}), each at the whole level and at half of it, as edgetl has it:"
    )
    return "\n".join([f"Fails (%) of models that lost nothing {told}", "", head, "|" + " --- |" * 8, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--sets", type=int, default=4000)
    options = parser.parse_args()
    cells = [cell(name, discordance, options.sets) for name in DATA for discordance in DISCORDANCES]
    error = float(np.sqrt(ALPHA * (1 - ALPHA) / options.sets))
    result = {"alpha": ALPHA, "margin": MARGIN, "sets": options.sets, "error": error, "cells": cells}
    result["worst"] = {rule: max(c[rule]["either"] for c in cells) for rule in ("undivided", "divided")}
    write_json(options.out, result)
    print(report(result))


if __name__ == "__main__":
    main()
