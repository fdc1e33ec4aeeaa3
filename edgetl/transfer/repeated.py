"""One order, several seeds: how much of a figure is the seed's doing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from edgetl.base.errors import EdgetlError
from edgetl.core.run import Run
from edgetl.transfer.finetune import finetune


@dataclass(frozen=True)
class Spread:
    """Of one figure over the runs: the middle one, the lowest, the highest."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Repeated:
    """Runs that differ in nothing but the seed, which decides splits, order, augmentation and initialisation.

    Attributes:
        runs: in the order of their seeds.
    """

    runs: tuple[Run, ...]

    @property
    def spreads(self) -> dict[str, Spread]:
        """Of each figure on the validation samples that every run has."""
        names = [name for name in self.runs[0].metrics.val if all(name in run.metrics.val for run in self.runs)]
        found = {name: [float(run.metrics.val[name]) for run in self.runs] for name in names if name != "n"}
        return {name: Spread(median(values), min(values), max(values)) for name, values in found.items()}

    @property
    def middle(self) -> Run:
        """The run of the middle score, the lower of two: the one to export, as the best would flatter."""
        name = self.runs[0].metrics.metric
        ordered = sorted(self.runs, key=lambda run: float(run.metrics.val.get(name, 0.0)))
        return ordered[(len(ordered) - 1) // 2]


def repeat(data: str | Path, out: str | Path, times: int, *, seed: int = 0, **options: Any) -> Repeated:
    """Train with ``times`` seeds, from ``seed`` on, each in a folder of its own below ``out``: ``seed-N``.

    Args:
        data, options: as for :func:`edgetl.finetune`; what was interrupted goes on.
        out: folder of the runs.
        times: how many, at least 2.
        seed: the first.

    Raises:
        EdgetlError: as finetune, or too few seeds to tell anything.
    """
    if times < 2:
        raise EdgetlError(f"{times} seeds tell nothing of how they differ", "give --repeat 3")
    folder = Path(out)
    runs = list[Run]()
    for n in range(seed, seed + times):
        runs.append(finetune(data, folder / f"seed-{n}", seed=n, **options))
        # A size that is found by trial is found once: the seeds must differ in nothing else.
        options = {**options, "batch_size": runs[0].settings["batch_size"]}
    return Repeated(tuple(runs))
