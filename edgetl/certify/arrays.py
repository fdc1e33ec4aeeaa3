"""Certificates of arrays: what two models predicted, wherever that comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError, UnknownNameError
from edgetl.certify import checks
from edgetl.certify.facts import Facts
from edgetl.certify.gain import Baseline
from edgetl.certify.probabilities import LogitEvidence
from edgetl.certify.verdict import certify_answers
from edgetl.core.certificate import Certificate
from edgetl.core.certificate_parts import Robustness
from edgetl.core.compression import LayerNoise, RepairRecord
from edgetl.core.findings import Finding
from edgetl.tasks import TASKS, Task, find_task, multi_label, regression

Array = npt.NDArray[Any]


def certify(
    reference: npt.ArrayLike,
    deployed: npt.ArrayLike,
    labels: npt.ArrayLike,
    class_names: Sequence[str] | None = None,
    margin: float = 0.01,
    alpha: float = 0.05,
    rungs: Sequence[tuple[str, npt.ArrayLike]] = (),
    executed: str = "claimed",
    runtime: str = "",
    isa: str = "",
    precision: str = "",
    hashes: Mapping[str, str] | None = None,
    created: str = "",
    executed_on: Mapping[str, Any] | None = None,
    *,
    metric: str = "accuracy",
    logits: Mapping[str, npt.ArrayLike] | LogitEvidence | None = None,
    groups: npt.ArrayLike | None = None,
    sequential: bool = False,
    baseline: Baseline | None = None,
    reproduced: tuple[float, float, int] | None = None,
    findings: Sequence[Finding] = (),
    layers: Sequence[LayerNoise] = (),
    robustness: Robustness | None = None,
    repair: RepairRecord | None = None,
) -> Certificate:
    """Test a deployed classifier against its reference on the same held-out samples; see :func:`certify_answers`.

    Args:
        reference: class index predicted by the trained model, integers [n].
        deployed: class index predicted by the deployed model for the same samples, integers [n].
        labels: true class index, integers [n].
        class_names: name of every class index; without it the indexes that occur in ``labels`` are the names.
        margin: greatest acceptable loss of the metric as a fraction, 0 <= margin < 1.
        alpha: one-sided level, 0 < alpha < 0.5.
        rungs: models between reference and deployed, in order, as (name, class indexes [n]).
        executed, runtime, isa, precision, hashes, created, executed_on, layers, robustness, repair: see :class:`Facts`.
        metric: what the verdict is about: accuracy or balanced-accuracy.
        logits, groups, sequential, baseline, reproduced, findings: see :func:`certify_answers`.

    Raises:
        CertifyError, UnknownNameError: as :func:`certify_answers`.
    """
    facts = Facts(
        executed=executed,
        runtime=runtime,
        isa=isa,
        precision=precision,
        hashes=hashes or {},
        created=created,
        executed_on=executed_on or {},
        layers=layers,
        robustness=robustness,
        repair=repair,
    )
    models = [("reference", reference), *rungs, ("deployed", deployed)]
    return certify_answers(
        find_task("classification"),
        labels,
        {name: {"class": cast(Array, values)} for name, values in _distinct(models)},
        class_names,
        metric=metric,
        margin=margin,
        alpha=alpha,
        logits=logits,
        groups=groups,
        sequential=sequential,
        baseline=baseline,
        reproduced=reproduced,
        findings=findings,
        facts=facts,
    )


def _distinct(models: Sequence[tuple[str, npt.ArrayLike]]) -> Sequence[tuple[str, npt.ArrayLike]]:
    names = [name for name, _ in models]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise CertifyError(f"there are two models called '{twice[0]}'", "give every rung a name of its own")
    return models


def certify_scores(
    reference: npt.ArrayLike,
    deployed: npt.ArrayLike,
    labels: npt.ArrayLike,
    metric: str = "mae",
    margin: float | None = None,
    alpha: float = 0.05,
) -> Certificate:
    """Test a deployed regression model against its reference on the same held-out samples, by a paired bootstrap.

    Args:
        reference: values predicted by the trained model, floats [n].
        deployed: values predicted by the deployed model for the same samples, floats [n].
        labels: true values, floats [n].
        metric: mae or rmse, in the labels' unit, or r2.
        margin: greatest acceptable loss (rise of mae or rmse, fall of r2), in the metric's unit; when None 0.01 of r2,
            and of mae and rmse a hundredth of the labels' standard deviation.
        alpha: one-sided level, 0 < alpha < 0.5.

    Raises:
        CertifyError, UnknownNameError: as :func:`certify_answers`; r2 of labels that are all equal.
    """
    return verify_arrays(
        reference=reference,
        deployed=deployed,
        labels=labels,
        margin=margin,
        alpha=alpha,
        metric=metric,
        task="regression",
    )


def verify_arrays(
    *,
    reference: npt.ArrayLike | None = None,
    deployed: npt.ArrayLike | None = None,
    labels: npt.ArrayLike | None = None,
    margin: float | None = None,
    alpha: float = 0.05,
    metric: str | None = None,
    task: str | None = None,
    groups: npt.ArrayLike | None = None,
    value_range: tuple[float, float] | None = None,
    sequential: bool = False,
) -> Certificate:
    """The test on what two models predicted, wherever that comes from.

    Args:
        reference, deployed: answers of the trained and of the deployed model for the same samples: class indexes,
            integers [n]; scores, floats [n, labels], logits or probabilities; or numbers, floats [n].
        labels: the truth: integers [n]; 0 or 1 [n, labels]; numbers [n].
        margin: largest tolerable loss of the metric, 0 ≤ margin < 1 (for mae and rmse: in the labels' unit); one point,
            or a hundredth of the labels' standard deviation, when None.
        alpha: probability of passing a model that lost the margin.
        metric: accuracy, balanced-accuracy; macro-AP, micro-F1, subset-accuracy; mae, rmse or r2.
        task: see ``edgetl tasks``; what has that metric, or such labels, when None.
        groups: one value for what belongs together, such as frames of one scene, integers or strings [n]: the test
            counts groups then. None: every sample is independent of all others.
        value_range: least and greatest value that there can be, of a regression.
        sequential: the verdict is to hold however often it is read, while samples are added.

    Raises:
        CertifyError: arrays that do not fit each other, or a bad margin.
        UnknownNameError: no metric of that name.
    """
    if reference is None or deployed is None or labels is None:
        raise CertifyError("nothing to compare", "give a bundle, or reference, deployed and labels")
    judged = find_task(task) if task is not None else _task(metric, labels)
    given = {"reference": reference, "deployed": deployed}
    return certify_answers(
        judged,
        labels,
        _ANSWERS[judged.labels](given),
        metric=metric,
        margin=margin,
        alpha=alpha,
        groups=groups,
        value_range=value_range,
        sequential=sequential,
        facts=Facts(sample="sample"),
    )


def _task(metric: str | None, labels: npt.ArrayLike) -> Task:
    """The first task that has such a metric, or without one such labels."""
    if metric is None:
        truth = np.asarray(labels)
        kind = "classes" if truth.ndim == 2 else "class" if truth.dtype.kind in "iu" else "number"
        return next(task for task in TASKS.values() if task.labels == kind)
    for task in TASKS.values():
        if metric.casefold() in map(str.casefold, task.metrics):
            return task
    raise UnknownNameError("metric", metric, (name for task in TASKS.values() for name in task.metrics), "edgetl tasks")


def _of_classes(given: Mapping[str, npt.ArrayLike]) -> dict[str, dict[str, Array]]:
    return {name: {"class": cast(Array, values)} for name, values in given.items()}


def _of_label_sets(given: Mapping[str, npt.ArrayLike]) -> dict[str, dict[str, Array]]:
    scores = {name: checks.numbers(values, name) for name, values in given.items()}
    flat = [name for name, values in scores.items() if values.ndim != 2]
    if flat:
        raise CertifyError(
            f"{flat[0]} has {scores[flat[0]].ndim} dimensions instead of 2",
            "give a score for each label of each sample",
        )
    # Probabilities of one model and logits of the other would be no comparison: both are taken alike.
    if all(np.all((values >= 0) & (values <= 1)) for values in scores.values()):
        with np.errstate(divide="ignore"):
            scores = {name: np.log(p) - np.log1p(-p.astype(np.float64)) for name, p in scores.items()}
    return {name: multi_label.decode({multi_label.LOGITS: values}, {}) for name, values in scores.items()}


def _of_values(given: Mapping[str, npt.ArrayLike]) -> dict[str, dict[str, Array]]:
    return {name: {regression.VALUES: cast(Array, values)} for name, values in given.items()}


_ANSWERS: Mapping[str, Callable[[Mapping[str, npt.ArrayLike]], dict[str, dict[str, Array]]]] = {
    "class": _of_classes,
    "classes": _of_label_sets,
    "number": _of_values,
}
