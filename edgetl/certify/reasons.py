"""Why the verdict is what it is, and what the certificate cannot say: in sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgetl.base.wording import amount, counted, percent
from edgetl.certify.betting import samples_needed
from edgetl.certify.classes import ClassOutcome
from edgetl.certify.comparison import Comparison
from edgetl.certify.gain import BASELINES
from edgetl.certify.metric_test import MetricTest
from edgetl.certify.paired import needed_at
from edgetl.core.certificate_parts import Reading, TransferGain
from edgetl.core.findings import Finding
from edgetl.tasks import Metric, Task

NO_BASELINE = (
    "How much of the transfer's gain was kept is not known: no baseline (a from-scratch model or a linear probe) "
    "was trained."
)
NO_GAIN = "How much of the transfer's gain was kept is told of single classes, right or wrong, and not for {task}."
SPREAD_LOSS = "No single rung of the ladder lost as much as the margin: the loss adds up over several."


def verdict_reasons(test: MetricTest, n: int, metric: Metric, sample: str) -> list[str]:
    """What decided the paired test of ``metric`` on ``n`` samples, each called ``sample``."""
    margin, sure = amount(test.margin, metric.unit), percent(1 - test.alpha, 0)
    of = "" if metric.title == "accuracy" else f" of {metric.title}"
    if test.verdict == "pass":
        return [f"With {sure} confidence the loss{of} is smaller than the margin of {margin}."]
    seen = amount(-test.difference, metric.unit)
    if test.verdict == "fail":
        return [f"The loss{of} observed, {seen}, is more than chance and not smaller than the margin."]
    if test.n_needed is None:
        return [f"With a margin of 0 the deployed model must be proven better, and {counted(n, sample)} do not."]
    if test.assumed_difference == 0:
        assumed = "if nothing is truly lost"
    else:
        assumed = f"if the true loss is the {amount(-test.assumed_difference, metric.unit)} observed"
    chance = f"; the {seen} observed may be chance" if test.difference <= -test.margin else ""
    return [
        f"{counted(n, sample)} are too few to rule out a loss{of} of {margin}{chance}; about {test.n_needed:,} would "
        f"give an 80 % chance to, {assumed}."
    ]


def collapse_reasons(outcomes: Sequence[ClassOutcome], margin: float, alpha: float, sample: str) -> list[str]:
    """A sentence for each class that collapsed."""
    return [
        f"The recall of class '{c.name}' fell from {percent(c.reference_recall or 0.0)} to "
        f"{percent(c.deployed_recall or 0.0)}: of {counted(c.n, sample)} {c.lost} were lost and {c.gained} gained "
        f"(adjusted p {c.adjusted_p:.2g})."
        for c in outcomes
        if c.collapsed(margin, alpha)
    ]


def class_notes(outcomes: Sequence[ClassOutcome], margin: float, alpha: float, sample: str) -> list[str]:
    """Classes that were not tested, and losses that are real but small."""
    notes = []
    unseen = [c.name for c in outcomes if not c.n]
    if unseen:
        listed = ", ".join(unseen[:5]) + (" …" if len(unseen) > 5 else "")
        notes.append(f"{len(unseen)} of {len(outcomes)} classes have no {sample} here and were not tested: {listed}.")
    notes += [
        f"Class '{c.name}' lost more than chance (adjusted p {c.adjusted_p:.2g}), but less than the margin."
        for c in outcomes
        if c.adjusted_p < alpha and not c.collapsed(margin, alpha)
    ]
    return notes


def margin_notes(comparison: Comparison) -> list[str]:
    """What share of the labels' spread a margin in their unit is: by itself it says nothing to a reader."""
    spread = float(np.std(comparison.scale)) if comparison.decides.unit == "labels" else 0.0
    if not spread or not comparison.margin:
        return []
    of = "these labels" if comparison.trained is None else "the labels of training"
    share = amount(100 * comparison.margin / spread, "")
    return [f"The margin of {amount(comparison.margin, 'labels')} is {share} % of the standard deviation of {of}."]


def sequential_notes(comparison: Comparison, test: MetricTest, sample: str) -> list[str]:
    """What reading again and again costs, and what it does not hold of."""
    counts = comparison.counts()
    if not comparison.sequential or counts is None:
        return []
    once, _ = needed_at(counts, test.margin, test.alpha, "pass")
    more, _ = needed_at(counts, test.margin, test.alpha, "pass", samples_needed)
    price = ""
    if once is not None and more is not None:
        price = (
            f" Its price: about {counted(more, sample)} for an 80 % chance of a pass if nothing is lost, where one "
            f"reading takes about {once:,}."
        )
    return [f"This verdict may be read after every new batch; the other metrics' intervals hold at one reading.{price}"]


def is_registered(comparison: Comparison, readings: Sequence[Reading]) -> bool:
    """Whether the terms are those of the first reading of these samples."""
    own = comparison.metric, comparison.margin, comparison.alpha, comparison.sequential
    return not readings or readings[0].terms == own


def reading_notes(comparison: Comparison, readings: Sequence[Reading]) -> list[str]:
    """What it means that these samples were read before."""
    if not readings:
        return []
    first, times = readings[0], "once" if len(readings) == 1 else f"{len(readings)} times"
    told = [f"These samples were read {times} before: the level holds of one reading, which was '{first.verdict}'."]
    if comparison.sequential and all(reading.sequential for reading in readings):
        told = [f"These samples were read {times} before, which this test allows for."]
    if not is_registered(comparison, readings):
        margin = f"a margin of {first.margin:g} and a level of {first.alpha:g}"
        told.append(f"These terms were chosen after the first reading, which was on {first.metric}, {margin}.")
    return told


def gain_notes(gain: TransferGain | None, task: Task) -> list[str]:
    """What is not known of the transfer's gain."""
    if not task.has_accuracy:
        return [NO_GAIN.format(task=task.name)]
    if gain is None:
        return [NO_BASELINE]
    if gain.helped == "better":
        return []
    what = "worse than" if gain.helped == "worse" else "not shown to be better than"
    return [
        f"The reference is {what} its baseline, {BASELINES[gain.kind]} ({percent(gain.baseline_accuracy)} right): "
        "how much of the transfer's gain was kept has no meaning."
    ]


def finding_sentence(finding: Finding) -> str:
    """What was found, and what to do about it."""
    remedy = finding.remedy
    return f"{finding.what.rstrip('.')}. To do: {remedy[:1]}{remedy[1:].rstrip('.')}."
