"""What a task is: what an answer is, and how it is scored. numpy alone; a task travels to the device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError, UnknownNameError
from edgetl.core.data.samples import CLASS
from edgetl.core.tensors import Arrays, TensorSpec

Floats = npt.NDArray[np.float64]
#: Per-sample sufficient statistics of one model's answers: name → array whose first axis counts samples.
Evidence = Mapping[str, npt.NDArray[Any]]
#: How often each sample counts in each replicate, float64 or float32 [replicates, n].
Weights = npt.NDArray[np.floating[Any]]
#: ``share``: 0 to 1, printed in points; ``labels``: the labels' own unit; ``""``: a plain number.
Unit = Literal["share", "labels", ""]


@dataclass(frozen=True)
class Sums:
    """A metric that is made of sums over samples, so that it takes no more time on many than on few.

    Attributes:
        of: what is summed: evidence → float64 [n, k].
        score: the metric of such sums: float64 [replicates, k] → [replicates].
    """

    of: Callable[[Evidence], Floats]
    score: Callable[[Floats], Floats]

    def weighed(self, evidence: Evidence, weights: Weights) -> Floats:
        """The metric for each row of weights: float64 [replicates]; as ``Metric.score``."""
        return self.score(weights @ self.of(evidence))


@dataclass(frozen=True)
class Metric:
    """A figure by which a task is judged.

    Attributes:
        title: its name in a sentence.
        score: of evidence, one value for each row of weights: float64 [replicates]; NaN where it is not defined.
        better: whether higher or lower values are.
        unit: see :data:`Unit`.
        margin: the greatest acceptable loss, unless the user names one; in standard deviations of the labels where the
            unit is theirs.
        right: whether each sample is right, bool [n], where the metric is the share of right ones: the test is exact
            then (see :mod:`edgetl.certify.paired`); None: a paired bootstrap with the unseen sample.
        strata: the class of each sample, int64 [n], where the metric is the mean over the classes that have samples of
            the share of ``right`` ones; None: of all samples together.
        sums: what it is made of, where that is sums over samples.
        unseen: (reference, deployed) evidence → the rows of the sample that was not seen, for both models, at its
            worst; swap the models for its best. None with ``right``.
        assumes: what an interval of it takes for granted, in a sentence.
        defined: what samples must have for it to be defined, as an imperative clause.
    """

    title: str
    score: Callable[[Evidence, Weights], Floats]
    better: Literal["higher", "lower"]
    unit: Unit
    margin: float
    right: Callable[[Evidence], npt.NDArray[np.bool_]] | None = None
    strata: Callable[[Evidence], npt.NDArray[np.int64]] | None = None
    sums: Sums | None = None
    unseen: Callable[[Evidence, Evidence], tuple[Evidence, Evidence]] | None = None
    assumes: str = ""
    defined: str = ""

    def of(self, evidence: Evidence) -> float:
        """The metric of all samples, each counted once; NaN where it is not defined."""
        n = len(next(iter(evidence.values())))
        return float(self.score(evidence, np.ones((1, n)))[0])

    def gain(self, before: Floats, after: Floats) -> Floats:
        """How much better ``after`` is, elementwise: negative is a loss whichever values are better."""
        return after - before if self.better == "higher" else before - after

    def margin_for(self, labels: npt.NDArray[Any]) -> float:
        """The greatest acceptable loss in the metric's unit, unless the user names one."""
        spread = float(np.std(labels)) if self.unit == "labels" else 1.0
        return self.margin * (spread or 1.0)


@dataclass(frozen=True)
class ClassFlips:
    """Where exactly one of two models finds a class that a sample has, int64 [flips] each.

    Attributes:
        sample, label: which sample, and which of its classes.
        change: 1 where only the deployed model finds it, -1 where only the reference does.
    """

    sample: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    change: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassCounts:
    """What two models did to the samples of each class, int64 [classes] each.

    Attributes:
        samples: that have the class.
        reference, deployed: those of them that each model finds it in.
        lost, gained: those that only the reference, or only the deployed model, finds it in.
        flips: the same one by one.
    """

    samples: npt.NDArray[np.int64]
    reference: npt.NDArray[np.int64]
    deployed: npt.NDArray[np.int64]
    lost: npt.NDArray[np.int64]
    gained: npt.NDArray[np.int64]
    flips: ClassFlips


