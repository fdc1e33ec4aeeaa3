"""Repair: when compression loses too much on the search split, climb from the cheapest remedy to the dearest.

    better calibration samples → range estimator → asymmetric activations → bias correction → cross-layer equalization
    → mixed precision → distillation → half precision → refuse

Each rung changes the best attempt so far and is tried on search images alone; the certify split is read once, by the
certificate of whatever was chosen. Whether an attempt is good is for the judge to measure: this module knows no
runtime and no image.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgetl.base.errors import EdgetlError
from edgetl.base.progress import Progress, silent
from edgetl.compress.recipes import Recipe
from edgetl.core.compression import LayerNoise, RepairRecord, TrialRecord

#: An attempt has to lower the divergence from the trained model by this share to be built upon: on a model that has
#: collapsed, settings that hardly matter help a little by chance, and then stand in the way of the cure.
LEAST_GAIN = 0.2
#: Margins below this cannot be told from 0 on a search split.
LEAST_MARGIN = 0.0025
CHANCE = 10
#: Search images below which only flips beyond chance call for repair.
LEAST_IMAGES = 100
TRAINED = "trained"


@dataclass(frozen=True)
class Attempt:
    """One way to compress a model.

    Attributes:
        rung: the rung of the ladder that proposed it; "default" for the first.
        change: what differs from the attempt that it builds on, in words.
        precision: int8 or fp16.
        recipe: how int8 comes about; None for a float precision.
        source: which weights are compressed: the trained ones, or the name of those trained again by distillation.
    """

    rung: str
    change: str
    precision: str
    recipe: Recipe | None
    source: str = TRAINED


@dataclass(frozen=True)
class Judged:
    """What an attempt does on the search split, against the trained model; differences are attempt minus trained.

    Attributes:
        n: images.
        accuracy: share that the attempt gets right.
        difference: of the accuracies.
        expected_difference: of the accuracies, if each image's noise had fallen on any other alike: less noisy.
        lost, gained: images that only the trained model, or only the attempt, gets right.
        kl: mean Kullback-Leibler divergence of the attempt from the trained model, nats.
        collapsed: classes whose recall fell by more than chance.
        integer_macs: share of multiply-accumulates executed in integers; None where the runtime does not tell.
        ms: milliseconds an image, one thread; None where this machine cannot execute it natively.
    """

    n: int
    accuracy: float
    difference: float
    expected_difference: float
    lost: int
    gained: int
    kl: float
    collapsed: tuple[str, ...]
    integer_macs: float | None
    ms: float | None

    def broken(self, margin: float) -> bool:
        """A class collapsed, answers that are no numbers, or a loss of the margin that is more than chance.

        On few images a handful of flips makes a point of accuracy: a loss of accuracy counts if so many more lost than
        gained would happen by chance (exact McNemar test) less than once in :data:`CHANCE`.
        """
        lost = self.difference <= -max(margin, LEAST_MARGIN) and self.p_value < 1 / CHANCE
        return lost or bool(self.collapsed) or not math.isfinite(self.expected_difference)

    def good(self, margin: float) -> bool:
        """Not broken and, from :data:`LEAST_IMAGES` on, an expected loss of less than half the margin.

        Half, because a certificate cannot pass a model that loses the margin, and seldom one that loses nearly so much.
        """
        kept = self.expected_difference > -max(margin / 2, LEAST_MARGIN) or self.n < LEAST_IMAGES
        return kept and not self.broken(margin)

    @property
    def p_value(self) -> float:
        """Of no more images lost than gained: P(X >= lost) for X ~ Binomial(lost + gained, 1/2)."""
        flips = self.lost + self.gained
        return float(sum(math.comb(flips, k) for k in range(self.lost, flips + 1)) / 2**flips)


@dataclass(frozen=True)
class Trial:
    """One attempt that was made, or a rung that was passed over.

    Attributes:
        attempt: what was tried; None where the rung did not apply.
        rung: its rung.
        judged: what it came to; None if it could not be made.
        seconds: spent on it.
        kept: whether the climb went on from it.
        note: why it was not made, or "".
    """

    rung: str
    attempt: Attempt | None
    judged: Judged | None
    seconds: float
    kept: bool
    note: str = ""

    @property
    def record(self) -> TrialRecord:
        """What a bundle keeps of it."""
        attempt, judged = self.attempt, self.judged
        names = ("n", "accuracy", "difference", "expected_difference", "lost", "gained", "kl", "integer_macs", "ms")
        figures = {name: None if judged is None else _finite(getattr(judged, name)) for name in names}
        return TrialRecord(
            remedy=self.rung,
            change=attempt.change if attempt else "",
            precision=attempt.precision if attempt else None,
            collapsed=judged.collapsed if judged else (),
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
    """Outcome of a climb.

    Attributes:
        needed: whether the default attempt was not good enough.
        chosen: the attempt to deploy.
        survived: whether it is not broken on the search split; if it is, the export is refused.
        stopped: why the climb ended, in a sentence.
        trials: everything that was tried, in order.
        seconds: the whole climb took.
        budget_minutes: it was allowed.
        margin: greatest tolerable loss.
    """

    needed: bool
    chosen: Attempt
    survived: bool
    stopped: str
    trials: tuple[Trial, ...]
    seconds: float
    budget_minutes: float
    margin: float

    def record(self, layers: tuple[LayerNoise, ...] = ()) -> RepairRecord:
        """What a bundle keeps of it, with what the default attempt did to each layer."""
        return RepairRecord(
            needed=self.needed,
            chosen=self.chosen.rung,
            survived=self.survived,
            stopped=self.stopped,
            margin=self.margin,
            budget_minutes=self.budget_minutes,
            seconds=round(self.seconds, 1),
            trials=tuple(trial.record for trial in self.trials),
            layers=layers,
        )


Judge = Callable[[Attempt], Judged]
#: From the best attempt so far to those worth trying; a sentence where the rung does not apply.
Proposal = Callable[[Attempt], "Iterable[Attempt] | str"]
Rung = tuple[str, Proposal]


def climb(
    start: Attempt, rungs: Sequence[Rung], judge: Judge, *, margin: float, minutes: float, progress: Progress = silent
) -> Repair:
    """Try the default; while it is not good, each rung in turn, until one is, or time is up.

    Args:
        start: the default attempt.
        rungs: name and proposal of each, cheapest first; none to try nothing but the default.
        judge: makes an attempt and measures it on search images; its EdgetlErrors count as a rung that failed.
        margin: greatest tolerable loss.
        minutes: after which no further attempt is begun.
        progress: told of each attempt.

    Raises:
        EdgetlError: the default itself cannot be made.
    """
    began = time.monotonic()
    first = judge(start)
    done = [Trial(start.rung, start, first, time.monotonic() - began, True)]
    best, best_judged = start, first
    stopped = "The default is good enough." if first.good(margin) else "Every remedy was tried, and none sufficed."
    for number, (name, propose) in enumerate(() if first.good(margin) else rungs):
        progress(f"repair: {name}", number, len(rungs))
        for trial in _tries(name, propose, best, judge, lambda: _over(began, minutes)):
            better = trial.judged is not None and _better(trial.judged, best_judged, margin)
            done.append(replace(trial, kept=better))
            if better and trial.attempt and trial.judged:
                best, best_judged = trial.attempt, trial.judged
            if best_judged.good(margin):
                break
        if best_judged.good(margin):
            stopped = f"{name}: {best.change} is good enough on the search split."
            break
        if _over(began, minutes):
            stopped = f"The budget of {minutes:g} minutes was spent at the rung '{name}'."
            break
    seconds = time.monotonic() - began
    survived = not best_judged.broken(margin)
    if survived and not best_judged.good(margin):
        stopped += f" What is left of the loss may be chance ({best_judged.lost} lost, {best_judged.gained} gained)."
    return Repair(not first.good(margin), best, survived, stopped, tuple(done), seconds, minutes, margin)


def _over(began: float, minutes: float) -> bool:
    return time.monotonic() - began > 60 * minutes


def _better(judged: Judged, best: Judged, margin: float) -> bool:
    new, old = ((not one.broken(margin), one.good(margin)) for one in (judged, best))
    return new > old if new != old else judged.kl < (1 - LEAST_GAIN) * best.kl


def _tries(name: str, propose: Proposal, best: Attempt, judge: Judge, over: Callable[[], bool]) -> Iterable[Trial]:
    began = time.monotonic()
    try:
        proposals = propose(best)
        if isinstance(proposals, str):
            yield Trial(name, None, None, 0.0, False, proposals)
            return
        for attempt in proposals:
            if over():
                return
            try:
                judged = judge(attempt)
            except EdgetlError as error:
                yield Trial(name, attempt, None, time.monotonic() - began, False, str(error))
            else:
                yield Trial(name, attempt, judged, time.monotonic() - began, False)
            began = time.monotonic()
    except EdgetlError as error:
        yield Trial(name, None, None, time.monotonic() - began, False, str(error))
