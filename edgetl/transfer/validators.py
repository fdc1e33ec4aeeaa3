"""Which epoch is best on a target domain that has no labels: by what the model answers there.

The choice decides: one method had 0.860 or 0.099 on the target by it alone. Musgrave et al. 2022, "Three New Validators
and a Large-Scale Benchmark Ranking for Unsupervised Domain Adaptation", compares many; ``benchmarks/validators.py``
those that are here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgetl.tasks.logits import softmax
from edgetl.transfer.scores import Scores, cross_entropy, factor

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
#: Sharpness of the neighbourhoods, and answers that are compared with one another.
_TEMPERATURE, _COMPARED = 0.05, 1000


@dataclass(frozen=True)
class Validator:
    """One way to judge without labels.

    Attributes:
        name: value of the option.
        about: what it measures, as a noun phrase.
        value: logits of target samples, float32 (n, classes) → a number, higher for a better model; None: by the
            source's validation samples, as any training.
        with_source: whether the accuracy on the source's validation samples is added.
    """

    name: str
    about: str
    value: Callable[[Floats], float] | None
    with_source: bool = False


def information(logits: Floats) -> float:
    """Mutual information of samples and answers, nats: sure of each, and divided over all classes."""
    p = softmax(logits)
    return _entropy(p.mean(0, keepdims=True)) - _entropy(p)


def informed(logits: Floats) -> float:
    """The same as a share of the largest that there can be: 1 for answers that are sure and evenly divided."""
    return information(logits) / float(np.log(logits.shape[1]))


def certainty(logits: Floats) -> float:
    """Minus the mean entropy of the answers, nats (Morerio et al. 2018)."""
    return -_entropy(softmax(logits))


def nuclear_norm(logits: Floats) -> float:
    """Sum of the singular values of the probabilities, over its largest possible value (Cui et al. 2020)."""
    p = softmax(logits)
    n, classes = p.shape
    return float(np.linalg.svd(p, compute_uv=False).sum() / np.sqrt(n * min(n, classes)))


def density(logits: Floats) -> float:
    """Entropy of the softened similarities between answers, nats: dense where each is like many (Saito et al. 2021)."""
    p = softmax(logits[:_COMPARED])
    unit = p / np.linalg.norm(p, axis=1, keepdims=True)
    similar = unit @ unit.T / _TEMPERATURE
    np.fill_diagonal(similar, -np.inf)
    return _entropy(softmax(similar))


VALIDATORS: Mapping[str, Validator] = {
    each.name: each
    for each in (
        Validator(
            "both",
            "the accuracy on the source's validation samples and the mutual information of the target's samples and "
            "the answers to them",
            informed,
            with_source=True,
        ),
        Validator("information", "the mutual information of the target's samples and the answers to them", information),
        Validator("certainty", "how sure the answers to the target's samples are", certainty),
        Validator("nuclear-norm", "the nuclear norm of the answers to the target's samples", nuclear_norm),
        Validator("density", "how densely the answers to the target's samples lie together", density),
        Validator("source", "the source's labelled validation samples", None),
    )
}
NAMES = tuple(VALIDATORS)


def judged(
    scores: Scores, validator: Validator | None, logits: Floats | None, source: tuple[Floats, Labels] | None = None
) -> Scores:
    """Scores on the source's samples, ranked by what a validator finds on the target's, if there is one.

    Args:
        scores: on the source's validation samples.
        validator: whose name the rank has; None leaves the scores as they are.
        logits: of target samples, float32 (n, classes).
        source: logits of the source's validation samples, and their labels: the target's are judged at the temperature
            that suits these best. Trained with smoothed labels, a model is less and less sure the better it fits.
    """
    if validator is None or validator.value is None or logits is None:
        return scores
    name = f"target_{validator.name.replace('-', '_')}"
    if source is not None:
        logits = factor(cross_entropy, *source) * logits
    found = validator.value(logits) + (scores.metrics.get("accuracy", 0.0) if validator.with_source else 0.0)
    return replace(scores, metrics={**scores.metrics, name: found}, ranked=name, better="higher")


def _entropy(p: Doubles) -> float:
    """Mean over the rows, nats."""
    return float(-(p * np.log(np.clip(p, 1e-300, None))).sum(1).mean())
