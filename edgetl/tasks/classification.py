"""One class a sample: logits, of which the greatest decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.core.tensors import Arrays, TensorSpec
from edgetl.tasks.base import ClassCounts, ClassFlips, Evidence, Floats, Metric, Task, Weights, output, share
from edgetl.tasks.logits import mean_in_blocks, softmax, softmax_divergence

LOGITS = "logits"


def outputs(classes: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Logits, float32 (n, classes)."""
    return (TensorSpec(LOGITS, "float32", (None, len(classes))),)


def decode(outputs: Arrays, options: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """``logits`` as they are, and ``class``, the index of the greatest, int64 (n,); ties go to the lower index.

    Raises:
        DataError: there are no logits (n, classes).
    """
    logits = output(outputs, LOGITS, "classes")
    return {LOGITS: logits, "class": logits.argmax(axis=1)}


def evidence(answers: Arrays, labels: npt.NDArray[Any]) -> Evidence:
    """``right``, bool (n,), and ``label``, int64 (n,)."""
    return {"right": answers["class"] == labels, "label": labels}


def describe(answers: Arrays, classes: Sequence[str], top: int) -> list[dict[str, Any]]:
    """``label``, its ``probability``, and ``top``: the most probable ones, each with both."""
    found = []
    for logits, shares in zip(answers[LOGITS], softmax(answers[LOGITS]), strict=True):
        order = np.argsort(-logits, kind="stable")[: max(top, 1)]
        named = [{"label": classes[i], "probability": float(shares[i])} for i in order]
        found.append({**named[0], "top": named})
    return found


def divergence(reference: Arrays, found: Arrays) -> float:
    """Mean KL(reference || found) of the softmax, nats."""
    return mean_in_blocks(softmax_divergence, reference[LOGITS], found[LOGITS])


def agreement(reference: Arrays, found: Arrays) -> float:
    """Share of samples given the same class."""
    return share(reference["class"] == found["class"])


def by_class(reference: Evidence, deployed: Evidence, classes: int) -> ClassCounts:
    """What happened to the samples of each class."""
    before, after, labels = reference["right"], deployed["right"], reference["label"]
    chosen = (np.ones_like(before), before, after, before & ~after, ~before & after)
    flipped = np.flatnonzero(before != after)
    flips = ClassFlips(flipped, labels[flipped], np.where(after[flipped], 1, -1))
    samples, right, kept, lost, gained = (np.bincount(labels[which], minlength=classes) for which in chosen)
    return ClassCounts(samples, right, kept, lost, gained, flips)


def accuracy(evidence: Evidence, weights: Weights) -> Floats:
    """Share of right samples."""
    return np.asarray(weights @ evidence["right"] / weights.sum(axis=1))


def balanced_accuracy(evidence: Evidence, weights: Weights) -> Floats:
    """Mean over the classes that have samples of the share of right ones."""
    order = np.argsort(evidence["label"], kind="stable")
    starts = np.flatnonzero(np.diff(evidence["label"][order], prepend=-1))
    counted = weights[:, order]
    samples = np.add.reduceat(counted, starts, axis=1)
    right = np.add.reduceat(counted * evidence["right"][order], starts, axis=1)
    present = samples > 0
    return np.asarray(np.where(present, right / np.where(present, samples, 1.0), 0.0).sum(axis=1) / present.sum(axis=1))


def _right(evidence: Evidence) -> npt.NDArray[np.bool_]:
    return evidence["right"]


def _label(evidence: Evidence) -> npt.NDArray[np.int64]:
    return evidence["label"]


TASK = Task(
    name="classification",
    about="which one of several classes a sample is",
    inputs=("image", "tensor"),
    labels="class",
    outputs=outputs,
    decode=decode,
    evidence=evidence,
    metrics={
        "accuracy": Metric("accuracy", accuracy, "higher", "share", 0.01, _right),
        "balanced-accuracy": Metric("balanced accuracy", balanced_accuracy, "higher", "share", 0.01, _right, _label),
    },
    divergence=divergence,
    agreement=agreement,
    describe=describe,
    by_class=by_class,
    audits=frozenset(("label-order", "damaged-class", "calibration-one-class", "suspicious-gain", "negative-transfer")),
    views=("classes", "confusion", "probabilities", "flips"),
)
