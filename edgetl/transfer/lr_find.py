"""The learning rate range test: the loss while the rate rises from next to nothing until training breaks down."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import EdgetlError
from edgetl.base.progress import Progress, silent
from edgetl.transfer import train
from edgetl.transfer.assembly import Setup, assemble, enter_train_mode
from edgetl.transfer.feed import Feed, feed_of
from edgetl.transfer.finetune import begun, read_samples
from edgetl.transfer.folder import FirstSteps
from edgetl.transfer.placement import reproducible
from edgetl.transfer.plan import Options, Plan, plan

Floats = npt.NDArray[np.float64]
LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 100
#: Smoothing of the losses, and how far above the lowest of them the test ends.
_SMOOTH, _BROKEN = 0.9, 3.0
#: A step's share of the range, below which the loss tells nothing yet.
_LEAST = 10


@dataclass(frozen=True)
class RateSearch:
    """How the loss went.

    Attributes:
        rates: of each step, of the head.
        losses: of each step's batch.
        smooth: their moving average.
        suggested: the rate at which the smoothed loss falls fastest; None where it never falls.
        highest: the rate of its lowest value: from here on training breaks down.
    """

    rates: Floats
    losses: Floats
    smooth: Floats
    suggested: float | None
    highest: float

    def to_json(self) -> dict[str, Any]:
        """As ``edgetl lr-find --json`` has it."""
        columns = {"rates": self.rates, "losses": self.losses, "smooth": self.smooth}
        return {
            "suggested": self.suggested,
            "highest": self.highest,
            **{name: [float(f"{value:.6g}") for value in column] for name, column in columns.items()},
        }


def find_rate(
    data: str | Path,
    *,
    task: str | None = None,
    backbone: str | None = None,
    strategy: str = "fine-tune",
    seed: int = 0,
    batch_size: int = 32,
    image_size: int | None = None,
    weights: str | Path | None = None,
    accelerator: str = "auto",
    precision: str = "auto",
    steps: int = STEPS,
    progress: Progress = silent,
) -> RateSearch:
    """Train for some steps while the learning rate rises geometrically, and look where the loss falls fastest.

    Nothing is kept. Smith 2017, "Cyclical Learning Rates for Training Neural Networks".

    Args:
        data, task, backbone, strategy, seed, batch_size, image_size, weights, accelerator, precision: as for
            :func:`edgetl.finetune`.
        steps: of the whole range.
        progress: told of each step.

    Raises:
        EdgetlError: as finetune, or a strategy that takes no gradient step.
    """
    if steps < 2 * _LEAST:
        raise EdgetlError(f"{steps} steps are too few to see the loss fall", f"give at least {2 * _LEAST}")
    with tempfile.TemporaryDirectory() as folder:
        given = (
            data,
            Path(folder) / "run",
            task,
            backbone,
            strategy,
            None,
            seed,
            batch_size,
            None,
            image_size,
            weights,
        )
        order = plan(Options(*given, 1, accelerator, precision, 0, None, math.inf))
        if not order.strategy.schedule.epochs:
            raise EdgetlError(f"the strategy '{strategy}' takes no gradient step", "name another --strategy")
        with reproducible(order.placement.device):
            setup, feed = _ready(order, progress)
            return judged(*_climb(setup, feed, steps, progress))


def _ready(order: Plan, progress: Progress) -> tuple[Setup, Feed]:
    """The model with its fitted head, and its batches, as training begins."""
    order.out.mkdir(parents=True)
    with FirstSteps(order.out, fresh=False) as steps:
        dataset = read_samples(order, steps, progress)
        order = order.for_data(dataset)
        job = begun(order, dataset, steps, progress)
    fabric = order.placement.fabric()
    fabric.launch()
    setup = assemble(fabric, job)
    enter_train_mode(setup)
    return setup, feed_of(setup, job, progress)


def _climb(setup: Setup, feed: Feed, steps: int, progress: Progress) -> tuple[Floats, Floats]:
    """Rates and losses, until the loss is no number or the smoothed one far above its lowest."""
    rates, losses = np.geomspace(LOWEST, HIGHEST, steps), list[float]()
    lowest = math.inf
    for number, (inputs, targets, beside) in zip(range(steps), _batches(feed), strict=False):
        train.reseed(setup.seed, 0, number, 0)
        told = train.accumulate(setup, inputs, targets, len(targets), 0.0, beside)
        loss = float(told[0] / told[2])
        if not math.isfinite(loss):
            break
        losses.append(loss)
        now = float(_smoothed(losses)[-1])
        lowest = min(lowest, now)
        if number > _LEAST and now > _BROKEN * lowest:
            break
        train.update(setup, float(rates[number]), epoch=_EVERY_LAYER)
        progress("raising the learning rate", number + 1, steps, f"{rates[number]:.2g}, loss {now:.3f}")
    return rates[: len(losses)], np.array(losses)


#: An epoch in which no gradual unfreezing holds anything back.
_EVERY_LAYER = 1 << 30


def _batches(feed: Feed) -> Iterator[Any]:
    epoch = 0
    while True:
        yield from feed.epoch(feed.batches(epoch), epoch, 0)
        epoch += 1


def _smoothed(losses: Sequence[float] | Floats) -> Floats:
    """The moving average after each, corrected for its start at 0."""
    found, average = np.empty(len(losses)), 0.0
    for number, loss in enumerate(losses):
        average = _SMOOTH * average + (1 - _SMOOTH) * loss
        found[number] = average / (1 - _SMOOTH ** (number + 1))
    return found


def judged(rates: Floats, losses: Floats) -> RateSearch:
    """What rates and the losses under them tell.

    Raises:
        EdgetlError: training broke down before it began.
    """
    if len(losses) < _LEAST:
        raise EdgetlError(f"the loss was no number after {len(losses)} steps", "give --precision 32-true")
    smooth = _smoothed(losses)
    lowest = max(int(smooth[_LEAST:].argmin()) + _LEAST, _LEAST)
    slopes = np.gradient(smooth, np.log(rates))[_LEAST // 2 : lowest]
    falls = len(slopes) > 0 and bool(slopes.min() < 0) and smooth[lowest] < 0.99 * smooth[_LEAST // 2]
    steepest = float(rates[_LEAST // 2 + int(slopes.argmin())]) if falls else None
    return RateSearch(rates, losses, smooth, steepest, float(rates[lowest]))
