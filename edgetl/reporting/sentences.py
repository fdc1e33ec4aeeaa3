"""What a certificate says, in sentences for the page and for the console."""

from __future__ import annotations

from collections.abc import Mapping

from edgetl.base.wording import (
    ABSENT,
    amount,
    bounds,
    change,
    count,
    counted,
    figure,
    fixed,
    number,
    percent,
    points,
    printable,
    small,
    span,
)
from edgetl.core.agreement import Agreement
from edgetl.core.certificate import Certificate
from edgetl.core.compression import RepairRecord
from edgetl.reporting import metrics

BASELINES: Mapping[str, str] = {
    "scratch": "a model of equal budget trained from scratch",
    "probe": "a linear probe on the frozen backbone",
}
_HELPED: Mapping[str, str] = {
    "better": "The transfer helped",
    "not shown": "It is not shown that the transfer helped",
    "worse": "The transfer did harm",
}


def verdict_sentence(certificate: Certificate) -> str:
    """What the verdict means, in one sentence with its numbers."""
    limit, margin = certificate.margin, amount(certificate.margin, certificate.unit)
    of = f" of {metrics.judged(certificate)}"
    samples = f"{counted(certificate.n, certificate.sample)}"
    confidence = f"{100 * (1 - certificate.alpha):g} %"
    if limit == 0 and certificate.verdict != "fail":
        better = f"With {confidence} confidence the deployed model is better than the one that was trained."
        unproven = f"These {samples} do not prove the deployed model better, as a margin of 0 asks."
        return better if certificate.verdict == "pass" else unproven
    if certificate.verdict == "pass":
        return f"With {confidence} confidence the deployed model loses less than {margin}{of} to the trained model."
    if certificate.verdict == "fail":
        if certificate.ci_high < -limit:
            return f"With {confidence} confidence the deployed model loses more than {margin}{of}."
        if certificate.difference is not None and certificate.difference <= -limit:
            return f"The loss that was observed is not below {margin}, the greatest that was accepted."
        return "The transfer did not survive, for the reasons below."
    return _undecided(certificate, f"These {samples} cannot tell a loss of {margin} from none.")


def _undecided(certificate: Certificate, too_few: str) -> str:
    """What would decide: labels where some are missing, or more samples."""
    found, needed = certificate.agreement, certificate.n_needed
    if found is None or not found.unlabelled:
        return f"{too_few} About {counted(needed, certificate.sample)} would be needed." if needed else too_few
    return (
        f"The labels of {counted(found.unlabelled, certificate.sample)} decide whether a loss of "
        f"{amount(certificate.margin, certificate.unit)} is ruled out: to_label.csv in the bundle names them, and "
        "to_label.html shows them."
    )


def agreement_sentence(certificate: Certificate, agreement: Agreement) -> str:
    """On how many samples the two models differ, and what their labels said."""
    labelled = (
        f" {count(agreement.labelled)} of them are labelled: {count(agreement.lost)} lost, {count(agreement.gained)} "
        "gained."
        if agreement.labelled
        else ""
    )
    interval = bounds(certificate.ci_low, certificate.ci_high, certificate.unit)
    before = printable(agreement.reference)
    return (
        f"On {counted(certificate.n, certificate.sample)} without labels the {before} and the deployed model answer "
        f"differently on {count(agreement.disagreed)}, at most {percent(agreement.rate_high)} of such "
        f"{certificate.sample}s.{labelled} The difference lies in {interval}, whatever the labels are that nobody gave "
        f"({100 * (1 - certificate.alpha):g} % confidence at each end). How many answers are right is not known."
    )


def measured_sentence(certificate: Certificate) -> str:
    """The metric of both models and the interval of its difference."""
    if certificate.agreement is not None:
        return agreement_sentence(certificate, certificate.agreement)
    unit, flips = certificate.unit, certificate.flips
    moved = ""
    if "lost" in flips and "gained" in flips:
        lost = counted(flips["lost"], certificate.sample)
        moved = f" It lost {lost} that were right before and gained {count(flips['gained'])}."
    # Where lower values are better, a difference with a sign would be read the wrong way round.
    lower, gain = metrics.lower_is_better(certificate.task, certificate.metric), certificate.difference or 0.0
    moved_by = f"a {'loss' if gain < 0 else 'gain'} of {amount(abs(gain), unit)}"
    difference, of = (moved_by, " of the gain") if lower else (f"a difference of {change(gain, unit)}", "")
    grouped = certificate.units is not None and certificate.units < certificate.n
    held = f"{certificate.sample}s in {counted(certificate.units or 0, 'independent group')}" if grouped else ""
    interval = bounds(certificate.ci_low, certificate.ci_high, unit)
    return (
        f"On {count(certificate.n)} held-out {held or f'{certificate.sample}s'} {_both(certificate)}: "
        f"{difference}, interval{of} {interval} "
        f"({100 * (1 - certificate.alpha):g} % confidence at each end).{moved}"
    )


