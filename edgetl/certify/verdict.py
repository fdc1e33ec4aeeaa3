"""From predictions to a certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.certify.certificate import Certificate, images, percent, points
from edgetl.certify.classes import ClassOutcome, balanced_accuracy, class_outcomes
from edgetl.certify.paired import (
    Indexes,
    NonInferiority,
    PairedCounts,
    Verdict,
    check_margin,
    noninferiority,
    paired_indexes,
)
from edgetl.certify.score import score_interval
from edgetl.errors import CertifyError

NO_BASELINE = (
    "How much of the transfer's gain was kept is not known: no baseline (a from-scratch model or a linear probe) "
    "was trained."
)
SPREAD_LOSS = "No single rung of the ladder lost as much as the margin: the loss adds up over several."


@dataclass(frozen=True)
class _Comparison:
    """What every pair of models is judged by: the same images, names, margin and level."""

    labels: Indexes
    names: tuple[str, ...]
    margin: float
    alpha: float

    def collapsed(self, above: Indexes, below: Indexes) -> tuple[ClassOutcome, ...]:
        """The classes that the lower of two models lost (see ``ClassOutcome.collapsed``)."""
        outcomes = class_outcomes(above, below, self.labels, self.names)
        return tuple(c for c in outcomes if c.collapsed(self.margin, self.alpha))


def certify(
    reference: npt.ArrayLike,
    deployed: npt.ArrayLike,
    labels: npt.ArrayLike,
    class_names: Sequence[str] | None = None,
    margin: float = 0.01,
    alpha: float = 0.05,
    rungs: Sequence[tuple[str, npt.ArrayLike]] = (),
    executed: str = "host",
    runtime: str = "",
    isa: str = "",
    precision: str = "",
    hashes: Mapping[str, str] | None = None,
    created: str = "",
    executed_on: Mapping[str, Any] | None = None,
) -> Certificate:
    """Test a deployed model against its reference on the same held-out images.

    The verdict is that of :func:`edgetl.certify.noninferiority`, and fail whenever a class collapsed: its loss is more
    than chance (Holm-adjusted exact McNemar p < ``alpha``) and at least ``margin``. ``first_divergence`` is the first
    rung that, against the rung above it, loses at least ``margin`` in accuracy or has a class that collapsed.

    Args:
        reference: class index predicted by the trained model, integers [n].
        deployed: class index predicted by the deployed model for the same images, integers [n].
        labels: true class index, integers [n].
        class_names: name of every class index; without it the indexes that occur in ``labels`` are the names.
        margin: greatest acceptable loss of accuracy as a fraction, 0 <= margin < 1. With 0 the deployed model has to be
            proven better.
        alpha: one-sided level, 0 < alpha < 0.5.
        rungs: models between reference and deployed, in order, as (name, class indexes [n]).
        executed: where the deployed model ran: device, host or simulated.
        runtime: name and version of its runtime.
        isa: its instruction set.
        precision: precision that was executed.
        hashes: SHA-256 of model, splits, preprocess, manifest, predictions; those that are known.
        created: time stamp to record; no clock is read here.
        executed_on: the machine it ran on, such as its name and kind.

    Raises:
        CertifyError: arrays that are empty, of unequal length, not integers or negative; an index without a name; a
            name given twice; a margin, alpha or place out of range.
    """
    check_margin(margin, alpha)
    truth, before, after = paired_indexes(labels=labels, reference=reference, deployed=deployed)
    between = tuple((name, _rung(name, predictions, truth)) for name, predictions in rungs)
    models = (("reference", before), *between, ("deployed", after))
    names = _names(class_names, truth, models)
    comparison = _Comparison(truth, names, float(margin), float(alpha))
    counts = PairedCounts.from_predictions(before, after, truth)
    test = noninferiority(counts, margin, alpha)
    outcomes = class_outcomes(before, after, truth, names)
    if class_names is None:
        outcomes = tuple(c for c in outcomes if c.n)
    ladder = _ladder(models, comparison)
    first = next((str(rung["name"]) for rung in ladder if rung["diverges"]), None)
    verdict, reasons = _judge(counts, test, outcomes)
    notes = [NO_BASELINE, *_class_notes(outcomes, test)]
    if verdict == "fail" and between and first is None:
        notes.append(SPREAD_LOSS)
    return Certificate(
        verdict=verdict,
        **_measured(counts, test, outcomes),
        transfer_gain_retained=None,
        ladder=ladder,
        first_divergence=first,
        executed=executed,
        runtime=runtime,
        isa=isa,
        precision=precision,
        hashes=dict(hashes or {}),
        reasons=reasons,
        notes=tuple(notes),
        created=created,
        executed_on=dict(executed_on or {}),
    )


def _measured(counts: PairedCounts, test: NonInferiority, outcomes: Sequence[ClassOutcome]) -> dict[str, Any]:
    """The certificate's fields that hold figures."""
    return {
        "reference_accuracy": counts.reference_accuracy,
        "deployed_accuracy": counts.deployed_accuracy,
        "difference": test.difference,
        "ci_low": test.ci_low,
        "ci_high": test.ci_high,
        "p_value": test.p_value,
        "margin": test.margin,
        "alpha": test.alpha,
        "n": counts.n,
        "n_needed": test.n_needed,
        "flips": {"lost": counts.lost, "gained": counts.gained},
        "classes": {c.name: _class_record(c, test) for c in outcomes},
        "reference_balanced_accuracy": balanced_accuracy(tuple(c.reference_recall for c in outcomes)),
        "deployed_balanced_accuracy": balanced_accuracy(tuple(c.deployed_recall for c in outcomes)),
    }


