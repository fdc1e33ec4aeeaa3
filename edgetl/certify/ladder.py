"""The parity ladder: the models from the reference down to what runs on the device, each against the one above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from edgetl.certify.binomial import mcnemar_loss
from edgetl.certify.comparison import Comparison
from edgetl.certify.paired import PairedCounts
from edgetl.certify.probabilities import LogitEvidence
from edgetl.certify.score import score_interval
from edgetl.core.certificate_parts import Rung
from edgetl.core.compression import LayerNoise

MOST_NAMED = 5
REPLICATES = 400
"""Fewer than decide: a rung only points at where a loss arose."""


def ladder(comparison: Comparison, evidence: LogitEvidence) -> tuple[Rung, ...]:
    """A rung for each model, in order.

    Args:
        comparison: the models and what they are judged by.
        evidence: distances between the logits of neighbours, where they are known.
    """
    first = next(iter(comparison.models))
    head = Rung(name=first, agreement=1.0, **_scores(comparison, first))
    return (head, *(_rung(comparison, evidence, above, below) for above, below in pairwise(comparison.models)))


def _scores(comparison: Comparison, name: str) -> dict[str, Any]:
    found = {metric: comparison.task.metrics[metric].of(comparison.evidence[name]) for metric in _shown(comparison)}
    return {"score": found[comparison.metric], "accuracy": found.get("accuracy")}


def _shown(comparison: Comparison) -> set[str]:
    return {comparison.metric, "accuracy"} & set(comparison.task.metrics)


def _rung(comparison: Comparison, evidence: LogitEvidence, above: str, below: str) -> Rung:
    counts = comparison.counts(above, below)
    in_accuracy = _in_accuracy(comparison) and counts is not None
    exact = counts if in_accuracy and comparison.groups is None else None
    judged = None if exact is None else _by_accuracy(exact, comparison)
    upper, lower = comparison.models[above], comparison.models[below]
    outputs = {spec.name for spec in comparison.task.outputs(comparison.names)}
    known = outputs <= set(upper) and outputs <= set(lower)
    step = evidence.steps.get(below)
    kl = step.kl if step else None
    return Rung(
        name=below,
        agreement=comparison.task.agreement(upper, lower),
        lost=counts.lost if counts else None,
        gained=counts.gained if counts else None,
        logit_distance=step.logit_distance if step else None,
        kl=kl,
        divergence=comparison.task.divergence(upper, lower) if known and kl is None else kl,
        **_scores(comparison, below),
        **_diverging(judged or _by_metric(comparison, above, below, in_accuracy), comparison.collapsed(above, below)),
    )


def _in_accuracy(comparison: Comparison) -> bool:
    """Whether the margin can be held against a change of accuracy."""
    return "accuracy" in comparison.task.metrics and comparison.decides.unit == "share"


def _diverging(judged: Mapping[str, Any], collapsed: bool) -> dict[str, Any]:
    return {**judged, "diverges": judged["diverges"] or collapsed}


def _by_accuracy(counts: PairedCounts, comparison: Comparison) -> dict[str, Any]:
    low, high = score_interval(counts.lost, counts.gained, counts.n, comparison.alpha)
    # Chance alone loses a point on a few hundred samples, and would accuse a healthy rung.
    proven = float(mcnemar_loss(counts.lost, counts.gained)) < comparison.chance
    too_much = proven and counts.difference <= -comparison.margin
    return {"difference": counts.difference, "ci_low": low, "ci_high": high, "diverges": too_much}


def _by_metric(comparison: Comparison, above: str, below: str, in_accuracy: bool) -> dict[str, Any]:
    metric = "accuracy" if in_accuracy else comparison.metric
    test = comparison.test(metric, above, below, REPLICATES)
    found = {"difference": test.difference, "ci_low": test.ci_low, "ci_high": test.ci_high}
    return {**found, "diverges": test.verdict == "fail"}


def first_divergence(rungs: Sequence[Rung], lost: bool, margin: float) -> str | None:
    """Name of the first rung that diverges.

    Args:
        rungs: of the ladder.
        lost: whether the deployed model as a whole loses too much. Then, if no rung is proven to, the first that was
            seen to lose the margin is named: there is a loss to explain.
        margin: greatest tolerable loss.
    """
    diverging = [rung for rung in rungs if rung.diverges]
    if lost and not diverging:
        losses = [(rung, rung.difference) for rung in rungs if rung.difference is not None]
        diverging = [rung for rung, difference in losses if difference < 0 and difference <= -margin]
    return diverging[0].name if diverging else None


def responsible(first: str | None, layers: Sequence[LayerNoise]) -> list[str]:
    """A sentence that names the layers behind the first divergence, as far as both are known.

    Args:
        first: name of the first rung that diverges.
        layers: the worst first.
    """
    named = list(dict.fromkeys(layer.name for layer in layers))
    if first is None or not named:
        return []
    more = " …" if len(named) > MOST_NAMED else ""
    return [
        f"The ladder diverges at '{first}'; layers behind it, the worst first: {', '.join(named[:MOST_NAMED])}{more}."
    ]