@dataclass(frozen=True)
class Task:
    """What a model is for.

    Attributes:
        name: as in manifests; absent in old ones, where it is ``classification``.
        about: one line for ``edgetl tasks``.
        inputs: kinds of input that it reads (:data:`edgetl.inputs.INPUTS`).
        labels: kind of label that it reads (:data:`edgetl.core.data.labels.LABEL_KINDS`).
        outputs: of the network, given the classes' names.
        decode: outputs of n samples and options → answers: the outputs, and what they mean, arrays whose first axis
            counts samples.
        evidence: answers and the labels' array → evidence. Of the answers it reads only what a bundle keeps of them, by
            the kind of label: ``class``; ``logits`` and ``present``; ``values``.
        metrics: by name; the first one is the default. One called ``accuracy`` says which answers are right.
        divergence: how far the outputs of one model are from another's, 0 or more; what repair and distillation lower.
            Takes answers, too, which hold the outputs.
        agreement: share of samples, 0 to 1, on which two models' answers are the same.
        describe: answers, the classes' names and how many to name → for each sample what a person reads, JSON values:
            ``value``; or ``top`` and with it ``labels`` or the one ``label`` (see ``runtime.predictor.Prediction``); or
            ``tasks``, one of these for each of several.
        by_class: evidence of the reference and of the deployed model, and how many classes there are → what happened
            to each; None where labels are no classes.
        options: what decoding can be told, with the values that it has unless it is.
        audits: kinds of fault that can be told from its records and answers (keys of ``core.findings.KINDS``).
        views: pieces of a report that it has, by name.
        parts: of several tasks at once, each by its name; none of a single one.
        bounded: one of its metrics, and how far apart two values can be at most → the metric that takes no more than
            that for granted; None where an answer is bounded as it is.
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
    by_class: Callable[[Evidence, Evidence, int], ClassCounts] | None = None
    options: Mapping[str, float] = field(default_factory=dict)
    audits: frozenset[str] = frozenset()
    views: tuple[str, ...] = ()
    parts: Mapping[str, Task] = field(default_factory=dict)
    bounded: Callable[[Metric, float], Metric] | None = None

    @property
    def metric(self) -> str:
        """Name of the metric that decides, unless the user names one."""
        return next(iter(self.metrics))

    @property
    def has_accuracy(self) -> bool:
        """Whether an answer is one class and accuracy a metric: what a transfer's gain and corruptions are told in."""
        return self.labels == CLASS and "accuracy" in self.metrics

    @property
    def exact(self) -> str | None:
        """Name of the first metric that is the share of right samples; None where no answer is right or wrong."""
        return next((name for name, metric in self.metrics.items() if metric.right and not metric.strata), None)

    def find_metric(self, name: str | None) -> str:
        """A metric's name as :attr:`metrics` has it, whatever its capitals; the default one's for None.

        Raises:
            UnknownNameError: the task has no metric of that name.
        """
        known = {metric.casefold(): metric for metric in self.metrics}
        if name is None or name.casefold() in known:
            return self.metric if name is None else known[name.casefold()]
        raise UnknownNameError("metric", name, self.metrics, "edgetl tasks")


def output(outputs: Arrays, name: str, columns: str) -> npt.NDArray[Any]:
    """One of a network's outputs, which has two axes.

    Raises:
        DataError: there is none of that name, or it has another number of axes.
    """
    if name not in outputs or outputs[name].ndim != 2:
        found = ", ".join(f"{key} {values.shape}" for key, values in outputs.items()) or "nothing"
        raise DataError(f"the network gives {found}", f"give '{name}' of the shape (samples, {columns})")
    return outputs[name]


def share(equal: npt.NDArray[np.bool_]) -> float:
    """Share of true values, 0 to 1; 1 for none."""
    return float(np.mean(equal)) if len(equal) else 1.0