def _both(certificate: Certificate) -> str:
    before, after = (figure(s, certificate.unit) for s in (certificate.reference_score, certificate.deployed_score))
    if certificate.metric == "accuracy" and certificate.labelled_by == "model":
        return f"which nobody labelled, the deployed model answers as the trained one does on {after}"
    if certificate.metric == "accuracy":
        return f"the trained model is right on {before} and the deployed one on {after}"
    title = metrics.judged(certificate)
    return f"the {title} of the trained model is {before} and that of the deployed one {after}"


def executed_sentences(certificate: Certificate, target: str) -> tuple[str, str]:
    """What was executed to get the deployed predictions, and what was not."""
    executed, place = certificate.executed, certificate.executed_on
    where = place.get("cpu_model") if place.get("device") == "local" else place.get("device")
    name = f" ({printable(where)})" if where else ""
    if executed == "device":
        return f"The artifact ran on a {target} device{name}, from file to answer, with its own runtime.", ""
    if executed == "claimed":
        return (
            f"edgetl saw nothing run: it was given the answers of {printable(certificate.runtime)}.",
            "Certify what edgetl itself runs with: edgetl verify BUNDLE --device NAME",
        )
    if executed == "host":
        return (
            "The artifact itself ran, from file to answer, with its own runtime, on the machine that wrote the "
            f"certificate{name}.",
            f"No other {target} machine was tried. Verify it there with: edgetl verify BUNDLE --device NAME",
        )
    emulated = f"The artifact itself ran, with its own runtime, but on an emulated CPU{name}."
    arithmetic = f"The artifact's arithmetic was simulated on another machine{name}."
    return (
        emulated if place.get("kind") == "emulated" else arithmetic,
        f"The artifact did not run on a {target}: its scores there may differ, and no time was measured. "
        "Certify it on the device with: edgetl verify BUNDLE --device NAME",
    )


def gain_sentence(certificate: Certificate) -> str:
    """How much of the transfer's gain was kept, and whether there was any; "" without a baseline."""
    gain = certificate.transfer_gain
    if gain is None:
        return ""
    # Of samples without labels no accuracy is known: the gain is still that of the labelled ones, as is the ladder.
    known = certificate.ladder[0].accuracy if certificate.agreement and certificate.ladder else None
    before = certificate.reference_accuracy if known is None else known
    against = (
        f"{_HELPED[gain.helped]}: the trained model is right on {percent(before)}, "
        f"{BASELINES[gain.kind]} on {percent(gain.baseline_accuracy)}, {points(-gain.gap)} points "
        f"(interval {span(-gain.gap_ci_high, -gain.gap_ci_low)})."
    )
    if gain.retained is None:
        return against
    low, high = (ABSENT if bound is None else percent(bound, 1) for bound in (gain.ci_low, gain.ci_high))
    return f"{against} The deployed model keeps {percent(gain.retained, 1)} of that gain (interval {low} to {high})."


def probability_sentence(certificate: Certificate) -> str:
    """What compression did to the probabilities; "" where logits were not kept."""
    shift = certificate.probabilities
    if shift is None:
        return ""
    threshold = shift.threshold
    return (
        f"{percent(shift.agreement)} of the labels agree, KL {small(shift.kl)} nats; calibration error "
        f"{percent(shift.reference_ece)} before and {percent(shift.deployed_ece)} after; Brier score "
        f"{number(shift.reference_brier)} before and {number(shift.deployed_brier)} after. "
        f"A confidence threshold of {fixed(threshold.reference, 3)} keeps {percent(threshold.kept, 0)} of the "
        f"{certificate.sample}s before and {percent(threshold.deployed_kept, 1)} after; "
        f"{fixed(threshold.deployed, 3)} would keep as many."
    )


def repair_sentence(repair: RepairRecord) -> str:
    """How the search for a remedy went and why it ended."""
    stopped = printable(repair.stopped)
    if not repair.needed:
        return f"No repair was needed. {stopped}".strip()
    budget = repair.budget_minutes
    took = f" in {number((repair.seconds or 0) / 60)} of {number(budget)} minutes" if budget else ""
    name = printable(repair.chosen)
    chosen = f", and '{name}' was chosen" if repair.survived and not stopped.startswith(name) else ""
    return (
        f"What was compressed first lost too much: {count(len(repair.measured))} trials were made{took}{chosen}. "
        f"{stopped[:1].upper()}{stopped[1:]}"
    ).strip()


def divergence_sentence(certificate: Certificate) -> str:
    """Which rung diverges first; "" without a ladder."""
    if not certificate.ladder:
        return ""
    first = certificate.first_divergence
    return f"The first rung that diverges is '{printable(first)}'." if first else "No rung diverges."
