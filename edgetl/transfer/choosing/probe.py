"""A linear head judged on samples that it was not fitted on, by cross-validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import KFold, StratifiedKFold

from edgetl.base.errors import DataError
from edgetl.tasks import Evidence, Task
from edgetl.transfer.strategies.base import HeadSpec
from edgetl.transfer.tasks import learner_of

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
FOLDS, REPLICATES = 5, 500


@dataclass(frozen=True)
class Probe:
    """What a linear head reaches.

    Attributes:
        value: of the task's default metric, over all samples, each answered by a head that has not seen it.
        low, high: 95 % bootstrap interval of it; NaN where it is undefined on many replicates.
        replicates: the metric in each, float64 (:data:`REPLICATES`,), comparable between probes of the same samples.
    """

    value: float
    low: float
    high: float
    replicates: Doubles


def probed(features: Floats, labels: npt.NDArray[np.generic], classes: tuple[str, ...], task: Task, seed: int) -> Probe:
    """Fit and judge a head on each of :data:`FOLDS` folds in turn; the penalty is chosen on the fold after it.

    Args:
        features: (n, d), of the samples in any order.
        labels: of the task's kind, first axis n.
        classes: the names of all.
        task: whose head and metric.
        seed: of folds and bootstrap.

    Raises:
        DataError: a class has too few samples to be divided.
    """
    learner, folds = learner_of(task), _folds(labels, seed)
    outputs = np.empty((len(labels), task.outputs(classes)[0].shape[1] or 1), np.float32)
    for number, held in enumerate(folds):
        chosen = folds[(number + 1) % len(folds)]
        fitted = np.setdiff1d(np.arange(len(labels)), np.concatenate([held, chosen]))
        scale = learner.scale(labels[fitted])
        train, val = ((features[rows], learner.targets(labels[rows], scale)) for rows in (fitted, chosen))
        outputs[held] = scale.applied(learner.fit(train, val, len(classes), HeadSpec()).outputs(features[held]))
    name = task.outputs(classes)[0].name
    return _judged(task, task.evidence(task.decode({name: outputs}, task.options), labels), len(labels), seed)


def _folds(labels: npt.NDArray[np.generic], seed: int) -> list[npt.NDArray[np.int64]]:
    places = np.arange(len(labels))
    if labels.ndim > 1 or labels.dtype.kind == "f":
        if len(labels) < 3 * FOLDS:
            raise DataError(f"{len(labels)} samples are too few to be divided", f"give at least {3 * FOLDS}")
        return [held for _, held in KFold(FOLDS, shuffle=True, random_state=seed).split(places)]
    fewest = int(np.bincount(labels.astype(np.int64)).min())
    if fewest < 3:
        raise DataError(f"a class has {fewest} samples to learn from", "give each at least 3, or leave the class out")
    divided = StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=seed)
    return [held for _, held in divided.split(places, labels)]


def _judged(task: Task, evidence: Evidence, n: int, seed: int) -> Probe:
    metric, draw = task.metrics[task.metric], np.random.default_rng(seed)
    weights = draw.multinomial(n, np.full(n, 1 / n), REPLICATES).astype(np.float64)
    found = metric.score(evidence, weights)
    low, high = np.quantile(found, (0.025, 0.975)) if np.isfinite(found).all() else (np.nan, np.nan)
    return Probe(metric.of(evidence), float(low), float(high), found)
