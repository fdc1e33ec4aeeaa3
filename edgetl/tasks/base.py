"""What a task is: what an answer is, and how it is scored. numpy alone; a task travels to the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgetl.core.tensors import Arrays, TensorSpec

Floats = npt.NDArray[np.float64]
#: Per-sample sufficient statistics of one model's answers: name → array whose first axis counts samples.
Evidence = Mapping[str, npt.NDArray[Any]]
#: How often each sample counts in each replicate, float64 [replicates, n].
Weights = Floats


@dataclass(frozen=True)
class Metric:
    """A figure by which a task is judged.

    Attributes:
        score: of evidence, one value for each row of weights: float64 [replicates].
        better: whether higher or lower values are.
        unit: "share" (0 to 1, printed in points), or "" for the labels' own unit.
        margin: the greatest acceptable loss, unless the user names one.
        right: whether each sample is right, bool [n], where the metric is the share of right ones: the test is exact
            then (see :mod:`edgetl.certify.paired`); None: a paired bootstrap with the unseen sample.
        unseen: (reference, deployed) evidence → the rows of the sample that was not seen, for both models, at its
            worst; swap the models for its best. None with ``right``.
    """

    score: Callable[[Evidence, Weights], Floats]
    better: Literal["higher", "lower"]
    unit: str
    margin: float
    right: Callable[[Evidence], npt.NDArray[np.bool_]] | None = None
    unseen: Callable[[Evidence, Evidence], tuple[Evidence, Evidence]] | None = None


@dataclass(frozen=True)
class Task:
    """What a model is for.

    Attributes:
        name: as in manifests; absent in old ones, where it is ``classification``.
        about: one line for ``edgetl tasks``.
        inputs: kinds of input that it reads (:data:`edgetl.inputs.INPUTS`).
        labels: kind of label that it reads (:data:`edgetl.core.data.labels.LABEL_KINDS`).
        outputs: of the network, given the classes' names.
        decode: outputs of n samples and options → answers: arrays whose first axis counts samples.
        evidence: answers and the labels' array → evidence.
        metrics: by name; the first one is the default.
        divergence: how far the outputs of one model are from another's, 0 or more; what repair and distillation lower.
        agreement: share of samples, 0 to 1, on which two models' answers are the same.
        describe: answers, the classes' names and how many to name → for each sample what a person reads, JSON values.
        audits: kinds of fault that can be told from its records and answers (keys of ``core.findings.KINDS``).
        views: pieces of a report that it has, by name.
    """

    name: str
    about: str
    inputs: tuple[str, ...]
    labels: str
    outputs: Callable[[Sequence[str]], tuple[TensorSpec, ...]]
    decode: Callable[[Arrays, Mapping[str, Any]], dict[str, npt.NDArray[Any]]]
    evidence: Callable[[Arrays, npt.NDArray[Any]], Evidence]
    metrics: Mapping[str, Metric]
    divergence: Callable[[Arrays, Arrays], float]
    agreement: Callable[[Arrays, Arrays], float]
    describe: Callable[[Arrays, Sequence[str], int], list[dict[str, Any]]]
    audits: frozenset[str] = frozenset()
    views: tuple[str, ...] = ()