def _rung(name: str, predictions: npt.ArrayLike, labels: Indexes) -> Indexes:
    return paired_indexes(labels=labels, **{name: predictions})[1]


def _names(
    class_names: Sequence[str] | None, labels: Indexes, models: Sequence[tuple[str, Indexes]]
) -> tuple[str, ...]:
    if class_names is None:
        return tuple(str(i) for i in range(int(labels.max()) + 1))
    names = tuple(str(name) for name in class_names)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise CertifyError(f"the class name '{twice[0]}' is given twice", "give every class its own name")
    for source, indexes in (("labels", labels), *models):
        if int(indexes.max()) >= len(names):
            raise CertifyError(
                f"{source} holds class {int(indexes.max())}, but there are only {len(names)} class names",
                "use the class list that the model was trained with",
            )
    return names


def _ladder(models: Sequence[tuple[str, Indexes]], comparison: _Comparison) -> tuple[dict[str, Any], ...]:
    name, above = models[0]
    accuracy = float(np.mean(above == comparison.labels))
    empty = dict.fromkeys(("difference", "ci_low", "ci_high", "lost", "gained"))
    ladder: list[dict[str, Any]] = [{"name": name, "accuracy": accuracy, "agreement": 1.0, **empty, "diverges": False}]
    for name, below in models[1:]:
        counts = PairedCounts.from_predictions(above, below, comparison.labels)
        low, high = score_interval(counts.lost, counts.gained, counts.n, comparison.alpha)
        too_much = counts.lost > counts.gained and counts.difference <= -comparison.margin
        ladder.append(
            {
                "name": name,
                "accuracy": counts.deployed_accuracy,
                "agreement": float(np.mean(above == below)),
                "difference": counts.difference,
                "ci_low": low,
                "ci_high": high,
                "lost": counts.lost,
                "gained": counts.gained,
                "diverges": too_much or bool(comparison.collapsed(above, below)),
            }
        )
        above = below
    return tuple(ladder)


def _judge(
    counts: PairedCounts, test: NonInferiority, outcomes: Sequence[ClassOutcome]
) -> tuple[Verdict, tuple[str, ...]]:
    margin, sure = points(test.margin, signed=False), percent(1 - test.alpha, 0)
    if test.verdict == "pass":
        reasons = [f"With {sure} confidence the loss is smaller than the margin of {margin}."]
    elif test.verdict == "fail":
        reasons = [f"The loss observed, {points(-test.difference, signed=False)}, is not smaller than the margin."]
    elif test.n_needed is None:
        reasons = [f"With a margin of 0 the deployed model must be proven better, and {images(counts.n)} do not."]
    else:
        reasons = [
            f"{images(counts.n)} are too few to rule out a loss of {margin}; about {test.n_needed:,} would give "
            f"an 80 % chance to, {_assumption(test)}."
        ]
    collapsed = [c for c in outcomes if c.collapsed(test.margin, test.alpha)]
    reasons += [
        f"The recall of class '{c.name}' fell from {percent(c.reference_recall or 0.0)} to "
        f"{percent(c.deployed_recall or 0.0)}: of {images(c.n)} {c.lost} were lost and {c.gained} gained "
        f"(adjusted p {c.adjusted_p:.2g})."
        for c in collapsed
    ]
    return ("fail" if collapsed else test.verdict), tuple(reasons)


def _assumption(test: NonInferiority) -> str:
    if test.assumed_difference == 0:
        return "if nothing is truly lost"
    return f"if the true loss is the {points(-test.assumed_difference, signed=False)} observed"


def _class_notes(outcomes: Sequence[ClassOutcome], test: NonInferiority) -> list[str]:
    notes = []
    unseen = [c.name for c in outcomes if not c.n]
    if unseen:
        listed = ", ".join(unseen[:5]) + (" …" if len(unseen) > 5 else "")
        notes.append(f"{len(unseen)} of {len(outcomes)} classes have no image here and were not tested: {listed}.")
    notes += [
        f"Class '{c.name}' lost more than chance (adjusted p {c.adjusted_p:.2g}), but less than the margin."
        for c in outcomes
        if c.adjusted_p < test.alpha and not c.collapsed(test.margin, test.alpha)
    ]
    return notes


def _class_record(outcome: ClassOutcome, test: NonInferiority) -> dict[str, Any]:
    return {
        "n": outcome.n,
        "reference_recall": outcome.reference_recall,
        "deployed_recall": outcome.deployed_recall,
        "difference": outcome.difference,
        "lost": outcome.lost,
        "gained": outcome.gained,
        "p": outcome.p_value,
        "adjusted_p": outcome.adjusted_p,
        "collapsed": outcome.collapsed(test.margin, test.alpha),
    }
