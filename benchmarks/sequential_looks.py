"""How often does a model pass at any of several looks that lost exactly the margin, and what does looking cost?

    python benchmarks/sequential_looks.py [--out FILE] [--sets N]

Samples come in equal batches, and after each one somebody looks and stops at the first pass. The test of one reading is
Tango's score test alone, with which the certificate's exact one agrees where many samples differ. The price is what
``n_needed`` says of both tests. Prints markdown tables.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgetl.base.storage import write_json
from edgetl.certify import betting, images_needed, score_statistic

ALPHA = 0.05
SAMPLES = 4000
LOOKS = (1, 2, 5, 10, 20)
#: Discordance and margin, which is the true loss.
RATES = ((0.02, 0.01), (0.05, 0.01), (0.1, 0.02), (0.2, 0.05))
PRICES = ((0.005, 0.01), (0.01, 0.01), (0.02, 0.01), (0.05, 0.01), (0.02, 0.02), (0.05, 0.02), (0.1, 0.05))
RESULT = Path(__file__).parent / "results" / "sequential_looks.json"


def looked_at(discordance: float, margin: float, sets: int) -> list[dict[str, Any]]:
    """Shares of data sets that pass at any of the looks."""
    rng = np.random.default_rng(round(1e4 * discordance))
    rates = [(discordance + margin) / 2, (discordance - margin) / 2, 1 - discordance]
    finest = max(LOOKS)
    counts = rng.multinomial(SAMPLES // finest, rates, (sets, finest)).cumsum(axis=1)
    seen = SAMPLES // finest * np.arange(1, finest + 1)
    once = score_statistic(counts[..., 0], counts[..., 1], seen, -margin) > stats.norm.isf(ALPHA)
    again = betting.log_capital(counts[..., 0], counts[..., 1], seen, -margin) >= -math.log(ALPHA)
    cells = []
    for looks in LOOKS:
        at = np.arange(finest // looks - 1, finest, finest // looks)
        found = {"discordance": discordance, "margin": margin, "looks": looks}
        cells.append({**found, "once": once[:, at].any(axis=1).mean(), "sequential": again[:, at].any(axis=1).mean()})
    return cells


def priced(discordance: float, margin: float) -> dict[str, Any]:
    """Samples for an 80 % chance of a pass without a loss."""
    needed = images_needed(discordance, margin), betting.samples_needed(discordance, margin, ALPHA)
    return {"discordance": discordance, "margin": margin, "once": needed[0], "sequential": needed[1]}


def report(result: dict[str, Any]) -> str:
    """Both tables."""
    head = ["| discordance | margin | test |", *(f" {looks} |" for looks in LOOKS)]
    rows = ["".join(head), "|" + " --- |" * (3 + len(LOOKS))]
    for d, margin in RATES:
        own = [c for c in result["looks"] if (c["discordance"], c["margin"]) == (d, margin)]
        for test, name in (("once", "one reading"), ("sequential", "`--sequential`")):
            figures = "".join(f" {100 * c[test]:.1f} |" for c in own)
            rows.append(f"| {100 * d:g} % | {100 * margin:g} % | {name} |{figures}")
    prices = ["| discordance | margin | one reading | `--sequential` | times |", "|" + " --- |" * 5]
    for c in result["prices"]:
        ratio = c["sequential"] / c["once"]
        cells = f"{c['once']:,} | {c['sequential']:,} | {ratio:.1f}"
        prices.append(f"| {100 * c['discordance']:g} % | {100 * c['margin']:g} % | {cells} |")
    error = 100 * result["error"]
    return "\n".join(
        [
            f"Looks: passes (%) at a true loss of the margin at any of so many looks at {SAMPLES:,} images "
            f"(Monte-Carlo error {error:.2f}):\n",
            *rows,
            "\nImages that `n_needed` asks for to have 80 % without a loss:\n",
            *prices,
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--sets", type=int, default=4000)
    options = parser.parse_args(arguments)
    cells = [cell for rates in RATES for cell in looked_at(*rates, options.sets)]
    error = math.sqrt(ALPHA * (1 - ALPHA) / options.sets)
    result = {"alpha": ALPHA, "sets": options.sets, "error": error, "looks": cells}
    result["prices"] = [priced(*rates) for rates in PRICES]
    write_json(options.out, json.loads(json.dumps(result, default=float)))
    print(report(result))


if __name__ == "__main__":
    main()
