"""How good outputs are: the figures by which training chooses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgetl.core.tensors import Arrays
from edgetl.tasks import Task

#: Of so few samples one answer moves an accuracy further than training does: the log loss tells more, and the epoch is
#: chosen by it, at the temperature that suits the samples best. How sure a model is depends on smoothed labels, too.
FEW = 100
CALIBRATED = "calibrated_loss"
#: Factors of outputs that are tried.
FACTORS = np.geomspace(1 / 64, 256, 113, dtype=np.float32)
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[Any]


@dataclass(frozen=True)
class Scores:
    """What a model reaches on a split.

    Attributes:
        metrics: the task's, by name as in ``run.json``; those that the labels leave undefined are missing.
        loss: the mean over the samples.
        n: samples.
        ranked: the metric by which epochs are compared, or :data:`CALIBRATED`.
        better: whether higher or lower values of it are.
    """

    metrics: Mapping[str, float]
    loss: float
    n: int
    ranked: str
    better: Literal["higher", "lower"] = "higher"

    @property
    def value(self) -> float:
        """The metric by which epochs are compared; NaN where it is undefined."""
        return self.metrics.get(self.ranked, math.nan)

    @property
    def rank(self) -> tuple[float, float]:
        """Larger is better: the ranked metric, ties by lower loss."""
        # Where the metric is undefined it is so for every epoch, and the loss decides.
        value = self.metrics.get(self.ranked, 0.0)
        return (value if self.better == "higher" else -value, -self.loss)

    @property
    def saturated(self) -> bool:
        """Whether all of a few samples are answered rightly: nothing is left that their answers could tell."""
        return self.n < FEW and self.metrics.get("accuracy") == 1.0

    def to_json(self) -> dict[str, float | int]:
        """As a run shows it, plain JSON values."""
        return {**self.metrics, "loss": self.loss, "n": self.n}

    def record(self) -> dict[str, Any]:
        """All fields, as plain JSON values; ``Scores(**record)`` reads them."""
        return asdict(self)


def score(task: Task, outputs: Arrays, labels: Labels, loss: float, ranked: str, smooth: float | None = None) -> Scores:
    """Every metric of a task, of outputs and labels whose first axis is n.

    Args:
        task: decodes the outputs and scores them.
        outputs: the network's, in the labels' unit.
        labels: as :meth:`edgetl.core.data.Dataset.labels` gives them.
        loss: the mean over the samples.
        ranked: name of the metric by which epochs are compared, as the task has it.
        smooth: what they are compared by instead where there are few samples, lower values being better; None for
            nothing.
    """
    evidence = task.evidence(task.decode(outputs, task.options), labels)
    found = {key(name): metric.of(evidence) for name, metric in task.metrics.items()}
    defined = {name: value for name, value in found.items() if math.isfinite(value)}
    if smooth is not None and len(labels) < FEW:
        return Scores({**defined, CALIBRATED: smooth}, loss, len(labels), CALIBRATED, "lower")
    return Scores(defined, loss, len(labels), key(ranked), task.metrics[ranked].better)


def factor(loss: Callable[[Floats, Labels], float], outputs: Floats, labels: Labels) -> np.float32:
    """What outputs have to be multiplied with to be the best logits of the labels (Guo et al. 2017)."""
    return np.float32(min(FACTORS, key=lambda times: loss(times * outputs, labels)))


def calibrated(loss: Callable[[Floats, Labels], float], outputs: Floats, labels: Labels) -> float:
    """A loss at that temperature."""
    return loss(factor(loss, outputs, labels) * outputs, labels)


def key(metric: str) -> str:
    """The name of a metric in ``run.json``."""
    return metric.replace("-", "_")


def cross_entropy(logits: Floats, labels: npt.NDArray[np.int64]) -> float:
    """Mean cross-entropy, nats, of logits (n, classes) against classes (n,)."""
    x = logits.astype(np.float64)
    x = x - x.max(1, keepdims=True)
    return float((np.log(np.exp(x).sum(1)) - x[np.arange(len(labels)), labels]).mean())


def binary_cross_entropy(logits: Floats, labels: npt.NDArray[Any]) -> float:
    """Mean cross-entropy of each class's presence, nats, of logits (n, classes) against zeros and ones (n, classes)."""
    x = logits.astype(np.float64)
    return float((np.logaddexp(0, x) - x * labels).mean())


def squared_error(values: Floats, labels: npt.NDArray[Any]) -> float:
    """Mean squared error of values (n, 1) against numbers, (n,) or (n, 1)."""
    return float(np.mean((values[:, 0].astype(np.float64) - labels.reshape(len(labels))) ** 2))
