"""Paired tests of plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.certify import MetricTest, paired_test
from edgetl.tasks import TASKS, Task


def tested(
    task: Task, models: tuple[Any, Any], labels: npt.NDArray[Any], metric: str, margin: float, **options: Any
) -> MetricTest:
    """The paired test of one of a task's metrics; ``models`` are answers of the reference and of the deployed model."""
    before, after = (task.evidence(answers, labels) for answers in models)
    return paired_test(task.metrics[metric], before, after, margin, **options)


def balanced_accuracy_test(
    reference: Any, deployed: Any, labels: Any, margin: float = 0.01, **options: Any
) -> MetricTest:
    """Of class indexes [n]."""
    models = {"class": reference}, {"class": deployed}
    return tested(TASKS["classification"], models, labels, "balanced-accuracy", margin, **options)


def score_test(reference: Any, deployed: Any, labels: Any, metric: str, margin: float, **options: Any) -> MetricTest:
    """Of values [n]."""
    models = {"values": reference}, {"values": deployed}
    return tested(TASKS["regression"], models, labels, metric, margin, **options)


def label_set_test(
    reference: Any, deployed: Any, labels: Any, metric: str = "macro-AP", margin: float = 0.01, **options: Any
) -> MetricTest:
    """Of logits [n, labels]."""
    task = TASKS["multi-label"]
    models = tuple(task.decode({"logits": np.asarray(logits)}, {}) for logits in (reference, deployed))
    return tested(task, (models[0], models[1]), labels, metric, margin, **options)
