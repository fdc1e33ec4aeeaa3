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
from edgetl.compress.outcome import Outcome
from edgetl.compress.recipes import Recipe
from edgetl.core.compression import LayerNoise, RepairRecord, TrialRecord

#: An attempt has to lower the divergence from the trained model by this share to be built upon: on a model that has
#: collapsed, settings that hardly matter help a little by chance, and then stand in the way of the cure.
LEAST_GAIN = 0.2
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
        source: which weights are compressed: the trained ones, or the name of those with another head, or of those
            trained again.
        remedy: which one proposed it; :data:`DEFAULT` for the first.
        fitted: its weights suit the arithmetic of this very recipe, so that nothing may be built upon it.
    """

    change: str
    precision: str
    recipe: Recipe | None
    source: str = TRAINED
    remedy: str = DEFAULT
    fitted: bool = False


@dataclass(frozen=True)
class Trial:
    """One attempt that was made, or a remedy that was passed over.

    Attributes:
        remedy: which one.
        attempt: what was tried; None where the remedy did not apply.
        outcome: what it came to; None if it could not be made.
        seconds: spent on it.
        kept: whether it was the best until then: the last such one is deployed.
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
        trained: the same, to the labels, too, from the weights of the attempt.
        refitted: fits the head again to what an attempt's backbone gives, in one way after the other: the same of each.
    """

    kind: str
    available: int
    refuses: Callable[[str], str | None]
    ranked: Callable[[Attempt], Sequence[Reverted]]
    distilled: Callable[[Attempt], tuple[str, str]]
    trained: Callable[[Attempt], tuple[str, str]]
    refitted: Callable[[Attempt], Iterable[tuple[str, str]]]


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
    (best, best_outcome), (base, base_outcome) = (start, first), (start, first)
    stopped = "The default is good enough." if first.good(margin) else "Every remedy was tried, and none sufficed."
    for number, (name, remedy) in enumerate(() if first.good(margin) else remedies.items()):
        progress(f"repair: {name}", number, len(remedies))
        for trial in _tries(name, remedy, base, means, measure, lambda: _over(began, minutes)):
            if trial.outcome is None or trial.attempt is None:
                done.append(trial)
                continue
            learned = trial.attempt.fitted or best.fitted
            better = _better(trial.outcome, best_outcome, margin, learned=learned)
            done.append(replace(trial, kept=better))
            if better:
                best, best_outcome = trial.attempt, trial.outcome
            if not trial.attempt.fitted and _better(trial.outcome, base_outcome, margin, learned=False):
                base, base_outcome = trial.attempt, trial.outcome
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


def _better(outcome: Outcome, best: Outcome, margin: float, *, learned: bool) -> bool:
    """Weights that learned give other answers than the trained ones, and need not be worse for it."""
    new, old = ((not one.broken(margin), one.good(margin)) for one in (outcome, best))
    if new != old:
        return new > old
    if learned:
        return outcome.expected_difference > best.expected_difference
    return outcome.divergence < (1 - LEAST_GAIN) * best.divergence


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
