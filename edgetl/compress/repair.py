"""Repair: when compression loses too much on the search split, remedies are tried from the cheapest to the dearest.

Which they are says :data:`edgetl.compress.remedies.REMEDIES`; after the last one the export is refused. Each changes
the best attempt so far and is tried on search samples alone; the certify split is read once, by the certificate of
whatever was chosen. Whether an attempt is good is for somebody else to measure: this module knows no runtime and no
sample.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgetl.base.errors import EdgetlError
from edgetl.base.progress import Progress, silent
from edgetl.compress.recipes import Recipe
from edgetl.core.compression import LayerNoise, RepairRecord, TrialRecord

#: An attempt has to lower the divergence from the trained model by this share to be built upon: on a model that has
#: collapsed, settings that hardly matter help a little by chance, and then stand in the way of the cure.
LEAST_GAIN = 0.2
#: Losses of a share of right answers below this cannot be told from 0 on a search split.
RESOLUTION = 0.0025
CHANCE = 10
#: Search samples below which only losses beyond chance call for repair.
LEAST_SAMPLES = 100
DEFAULT, TRAINED = "default", "trained"
#: What is kept of an outcome, beside the classes that collapsed.
FIGURES = (
    "n", "score", "difference", "expected_difference", "lost", "gained", "divergence", "integer_macs", "ms",
)  # fmt: skip


@dataclass(frozen=True)
class Attempt:
    """One way to compress a model.

    Attributes:
        change: what differs from the attempt that it builds on, in words.
        precision: int8 or fp16.
        recipe: how int8 comes about; None for a float precision.
        source: which weights are compressed: the trained ones, or the name of those trained again by distillation.
        remedy: which one proposed it; :data:`DEFAULT` for the first.
    """

    change: str
    precision: str
    recipe: Recipe | None
    source: str = TRAINED
    remedy: str = DEFAULT


@dataclass(frozen=True)
class Outcome:
    """What an attempt does on the search split, against the trained model.

    Attributes:
        n: samples.
        score: the attempt's, in the metric of the task.
        difference: how much better it is than the trained model's; negative is a loss, whichever scores are better.
        expected_difference: the same if each sample's noise had fallen on any other alike, where that can be told.
        lost, gained: samples that only the trained model, or only the attempt, gets right; 0 where none is right or
            wrong.
        divergence: of the attempt's outputs from the trained model's, as the task measures it.
        collapsed: classes whose recall fell by more than chance.
        integer_macs: share of multiply-accumulates executed in integers; None where the runtime does not tell.
        ms: milliseconds a sample, one thread; None where this machine cannot execute it natively.
        resolution: losses below this cannot be told from 0, in the metric's unit.
        error: standard error of the difference, where no answer is right or wrong; None where the flips tell.
    """

    n: int
    score: float
    difference: float
    expected_difference: float
    lost: int
    gained: int
    divergence: float
    collapsed: tuple[str, ...]
    integer_macs: float | None
    ms: float | None
    resolution: float = RESOLUTION
    error: float | None = None

    def broken(self, margin: float) -> bool:
        """A class collapsed, answers that are no numbers, or a loss of the margin that is more than chance.

        On few samples a handful of flips makes a point of accuracy: a loss counts if one so great would happen by
        chance less than once in :data:`CHANCE`.
        """
        lost = self.difference <= -max(margin, self.resolution) and self.p_value < 1 / CHANCE
        return lost or bool(self.collapsed) or not math.isfinite(self.expected_difference)

    def good(self, margin: float) -> bool:
        """Not broken and, from :data:`LEAST_SAMPLES` on, an expected loss of less than half the margin.

        Half, because a certificate cannot pass a model that loses the margin, and seldom one that loses nearly so much.
        """
        kept = self.expected_difference > -max(margin / 2, self.resolution) or self.n < LEAST_SAMPLES
        return kept and not self.broken(margin)

    @property
    def p_value(self) -> float:
        """Of no loss: P(X >= lost) for X ~ Binomial(lost + gained, 1/2) (exact McNemar test), or a normal tail."""
        if self.error is not None:
            return math.erfc(-self.difference / (math.sqrt(2) * max(self.error, 1e-30))) / 2
        flips = self.lost + self.gained
        return float(sum(math.comb(flips, k) for k in range(self.lost, flips + 1)) / 2**flips)


@dataclass(frozen=True)
class Trial:
    """One attempt that was made, or a remedy that was passed over.

    Attributes:
        remedy: which one.
        attempt: what was tried; None where the remedy did not apply.
        outcome: what it came to; None if it could not be made.
        seconds: spent on it.
        kept: whether repair went on from it.
        note: why it was not made, or "".
    """

    remedy: str
    attempt: Attempt | None
    outcome: Outcome | None
    seconds: float
    kept: bool
    note: str = ""

    @property
    def record(self) -> TrialRecord:
        """What a bundle keeps of it."""
        attempt, outcome = self.attempt, self.outcome
        figures = {name: None if outcome is None else _finite(getattr(outcome, name)) for name in FIGURES}
        return TrialRecord(
            remedy=self.remedy,
            change=attempt.change if attempt else "",
            precision=attempt.precision if attempt else None,
            collapsed=outcome.collapsed if outcome else (),
            ms_unit="host, one thread" if figures["ms"] is not None else "",
            seconds=round(self.seconds, 1),
            kept=self.kept,
            note=self.note,
            **figures,
        )


def _finite(value: Any) -> Any:
    """JSON holds no answer that is no number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Repair:
    """What repair came to.

    Attributes:
        needed: whether the default attempt was not good enough.
        chosen: the attempt to deploy.
        survived: whether it is not broken on the search split; if it is, the export is refused.
        stopped: why it ended, in a sentence.
        trials: everything that was tried, in order.
        seconds: it took.
        budget_minutes: it was allowed.
        margin: greatest tolerable loss, in the metric's unit.
    """

    needed: bool
    chosen: Attempt
    survived: bool
    stopped: str
    trials: tuple[Trial, ...]
    seconds: float
    budget_minutes: float
    margin: float

    def record(self, metric: str, unit: str, layers: tuple[LayerNoise, ...] = ()) -> RepairRecord:
        """What a bundle keeps of it: what scores are of, and what the default attempt did to each layer."""
        return RepairRecord(
            needed=self.needed,
            chosen=self.chosen.remedy,
            survived=self.survived,
            stopped=self.stopped,
            margin=self.margin,
            budget_minutes=self.budget_minutes,
            seconds=round(self.seconds, 1),
            trials=tuple(trial.record for trial in self.trials),
            layers=layers,
            metric=metric,
            unit=unit,
        )


