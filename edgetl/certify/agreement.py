"""The paired test on samples of which only those have a label, or none, on which the two models differ.

Where both models give the same answer, right or wrong, the difference between them is zero. So a table of lost, gained
and unchanged samples is complete once those are labelled on which they differ, and the exact test is the one of
:mod:`edgetl.certify.paired`. A sample on which they differ and that has no label counts as lost for the lower bound and
as gained for the upper one:

    pass          the test passes even if every sample without a label is lost
    fail          the test fails even if every sample without a label is gained
    underpowered  neither: labels decide, or, where all are there, more samples

Lower and upper bound fall with every loss and rise with every gain, so either verdict is the one that all labels would
give, whatever they are. A model that lost the margin therefore passes no more often than by all labels: with
probability alpha at most, in whatever order and however long somebody labels. Without any label the test is that of
the disagreement rate alone: all lost and none gained, its lower bound is minus Clopper and Pearson's upper bound of
that rate (C. J. Clopper and E. S. Pearson 1934, Biometrika 26, 404-413) for up to 200 of them, and never below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.base.wording import amount, count, counted, percent
from edgetl.certify.binomial import binomial_cdf
from edgetl.certify.exact_power import images_needed
from edgetl.certify.paired import METHOD as PAIRED
from edgetl.certify.paired import PairedCounts, noninferiority
from edgetl.certify.score import bisect
from edgetl.core.agreement import Agreement
from edgetl.core.certificate import Certificate
from edgetl.core.certificate_parts import Score, Verdict

METHOD = f"{PAIRED}; samples without a label counted as lost, and as gained for the upper bound"


_UNKNOWN = (
    "The bundle does not say what its model was trained on: whether any of these {noun}s was among it is not known. "
    "Bundles that are exported now do."
)


@dataclass(frozen=True)
class AgreementTest:
    """Outcome of :func:`agreement_test`; every difference is deployed minus reference, as a fraction.

    Attributes:
        verdict: see the module's head.
        difference: the difference observed; None while labels are missing that would tell it.
        ci_low: one-sided 1 - alpha lower bound of the true one, whatever the missing labels are.
        ci_high: one-sided 1 - alpha upper bound, likewise.
        p_value: one-sided, of "the true loss is at least the margin", at its greatest over the missing labels.
        n_needed: samples for a pass with probability 0.8 if nothing is lost, where all that differ are labelled; None
            with margin 0.
        rate_high: exact one-sided 1 - alpha upper bound of the rate of samples on which the two differ.
    """

    verdict: Verdict
    difference: float | None
    ci_low: float
    ci_high: float
    p_value: float
    n_needed: int | None
    rate_high: float


def agreement_test(
    n: int, disagreed: int, lost: int = 0, gained: int = 0, labelled: int = 0, *, margin: float, alpha: float = 0.05
) -> AgreementTest:
    """Test that the deployed model loses less than ``margin``, from the samples on which the two models differ.

    Args:
        n: samples.
        disagreed: those of them on which the two differ.
        lost, gained: those that are labelled, and that only the reference, or only the deployed model, gets right.
        labelled: those that are labelled; on the rest of them neither is right.
        margin: greatest acceptable loss as a fraction, 0 <= margin < 1.
        alpha: one-sided level, 0 < alpha < 0.5.

    Raises:
        CertifyError: counts that do not add up, or a margin or alpha out of range.
    """
    if not 0 <= lost + gained <= labelled <= disagreed <= n or min(lost, gained, n - 1) < 0:
        raise CertifyError(
            f"{lost} lost and {gained} gained of {labelled} labelled of {disagreed} of {n} do not add up"
        )
    missing = disagreed - labelled
    worst, best = (
        noninferiority(PairedCounts(n - lost - gained - missing, *pair, 0), margin, alpha)
        for pair in ((lost + missing, gained), (lost, gained + missing))
    )
    verdict: Verdict = "pass" if worst.verdict == "pass" else "fail" if best.verdict == "fail" else "underpowered"
    # None seen is not none there: the rate that 0 of n leaves open ("rule of three").
    rate = disagreed / n or 1 - alpha ** (1 / n)
    return AgreementTest(
        verdict=verdict,
        difference=None if missing else worst.difference,
        ci_low=worst.ci_low,
        ci_high=best.ci_high,
        p_value=worst.p_value,
        n_needed=worst.n_needed if not missing else images_needed(rate, margin, alpha) if margin else None,
        rate_high=rate_upper_bound(disagreed, n, alpha),
    )


def rate_upper_bound(seen: int, n: int, alpha: float) -> float:
    """Clopper and Pearson's exact one-sided 1 - ``alpha`` upper bound of a rate of which ``seen`` of ``n`` were seen.

    The least float at which seeing so few has a probability of ``alpha`` at most.
    """
    if seen >= n:
        return 1.0

    def unlikely(minus_rate: float) -> bool:
        return float(binomial_cdf(seen, n, -minus_rate)) <= alpha

    # bisect finds the greatest float below which something holds: of the rate the least, so it gets a minus.
    return -bisect(unlikely, -1.0, -seen / n)


def certify_agreement(
    base: Certificate, agreement: Agreement, test: AgreementTest, n: int, facts: Mapping[str, Any]
) -> Certificate:
    """The certificate of samples without labels, on top of the one of the labelled certify split.

    Whatever takes labels of all samples is still that of ``base``: classes, ladder, probabilities, the transfer's gain,
    findings. Where ``base`` fails, so does this one: labels that show a fault are not outvoted by samples without any.

    Args:
        base: of the certify split, by the metric and on the terms that this one is held to.
        agreement: what the answers and labels said.
        test: of it.
        n: samples that were compared.
        facts: fields that are told, not measured: executed, executed_on, runtime, precision, hashes.
    """
    failed = base.verdict == "fail"
    known = {"lost": agreement.lost, "gained": agreement.gained} if not agreement.unlabelled else {}
    unit = base.scores[base.metric].unit
    score = Score(
        reference=None, deployed=None, difference=test.difference, ci_low=test.ci_low, ci_high=test.ci_high,
        verdict=test.verdict, margin=base.margin, unit=unit,
    )  # fmt: skip
    own = _reason(base, agreement, test, n)
    return replace(
        base,
        verdict="fail" if failed else test.verdict,
        reference_score=None,
        deployed_score=None,
        difference=test.difference,
        ci_low=test.ci_low,
        ci_high=test.ci_high,
        p_value=test.p_value,
        n=n,
        units=n,
        sequential=False,
        value_range=None,
        n_needed=test.n_needed,
        scores={base.metric: score},
        flips=known,
        reference_accuracy=None,
        deployed_accuracy=None,
        reference_balanced_accuracy=None,
        deployed_balanced_accuracy=None,
        balanced=None,
        method=METHOD,
        labelled_by="owner",
        agreement=agreement,
        reasons=tuple([*_kept_fault(base), own] if failed else [own]),
        notes=(*_notes(base, agreement), *base.notes),
        **facts,
    )


def _kept_fault(base: Certificate) -> Sequence[str]:
    return [f"On the {counted(base.n, base.sample)} with labels that were held back: {why}" for why in base.reasons]


def _reason(base: Certificate, found: Agreement, test: AgreementTest, n: int) -> str:
    margin, sure, noun = amount(base.margin, "share"), percent(1 - base.alpha, 0), base.sample
    differ = f"the two models differ on {count(found.disagreed)} of {counted(n, noun)}"
    if test.verdict == "pass" and not found.labelled:
        return (
            f"Here {differ}, and with {sure} confidence on at most {percent(_rounded_up(test.rate_high))} of such "
            f"{noun}s: whatever the true labels are, the loss is smaller than the margin of {margin}."
        )
    open_ = f", {count(found.unlabelled)} without a label" if found.unlabelled else ""
    said = f"{differ}, {count(found.lost)} of them lost and {count(found.gained)} gained{open_}"
    if test.verdict != "underpowered":
        turned = "lost" if test.verdict == "pass" else "gained"
        counted_as = f", even if all of these are {turned}" if found.unlabelled else ""
        what = (
            f"With {sure} confidence the loss is smaller than the margin of {margin}"
            if test.verdict == "pass"
            else f"The loss is more than chance and not smaller than the margin of {margin}"
        )
        return f"{what}: {said}{counted_as}."
    if found.unlabelled:
        return (
            f"Here {differ}, which alone does not rule out a loss of {margin}: "
            f"{counted(found.unlabelled, 'label')} can, of the {noun}s in to_label.csv."
        )
    needed = "" if test.n_needed is None else f" About {count(test.n_needed)} would give an 80 % chance to."
    return f"{counted(n, noun)} are too few to rule out a loss of {margin}: {said}.{needed}"


def _rounded_up(rate: float) -> float:
    """A rate as it is printed, in hundredths of a percent, and not below what it is."""
    return float(np.ceil(rate * 1e4 - 1e-9) / 1e4)


def _notes(base: Certificate, found: Agreement) -> list[str]:
    by_model = ", which the trained model itself labelled" if base.labelled_by == "model" else ""
    rests = (
        f"Recall of each class, confidence, the ladder and the transfer's gain take labels of all samples: they are "
        f"still those of the {counted(found.rests_on, base.sample)} of the certify split{by_model}, and no class was "
        f"looked at among the {base.sample}s without labels."
    )
    left_out = "; ".join(f"{count(n)} {why}" for why, n in found.left_out.items() if n)
    told = [f"Left out of the {base.sample}s that were given: {left_out}."] if left_out else []
    return [
        f"Each {base.sample} counts as an independent one of those that the model will see: where several show the "
        "same scene, the bounds say too much.",
        f"What answered in the reference's place is the {found.reference}.",
        rests,
        *told,
        *([] if found.training_known else [_UNKNOWN.format(noun=base.sample)]),
        *(
            f"Of class '{name}' more {base.sample}s with a label were lost than chance explains; of how many "
            f"{base.sample}s of it, nobody knows without labels."
            for name in found.lost_classes
        ),
    ]


def same(reference: npt.NDArray[Any], deployed: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Whether the two answers to each sample are the same, bool [n]: classes [n], or indicators [n, labels]."""
    equal = reference == deployed
    return np.asarray(equal if equal.ndim == 1 else equal.all(axis=1))
