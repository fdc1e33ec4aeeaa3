"""The models that are compared: on the same samples, by the same task, held to the same margin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.certify.bootstrap import REPLICATES
from edgetl.certify.checks import DEPLOYED, REFERENCE, Labels, checked
from edgetl.certify.classes import ClassOutcome, outcomes
from edgetl.certify.groups import Indexes, group_indexes
from edgetl.certify.metric_test import MetricTest, check_limits, paired_test
from edgetl.certify.paired import PairedCounts
from edgetl.core.tensors import Arrays
from edgetl.tasks import Evidence, Metric, Task, regression


@dataclass(frozen=True, eq=False)
class Comparison:
    """What every pair of models is judged by.

    Attributes:
        task: what they are for.
        labels: the truth.
        names: of the classes or labels.
        models: answers by name, from the reference down to the deployed model.
        evidence: of each model.
        metric: name of the one that decides.
        margin: greatest acceptable loss of it.
        alpha: one-sided level.
        trained: labels of training; None where they are not known.
        groups: of each sample, from 0 up, int64 [n]; None where each is independent of all others.
        tasks: that are judged together: a loss of any fails them all.
        sequential: whether the one that decides, and the classes, may be read after every new batch of samples.
    """

    task: Task
    labels: Labels
    names: tuple[str, ...]
    models: Mapping[str, Arrays]
    evidence: Mapping[str, Evidence]
    metric: str
    margin: float
    alpha: float
    trained: Labels | None = None
    groups: Indexes | None = None
    tasks: int = 1
    sequential: bool = False

    @property
    def chance(self) -> float:
        """The level at which a loss is more than chance, of the metric and of all classes: a model that lost nothing
        fails by any of them, in any of the tasks, with probability ``alpha`` at most (Bonferroni)."""
        return self.alpha / self.tasks / (1 if self.task.by_class is None else 2)

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.labels)

    @property
    def decides(self) -> Metric:
        """The metric that decides."""
        return self.task.metrics[self.metric]

    @property
    def class_margin(self) -> float:
        """What the recall of each class is held to: the margin, where that is a share."""
        return self.margin if self.decides.unit == "share" else 0.01

    def margin_of(self, metric: str) -> float:
        """What a metric is held to: the margin where its unit is that of the one that decides, else its own default."""
        other = self.task.metrics[metric]
        return self.margin if other.unit == self.decides.unit else other.margin_for(self.scale)

    @property
    def scale(self) -> Labels:
        """Labels whose standard deviation is the measure of margins in their unit: those of training, if known."""
        return self.labels if self.trained is None else self.trained

    def test(
        self, metric: str, above: str = REFERENCE, below: str = DEPLOYED, replicates: int = REPLICATES
    ) -> MetricTest:
        """The paired test of one metric between two models."""
        pair = self.evidence[above], self.evidence[below]
        held = self.margin_of(metric)
        again = self.sequential and metric == self.metric
        judged, alpha = self.task.metrics[metric], self.alpha
        return paired_test(judged, *pair, held, alpha, replicates, self.groups, self.chance, again)

    def defined(self, metric: str) -> bool:
        """Whether the metric has a value on these samples."""
        evidence = self.evidence[REFERENCE]
        return self.task.metrics[metric].right is not None or bool(np.isfinite(self.task.metrics[metric].of(evidence)))

    def counts(self, above: str = REFERENCE, below: str = DEPLOYED) -> PairedCounts | None:
        """Samples by which of two models is right; None where no answer is right or wrong."""
        right = self.task.metrics[self.task.exact].right if self.task.exact else None
        return right and PairedCounts.from_right(right(self.evidence[above]), right(self.evidence[below]))

    def outcomes(self, above: str = REFERENCE, below: str = DEPLOYED) -> tuple[ClassOutcome, ...]:
        """What happened to each class between two models; nothing where labels are no classes."""
        if self.task.by_class is None:
            return ()
        counts = self.task.by_class(self.evidence[above], self.evidence[below], len(self.names))
        return outcomes(counts, self.names, self.groups, self.sequential)

    def collapsed(self, above: str, below: str) -> bool:
        """Whether the lower of two models lost a class (see ``ClassOutcome.collapsed``)."""
        return any(c.collapsed(self.class_margin, self.chance) for c in self.outcomes(above, below))


def compared(
    task: Task,
    labels: npt.ArrayLike,
    models: Mapping[str, Arrays],
    names: Sequence[str] | None,
    metric: str | None,
    margin: float | None,
    alpha: float,
    trained: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    tasks: int = 1,
    value_range: tuple[float, float] | None = None,
    sequential: bool = False,
) -> Comparison:
    """All models from the reference down, checked, and what they are judged by.

    Raises:
        CertifyError: arrays that do not fit each other or the names, or a margin or alpha out of range.
        UnknownNameError: no metric of that name.
    """
    decides = task.find_metric(metric)
    # Before anything is computed of the arrays, as far as that can be.
    check_limits(task.metrics[decides], 0.0 if margin is None else margin, alpha)
    truth, answers, names = checked(task, labels, models, names)
    task = task if value_range is None else _within(task, value_range, truth, answers)
    known = None if trained is None else np.asarray(trained)
    held = task.metrics[decides].margin_for(truth if known is None else known) if margin is None else float(margin)
    evidence = {name: task.evidence(given, truth) for name, given in answers.items()}
    together = group_indexes(groups, len(truth))
    return Comparison(
        task, truth, names, answers, evidence, decides, held, float(alpha), known, together, tasks, sequential
    )


def _within(task: Task, value_range: tuple[float, float], truth: Labels, answers: Mapping[str, Arrays]) -> Task:
    """A task whose metrics rest on the range of its values, in which all labels and answers have to lie.

    Raises:
        CertifyError: they do not, it is no range, or the task's answers are no numbers.
    """
    low, high = value_range
    if task.bounded is None:
        raise CertifyError(f"the answers of {task.name} have no range of values", "leave --value-range out")
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise CertifyError(f"{low:g} to {high:g} is no range of values", "give the least and the greatest: LOW HIGH")
    values = {"labels": truth, **{name: found[regression.VALUES] for name, found in answers.items()}}
    for name, found in values.items():
        outside = found[(found < low) | (found > high)]
        if len(outside):
            what = f"{name} holds {float(outside.flat[0]):g}, which is not in the range of {low:g} to {high:g}"
            raise CertifyError(what, "give the range that all values have, or clip them in the model")
    metrics = {name: task.bounded(metric, high - low) for name, metric in task.metrics.items()}
    return replace(task, metrics=metrics)
