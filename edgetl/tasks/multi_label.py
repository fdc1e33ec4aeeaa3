"""Any number of labels a sample: a logit for each, above a threshold or not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError
from edgetl.core.tensors import Arrays, TensorSpec
from edgetl.tasks.average_precision import macro_average_precision, unseen_ranks
from edgetl.tasks.base import ClassCounts, ClassFlips, Evidence, Floats, Metric, Sums, Task, Weights, output, share
from edgetl.tasks.logits import mean_in_blocks, sigmoid, sigmoid_divergence

LOGITS, PRESENT = "logits", "present"
THRESHOLD = "threshold"
OPTIONS = {THRESHOLD: 0.5}


def outputs(classes: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Logits, float32 (n, labels)."""
    return (TensorSpec(LOGITS, "float32", (None, len(classes))),)


def decode(outputs: Arrays, options: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """``logits`` as they are, and ``present``, bool (n, labels): the probability is at least ``threshold``.

    Raises:
        DataError: there are no logits (n, labels), or the threshold is no probability.
    """
    logits = output(outputs, LOGITS, "labels")
    threshold = float(options.get(THRESHOLD, OPTIONS[THRESHOLD]))
    if not 0 < threshold < 1:
        raise DataError(f"threshold {threshold} is not between 0 and 1", "give a probability, such as 0.5")
    return {LOGITS: logits, PRESENT: logits >= math.log(threshold / (1 - threshold))}


def evidence(answers: Arrays, labels: npt.NDArray[Any]) -> Evidence:
    """What the metrics are made of, from answers and indicators (n, labels).

    ``score`` (the logits), ``label`` and ``present`` (bool), all (n, labels); ``found``, ``missed`` and ``false``,
    float64 (n,), how many labels of each sample are rightly present, missing and wrongly present; ``right``, bool (n,),
    whether all are as they should be.
    """
    truth, present = labels.astype(bool), answers[PRESENT]
    counted = {"found": truth & present, "missed": truth & ~present, "false": ~truth & present}
    return {
        "score": answers[LOGITS],
        "label": truth,
        PRESENT: present,
        **{name: which.sum(axis=1, dtype=np.float64) for name, which in counted.items()},
        "right": (truth == present).all(axis=1),
    }


def describe(answers: Arrays, classes: Sequence[str], top: int) -> list[dict[str, Any]]:
    """``labels``, those present, and ``top``, the most probable: each with ``label`` and ``probability``."""
    found = []
    for logits, shares, present in zip(answers[LOGITS], sigmoid(answers[LOGITS]), answers[PRESENT], strict=True):
        order = np.argsort(-logits, kind="stable")
        named = [{"label": classes[i], "probability": float(shares[i])} for i in order]
        kept = [entry for entry, i in zip(named, order, strict=True) if present[i]]
        found.append({"labels": kept, "top": named[: max(top, 1)]})
    return found


def divergence(reference: Arrays, found: Arrays) -> float:
    """Mean over samples and labels of the KL(reference || found) of a label's presence, nats."""
    return mean_in_blocks(sigmoid_divergence, reference[LOGITS], found[LOGITS])


def agreement(reference: Arrays, found: Arrays) -> float:
    """Share of samples given the same labels."""
    return share((reference[PRESENT] == found[PRESENT]).all(axis=1))


def by_class(reference: Evidence, deployed: Evidence, classes: int) -> ClassCounts:
    """What happened to the samples that have each label."""
    truth = reference["label"]
    before, after = truth & reference[PRESENT], truth & deployed[PRESENT]
    sample, label = np.nonzero(before != after)
    flips = ClassFlips(sample, label, np.where(after[sample, label], 1, -1))
    chosen = (truth, before, after, before & ~after, ~before & after)
    samples, found, kept, lost, gained = (which.sum(axis=0) for which in chosen)
    return ClassCounts(samples, found, kept, lost, gained, flips)


def subset_accuracy(evidence: Evidence, weights: Weights) -> Floats:
    """Share of samples whose labels are all as they should be."""
    return np.asarray(weights @ evidence["right"] / weights.sum(axis=1))


def _right(evidence: Evidence) -> npt.NDArray[np.bool_]:
    return evidence["right"]


def _counts(evidence: Evidence) -> Floats:
    return np.stack([evidence[name] for name in ("found", "missed", "false")], axis=1)


def _f1(sums: Floats) -> Floats:
    found, missed, false = sums.T
    total = 2 * found + missed + false
    # Nothing to find and nothing claimed: nothing is wrong.
    return np.asarray(np.where(total > 0, 2 * found / np.where(total > 0, total, 1.0), 1.0))


def unseen_labels(reference: Evidence, deployed: Evidence) -> tuple[Evidence, Evidence]:
    """A sample with as many labels as any that was seen: the reference is right about every label, the deployed wrong.

    A label missed costs more than one wrongly found, so it is the worst that a sample can do.
    """
    most = float((reference["found"] + reference["missed"]).max())
    others = reference["label"].shape[1] - most
    rows = ({"found": most, "missed": 0.0, "false": 0.0}, {"found": 0.0, "missed": most, "false": others})
    before, after = ({name: np.array([value]) for name, value in row.items()} for row in rows)
    return before, after


MICRO_F1 = Sums(_counts, _f1)
ASSUMES = (
    "Of a sample that was not seen every label may be wrong, but it is assumed to have no more labels than one that "
    "was seen, and none rarer."
)

TASK = Task(
    name="multi-label",
    about="which of several labels a sample has: none, one or more",
    inputs=("image", "text", "tensor"),
    labels="classes",
    outputs=outputs,
    decode=decode,
    evidence=evidence,
    metrics={
        "macro-AP": Metric(
            "macro average precision",
            macro_average_precision,
            "higher",
            "share",
            0.01,
            unseen=unseen_ranks,
            assumes=ASSUMES,
            defined="some sample must have a label",
        ),
        "micro-F1": Metric(
            "micro F1",
            MICRO_F1.weighed,
            "higher",
            "share",
            0.01,
            sums=MICRO_F1,
            unseen=unseen_labels,
            assumes=ASSUMES,
        ),
        "subset-accuracy": Metric("subset accuracy", subset_accuracy, "higher", "share", 0.01, _right),
    },
    divergence=divergence,
    agreement=agreement,
    describe=describe,
    by_class=by_class,
    options=OPTIONS,
    audits=frozenset(("label-order", "damaged-class", "suspicious-gain", "negative-transfer")),
    views=("classes",),
)
