"""What to train, said with reasons: from what was measured of the samples, and from what the field has measured.

Rules, in the order in which they are asked; each sentence names the figure that it rests on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgetl.base.errors import EdgetlError
from edgetl.base.progress import Progress, silent
from edgetl.base.wording import percent
from edgetl.certify import images_needed
from edgetl.transfer.choosing.ranking import Ranked
from edgetl.transfer.choosing.shift import ALIKE, APART, shift
from edgetl.workflow.rank_backbones import Choice, rank

#: Samples of the smallest class from which on more than the head is worth training, and the fewest to train at all.
ENOUGH, FEWEST = 30, 5
#: An accuracy of the probe above which there is nothing left to gain that a certificate could show.
SOLVED = 0.99
#: How unequal classes are before it has to be spoken of: samples of the largest for each of the smallest.
UNEQUAL = 10
#: What adaptation did, measured.
ADAPTED = (
    "digits of one collection to another's, a small network, three seeds: 64 % right on the source alone, 72 % by "
    "AdaBN, 85 % by SHOT, 87 % by MMD (benchmarks/results/domain_adaptation.json)"
)
#: Share of answers on which a trained and a compressed model usually differ (docs/recipes.md), and the usual margin.
DISAGREEMENT, MARGIN = 0.02, 0.01


@dataclass(frozen=True)
class Candidate:
    """A backbone, as far as advice looks at it.

    Attributes:
        name: of the backbone.
        value, low, high: of the cross-validated probe, a share where larger is better or a figure of the task.
        best: whether none is better beyond chance.
        parameters: numbers in it.
        ms: on the target; None where that was not measured.
    """

    name: str
    value: float
    low: float
    high: float
    best: bool
    parameters: int
    ms: float | None = None


@dataclass(frozen=True)
class Situation:
    """What is known before training.

    Attributes:
        data: as the user names it.
        kind: of input.
        task: name.
        samples: to learn from.
        certify: held back to certify on.
        classes: samples of each to learn from; empty where labels are numbers.
        candidates: backbones, the best first.
        share: whether the probe's figure is a share of right answers.
        target: the device's name; "" for none.
        budget_ms: for one sample there; None for any.
        shift: proxy A-distance to the samples of use; None where none were given.
        use: those samples, as the user names them.
        use_labelled: whether they have labels.
    """

    data: str
    kind: str
    task: str
    samples: int
    certify: int
    classes: Mapping[str, int]
    candidates: tuple[Candidate, ...]
    share: bool = True
    target: str = ""
    budget_ms: float | None = None
    shift: float | None = None
    use: str = ""
    use_labelled: bool = False

    @property
    def fewest(self) -> int | None:
        """Samples of the smallest class."""
        return min(self.classes.values()) if self.classes else None


@dataclass(frozen=True)
class Reason:
    """A sentence, and what it rests on: a measured figure, or a paper."""

    says: str
    rests_on: str


@dataclass(frozen=True)
class Advice:
    """What to do.

    Attributes:
        backbone, strategy: to train; "" where nothing can be trained yet.
        commands: to give, in order.
        reasons: for each choice.
        warnings: what it will not do, and what to do about that.
    """

    backbone: str
    strategy: str
    commands: tuple[str, ...]
    reasons: tuple[Reason, ...]
    warnings: tuple[Reason, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """As ``edgetl advise --json`` has it."""
        told = {"reasons": self.reasons, "warnings": self.warnings}
        return {
            "backbone": self.backbone or None,
            "strategy": self.strategy or None,
            "commands": list(self.commands),
            **{name: [{"says": r.says, "rests_on": r.rests_on} for r in rows] for name, rows in told.items()},
        }


def advised(situation: Situation) -> Advice:
    """The advice for a situation; the same for the same one."""
    warnings = [*_power(situation), *_unequal(situation), *_moved(situation)]
    if situation.fewest is not None and situation.fewest < FEWEST:
        small = min(situation.classes, key=lambda name: situation.classes[name])
        says = f"label more of '{small}', or leave it out: {FEWEST} is the least that a split leaves something of"
        return Advice("", "", (), (Reason(says, f"{situation.fewest} samples to learn it from"),), tuple(warnings))
    chosen, why = _backbone(situation)
    if chosen is None:
        return Advice("", "", (), (why,), tuple(warnings))
    strategy, because = _strategy(situation, chosen)
    command = f"edgetl finetune {situation.data} --out run --backbone {chosen.name}"
    command += "" if strategy == "fine-tune" else f" --strategy {strategy}"
    command += " --baseline probe" if strategy == "fine-tune" else ""
    export = f"edgetl export run --target {situation.target or 'TARGET'} --out out"
    return Advice(chosen.name, strategy, (command, export), (why, because), tuple(warnings))


def _backbone(situation: Situation) -> tuple[Candidate | None, Reason]:
    """The smallest or fastest of those that nothing beats beyond chance, within the budget."""
    fitting = list(situation.candidates)
    if situation.budget_ms is not None:
        fitting = [c for c in fitting if c.ms is None or c.ms <= situation.budget_ms]
    if not fitting:
        fastest = min((c for c in situation.candidates if c.ms is not None), key=lambda c: c.ms or 0.0)
        says = f"no backbone here is within {situation.budget_ms:g} ms: take a smaller image, or another backbone"
        return None, Reason(says, f"{fastest.name}, the fastest, takes {fastest.ms:.1f} ms on {situation.target}")
    tied = [c for c in fitting if c.best] or fitting[:1]
    chosen = min(tied, key=lambda c: c.ms if c.ms is not None else c.parameters / 1e6)
    speed = f"{chosen.ms:.1f} ms on {situation.target}" if chosen.ms is not None else f"{chosen.parameters / 1e6:.1f} M"
    figure = f"{_shown(situation, chosen.value)} ({_shown(situation, chosen.low)} to {_shown(situation, chosen.high)})"
    measured = f"a linear head on its features reaches {figure}, cross-validated on {situation.samples} samples"
    if len(tied) > 1:
        others = ", ".join(c.name for c in tied if c is not chosen)
        return chosen, Reason(
            f"{chosen.name}: no better beyond chance are {others}, and it is the lightest ({speed})", measured
        )
    if chosen is not situation.candidates[0] and situation.candidates[0].best:
        return chosen, Reason(f"{chosen.name}: the best that fits the budget ({speed})", measured)
    why = "it leads beyond chance" if len(situation.candidates) > 1 else "the only one that was compared"
    return chosen, Reason(f"{chosen.name}: {why} ({speed})", measured)


def _strategy(situation: Situation, chosen: Candidate) -> tuple[str, Reason]:
    """How much of it to train."""
    if situation.share and chosen.low >= SOLVED:
        says = "linear-probe: there is nothing left to gain that a certificate could show"
        return "linear-probe", Reason(says, f"the probe is right on {percent(chosen.low)} at the least")
    fewest = situation.fewest if situation.fewest is not None else situation.samples
    if fewest < ENOUGH:
        says = "linear-probe: so few samples fit a head, and no more than that"
        known = "Kumar et al. 2022: fine-tuning distorts features that few samples cannot put right"
        of = "in the smallest class" if situation.classes else "to learn from"
        return "linear-probe", Reason(says, f"{fewest} samples {of}; {known}")
    if situation.kind == "text":
        measured = (
            "SST-2, 2,000 sentences: 79.5 % by a probe, 86.5 % fine-tuned (benchmarks/results/task_transfer.json)"
        )
        return "fine-tune", Reason("fine-tune: a sentence's vector was not made for these labels", measured)
    known = "Kumar et al. 2022: the head first, then all of it; --baseline probe tells afterwards what it gained"
    return "fine-tune", Reason("fine-tune: there are enough samples to move the features", f"{fewest} each; {known}")


def _power(situation: Situation) -> list[Reason]:
    """Whether a certificate can pass at the usual margin."""
    if not situation.share:
        return []
    needed = images_needed(DISAGREEMENT, MARGIN)
    if situation.certify >= needed:
        return []
    provable = next(
        m / 1000
        for m in range(10, 1000)
        if images_needed(max(DISAGREEMENT, m / 1000), m / 1000) <= max(situation.certify, 1)
    )
    asked = f"hold more back, or ask for {percent(provable, 1)}"
    says = f"a certificate at a margin of 1 point will probably be underpowered: {asked}"
    basis = f"{situation.certify} samples to certify on, {needed} needed where 2 % of the answers differ"
    return [Reason(says, basis)]


def _unequal(situation: Situation) -> list[Reason]:
    if not situation.classes:
        return []
    few, many = (pick(situation.classes, key=lambda n: situation.classes[n]) for pick in (min, max))
    ratio = situation.classes[many] / max(situation.classes[few], 1)
    if ratio < UNEQUAL:
        return []
    says = f"look at balanced accuracy and at '{few}' alone: accuracy hardly notices it"
    return [Reason(says, f"{ratio:.0f} samples of '{many}' for each of '{few}'; fine-tune weighs classes for this")]


def _moved(situation: Situation) -> list[Reason]:
    if situation.shift is None or situation.shift < ALIKE:
        return []
    basis = (
        f"proxy A-distance {situation.shift:.2f} between {situation.data} and {situation.use} (2: always told apart)"
    )
    if situation.use_labelled:
        return [Reason(f"certify on {situation.use}, and put part of it among the samples to learn from", basis)]
    says = f"label some of {situation.use}: a certificate on {situation.data} does not speak of it"
    label = Reason(says if situation.shift < APART else f"{says} at all", basis)
    if not situation.classes:
        return [label]
    how = f"--strategy mmd --target-data {situation.use}, against --strategy source-only"
    return [label, Reason(f"try to adapt to it, which takes no label of it: {how}", ADAPTED)]


def _shown(situation: Situation, value: float) -> str:
    return percent(value) if situation.share else f"{value:.4g}"


def advise(
    data: str | Path,
    *,
    task: str | None = None,
    backbones: Sequence[str] = (),
    target: str | None = None,
    budget_ms: float | None = None,
    target_data: str | Path | None = None,
    image_size: int | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    progress: Progress = silent,
) -> Advice:
    """What to train for these samples and this device, and why.

    Args:
        data, task, backbones, target, image_size, seed, accelerator: see :func:`edgetl.rank`.
        budget_ms: the longest that one sample may take on the target.
        target_data: samples of where the model will be used, labelled or not.
        progress: told of each sample.

    Raises:
        EdgetlError: as rank and shift, or a budget without a target.
    """
    if budget_ms is not None and (target is None or not budget_ms > 0):
        raise EdgetlError("a budget of milliseconds is of a target", "give --target, and a positive --budget-ms")
    found = rank(
        data, task=task, backbones=backbones, target=target, image_size=image_size, seed=seed,
        accelerator=accelerator, progress=progress,
    )  # fmt: skip
    return advised(_situation(data, found, budget_ms, target_data, image_size, seed, accelerator, progress))


def _situation(
    data: str | Path,
    found: Choice,
    budget_ms: float | None,
    use: str | Path | None,
    image_size: int | None,
    seed: int,
    accelerator: str,
    progress: Progress,
) -> Situation:
    ranking = found.ranking
    moved = None
    if use is not None:
        best = ranking.rows[0].backbone
        moved = shift(
            data, use, backbone=best, image_size=image_size, seed=seed, accelerator=accelerator, progress=progress
        )
    return Situation(
        data=str(data),
        kind=ranking.kind,
        task=ranking.task.name,
        samples=ranking.samples,
        certify=ranking.held,
        classes=ranking.classes,
        candidates=tuple(_candidate(row, found) for row in ranking.rows),
        share=ranking.task.metrics[ranking.task.metric].unit == "share",
        target=found.target,
        budget_ms=budget_ms,
        shift=None if moved is None else moved.distance,
        use="" if use is None else str(use),
        use_labelled=moved is not None and moved.labels is not None,
    )


def _candidate(row: Ranked, found: Choice) -> Candidate:
    latency, probe = found.latencies.get(row.backbone), row.probe
    ms = None if latency is None else latency.p50.value
    return Candidate(row.backbone, probe.value, probe.low, probe.high, row.best, row.parameters, ms)
