"""Average precision by weighted ranks: samples are sorted once, and each replicate only counts them differently.

A label's average precision is the sum over its distinct scores, from the highest down, of the precision at that score
times the share of the label's samples that have it, as scikit-learn's ``average_precision_score`` defines it: equal
scores are one step, and nothing is interpolated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.tasks.base import Evidence, Floats, Weights


def macro_average_precision(evidence: Evidence, weights: Weights) -> Floats:
    """Mean average precision over the labels that some sample has in the replicate; NaN where there is none.

    Args:
        evidence: ``score`` and ``label``, both (n, labels).
        weights: [replicates, n].
    """
    total, labels = np.zeros(len(weights)), np.zeros(len(weights))
    for scores, positive in zip(evidence["score"].T, evidence["label"].T, strict=True):
        precision, present = average_precision(scores, positive.astype(bool), weights)
        total += precision
        labels += present
    return np.where(labels > 0, total / np.maximum(labels, 1), np.nan)


def average_precision(
    scores: npt.NDArray[Any], positive: npt.NDArray[np.bool_], weights: npt.NDArray[np.floating[Any]]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """One label's average precision in each replicate, and whether any sample has it there; 0 where none has.

    Args:
        scores: [n], higher is more likely.
        positive: whether each sample has the label, bool [n].
        weights: how often each sample counts, [replicates, n]; sums are made in their precision.
    """
    order = np.argsort(-scores)
    hits = np.flatnonzero(positive[order])
    if not len(hits):
        return np.zeros(len(weights)), np.zeros(len(weights), bool)
    ranked = scores[order]
    # Precision is read where a run of equal scores ends, and only runs with a sample that has the label matter.
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    run = np.searchsorted(ends, hits)
    first = np.flatnonzero(np.diff(run, prepend=-1))
    ends = ends[run[first]]
    gained = np.add.reduceat(np.take(weights, order[hits], axis=1), first, axis=1)
    passed = np.take(weights, order[: ends[-1] + 1], axis=1)
    seen = np.cumsum(np.add.reduceat(passed, np.append(0, ends[:-1] + 1), axis=1), axis=1)
    found = np.cumsum(gained, axis=1)
    every = found[:, -1].astype(np.float64)
    steps = gained * found / np.where(seen > 0, seen, 1)
    return steps.sum(axis=1) / np.where(every > 0, every, 1.0), every > 0


def unseen_ranks(reference: Evidence, deployed: Evidence) -> tuple[Evidence, Evidence]:
    """The sample that was not seen, at its worst: the reference is right about every label, the deployed model wrong.

    Its own labels come first by the reference and last by the deployed model, the others the other way round. What that
    costs a label which m of n samples have, all of them ranked first: 1 / (m + 1) - 1 / (n + 1) where the sample has
    it, and else (1/2 + 1/3 + ... + 1/(m + 1)) / m, since a false sample above all lowers the precision at the i-th true
    one from 1 to i / (i + 1). Of the label sets seen it has the one for which this adds up to most, often a small one.

    That is the greatest weight of a sample, as the gamma interval of Fay and Feuer (1997) wants it. A milder one, such
    as a sample that only loses its labels, passes a true loss of the margin far too often where few samples carry it,
    as when the outputs saturate once in a thousand samples (``benchmarks/label_set_sizes.py``).
    """
    labels = np.unique(reference["label"].astype(bool), axis=0)
    samples = reference["label"].sum(axis=0, dtype=np.int64)
    missed = 1 / (samples + 1) - 1 / (len(reference["label"]) + 1)
    # A label that no sample has is not in the mean, and costs nothing.
    falsely = (np.cumsum(1 / np.arange(1.0, samples.max() + 2))[samples] - 1) / np.maximum(samples, 1)
    worst = labels[[int((labels @ missed + ~labels @ falsely).argmax())]]
    right, wrong = np.where(worst, np.inf, -np.inf), np.where(worst, -np.inf, np.inf)
    return {"score": right, "label": worst}, {"score": wrong, "label": worst}
