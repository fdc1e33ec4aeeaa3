"""The parity ladder: the models from the reference down to what runs on the device, each against the one above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgetl.certify.binomial import mcnemar_loss
from edgetl.certify.comparison import Comparison, Models
from edgetl.certify.paired import Indexes, PairedCounts
from edgetl.certify.probabilities import LogitEvidence
from edgetl.certify.score import score_interval

MOST_NAMED = 5


def ladder(models: Models, comparison: Comparison, evidence: LogitEvidence) -> tuple[dict[str, Any], ...]:
    """A record of each model, in order (see ``Certificate.ladder``).

    Args:
        models: (name, predicted class indexes [n]), the reference first.
        comparison: what they are judged by.
        evidence: distances between the logits of neighbours, where they are known.
    """
    name, above = models[0]
    unknown = ("difference", "ci_low", "ci_high", "lost", "gained", "logit_distance", "kl")
    accuracy = float(np.mean(above == comparison.labels))
    rungs = [{"name": name, "accuracy": accuracy, "agreement": 1.0, **dict.fromkeys(unknown), "diverges": False}]
    for name, below in models[1:]:
        rungs.append({"name": name, **_against(above, below, comparison), **_distances(evidence, name)})
        above = below
    return tuple(rungs)


def _against(above: Indexes, below: Indexes, comparison: Comparison) -> dict[str, Any]:
    counts = PairedCounts.from_predictions(above, below, comparison.labels)
    low, high = score_interval(counts.lost, counts.gained, counts.n, comparison.alpha)
    # Chance alone loses a point on a few hundred images, and would accuse a healthy rung.
    proven = float(mcnemar_loss(counts.lost, counts.gained)) < comparison.alpha
    too_much = proven and counts.difference <= -comparison.margin
    return {
        "accuracy": counts.deployed_accuracy,
        "agreement": float(np.mean(above == below)),
        "difference": counts.difference,
        "ci_low": low,
        "ci_high": high,
        "lost": counts.lost,
        "gained": counts.gained,
        "diverges": too_much or bool(comparison.collapsed(above, below)),
    }


def _distances(evidence: LogitEvidence, name: str) -> dict[str, float | None]:
    step = evidence.steps.get(name)
    return {"logit_distance": step.logit_distance if step else None, "kl": step.kl if step else None}


def first_divergence(rungs: Sequence[Mapping[str, Any]], lost: bool, margin: float) -> str | None:
    """Name of the first rung that diverges.

    Args:
        rungs: of the ladder.
        lost: whether the deployed model as a whole loses too much. Then, if no rung is proven to, the first that was
            seen to lose the margin is named: there is a loss to explain.
        margin: greatest tolerable loss.
    """
    diverging = [rung for rung in rungs if rung["diverges"]]
    if lost and not diverging:
        diverging = [rung for rung in rungs[1:] if rung["lost"] > rung["gained"] and rung["difference"] <= -margin]
    return str(diverging[0]["name"]) if diverging else None


def responsible(first: str | None, layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence that names the layers behind the first divergence, as far as both are known.

    Args:
        first: name of the first rung that diverges.
        layers: the worst first; each has ``module`` or, where that is unknown, ``node``.
    """
    named = list(dict.fromkeys(str(layer.get("module") or layer.get("node") or "") for layer in layers))
    named = [name for name in named if name]
    if first is None or not named:
        return []
    more = " …" if len(named) > MOST_NAMED else ""
    return [
        f"The ladder diverges at '{first}'; layers behind it, the worst first: {', '.join(named[:MOST_NAMED])}{more}."
    ]
