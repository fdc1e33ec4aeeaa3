"""What a certificate says beside its verdict, in sentences for the page and for the console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgetl.base.wording import ABSENT, count, number, percent, points, printable, small, span

BASELINES: Mapping[str, str] = {
    "scratch": "a model of equal budget trained from scratch",
    "probe": "a linear probe on the frozen backbone",
}
_HELPED: Mapping[str, str] = {
    "better": "The transfer helped",
    "not shown": "It is not shown that the transfer helped",
    "worse": "The transfer did harm",
}


def gain_sentence(certificate: Mapping[str, Any]) -> str:
    """How much of the transfer's gain was kept, and whether there was any; "" without a baseline."""
    gain: Mapping[str, Any] = certificate.get("transfer_gain") or {}
    if not gain:
        return ""
    kind = printable(gain["kind"])
    against = (
        f"{_HELPED.get(gain['helped'], printable(gain['helped']))}: the trained model is right on "
        f"{percent(certificate.get('reference_accuracy'))}, {BASELINES.get(kind, kind)} on "
        f"{percent(gain['baseline_accuracy'])}, {points(-gain['gap'])} points "
        f"(interval {span(-gain['gap_ci_high'], -gain['gap_ci_low'])})."
    )
    if gain.get("retained") is None:
        return against
    low, high = (ABSENT if gain.get(end) is None else percent(gain[end], 1) for end in ("ci_low", "ci_high"))
    return f"{against} The deployed model keeps {percent(gain['retained'], 1)} of that gain (interval {low} to {high})."


def balanced_sentence(certificate: Mapping[str, Any]) -> str:
    """The same test for balanced accuracy; "" where it was not made."""
    found: Mapping[str, Any] = certificate.get("balanced") or {}
    if not found:
        return ""
    before, after = (percent(certificate.get(f"{model}_balanced_accuracy")) for model in ("reference", "deployed"))
    return (
        f"Balanced accuracy goes from {before} to {after}: {points(found['difference'])} points "
        f"(interval {span(found['ci_low'], found['ci_high'])}), {printable(found['verdict'])} by itself."
    )


def probability_sentence(certificate: Mapping[str, Any]) -> str:
    """What compression did to the probabilities; "" where logits were not kept."""
    found: Mapping[str, Any] = certificate.get("probabilities") or {}
    if not found:
        return ""
    moved = (
        f"{percent(found['agreement'])} of the labels agree, KL {small(found['kl'])} nats; calibration error "
        f"{percent(found['reference_ece'])} before and {percent(found['deployed_ece'])} after; Brier score "
        f"{number(found['reference_brier'])} before and {number(found['deployed_brier'])} after."
    )
    threshold: Mapping[str, Any] = found.get("threshold") or {}
    if not threshold:
        return moved
    return (
        f"{moved} A confidence threshold of {threshold['reference']:.3f} keeps {percent(threshold['kept'], 0)} of the "
        f"images before and {percent(threshold['deployed_kept'], 1)} after; "
        f"{threshold['deployed']:.3f} would keep as many."
    )


def repair_sentence(repair: Mapping[str, Any]) -> str:
    """How repair went and why it ended."""
    trials: Sequence[Mapping[str, Any]] = repair.get("trials") or ()
    stopped = printable(repair.get("stopped") or "")
    if not repair.get("needed"):
        return f"No repair was needed. {stopped}".strip()
    made = sum(1 for trial in trials if trial.get("score") is not None)
    budget = repair.get("budget_minutes")
    took = f" in {number((repair.get('seconds') or 0) / 60)} of {number(budget)} minutes" if budget else ""
    name = printable(repair.get("chosen"))
    chosen = f", and '{name}' was chosen" if repair.get("survived") and not stopped.startswith(name) else ""
    return (
        f"What was compressed first lost too much: {count(made)} trials were made{took}{chosen}. "
        f"{stopped[:1].upper()}{stopped[1:]}"
    ).strip()


def divergence_sentence(certificate: Mapping[str, Any]) -> str:
    """Which rung diverges first; "" without a ladder."""
    if not certificate.get("ladder"):
        return ""
    first = certificate.get("first_divergence")
    return f"The first rung that diverges is '{printable(first)}'." if first else "No rung diverges."