@dataclass(frozen=True)
class Reverted:
    """Nodes that go to float together, and in words what that removes and costs."""

    nodes: tuple[str, ...]
    worth: str


@dataclass(frozen=True)
class Means:
    """What a remedy may call upon.

    Attributes:
        kind: of the model (:data:`edgetl.compress.graph.KINDS`).
        available: number of calibration samples that there are.
        refuses: from a precision to why the target does not take it, or None.
        ranked: groups of nodes of an attempt that may go to float, best value first.
        distilled: trains the weights for an attempt's recipe: what was done, and the name of the weights.
    """

    kind: str
    available: int
    refuses: Callable[[str], str | None]
    ranked: Callable[[Attempt], Sequence[Reverted]]
    distilled: Callable[[Attempt], tuple[str, str]]


Measure = Callable[[Attempt], Outcome]
#: From the best attempt so far to those worth trying; a sentence where the remedy does not apply.
Remedy = Callable[[Attempt, Means], "Iterable[Attempt] | str"]


def try_remedies(
    start: Attempt,
    remedies: Mapping[str, Remedy],
    means: Means,
    measure: Measure,
    *,
    margin: float,
    minutes: float,
    progress: Progress = silent,
) -> Repair:
    """Try the default; while it is not good, each remedy in turn, until one is, or time is up.

    Args:
        start: the default attempt.
        remedies: by name, the cheapest first; none to try nothing but the default.
        means: what they may call upon.
        measure: makes an attempt and runs it on search samples; its EdgetlErrors count as a remedy that failed.
        margin: greatest tolerable loss, in the metric's unit.
        minutes: after which no further attempt is begun.
        progress: told of each attempt.

    Raises:
        EdgetlError: the default itself cannot be made.
    """
    began = time.monotonic()
    first = measure(start)
    done = [Trial(start.remedy, start, first, time.monotonic() - began, True)]
    best, best_outcome = start, first
    stopped = "The default is good enough." if first.good(margin) else "Every remedy was tried, and none sufficed."
    for number, (name, remedy) in enumerate(() if first.good(margin) else remedies.items()):
        progress(f"repair: {name}", number, len(remedies))
        for trial in _tries(name, remedy, best, means, measure, lambda: _over(began, minutes)):
            better = trial.outcome is not None and _better(trial.outcome, best_outcome, margin)
            done.append(replace(trial, kept=better))
            if better and trial.attempt and trial.outcome:
                best, best_outcome = trial.attempt, trial.outcome
            if best_outcome.good(margin):
                break
        if best_outcome.good(margin):
            stopped = f"{name}: {best.change} is good enough on the search split."
            break
        if _over(began, minutes):
            stopped = f"The budget of {minutes:g} minutes was spent at the remedy '{name}'."
            break
    survived = not best_outcome.broken(margin)
    if survived and not best_outcome.good(margin):
        stopped += f" What is left of the loss may be chance ({_chance(best_outcome)})."
    seconds = time.monotonic() - began
    return Repair(not first.good(margin), best, survived, stopped, tuple(done), seconds, minutes, margin)


def _over(began: float, minutes: float) -> bool:
    return time.monotonic() - began > 60 * minutes


def _better(outcome: Outcome, best: Outcome, margin: float) -> bool:
    new, old = ((not one.broken(margin), one.good(margin)) for one in (outcome, best))
    return new > old if new != old else outcome.divergence < (1 - LEAST_GAIN) * best.divergence


def _chance(outcome: Outcome) -> str:
    if outcome.error is None:
        return f"{outcome.lost} lost, {outcome.gained} gained"
    return f"standard error {outcome.error:.3g}"


def _tries(
    name: str, remedy: Remedy, best: Attempt, means: Means, measure: Measure, over: Callable[[], bool]
) -> Iterable[Trial]:
    began = time.monotonic()
    try:
        proposals = remedy(best, means)
        if isinstance(proposals, str):
            yield Trial(name, None, None, 0.0, False, proposals)
            return
        for attempt in (replace(proposal, remedy=name) for proposal in proposals):
            if over():
                return
            try:
                outcome = measure(attempt)
            except EdgetlError as error:
                yield Trial(name, attempt, None, time.monotonic() - began, False, str(error))
            else:
                yield Trial(name, attempt, outcome, time.monotonic() - began, False)
            began = time.monotonic()
    except EdgetlError as error:
        yield Trial(name, None, None, time.monotonic() - began, False, str(error))
