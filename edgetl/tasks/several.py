"""Several tasks at once: one network, a named output and an answer for each; numpy alone, also on the device.

Answers and evidence of the tasks lie side by side, ``colour.class`` and ``age.values``. A sample without a label of a
task counts for none of its metrics. Between two models the tasks are compared one by one
(:func:`edgetl.certify.certify_answers`); the mean over them is what training and repair choose by.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError
from edgetl.core.data.several import CLASS_OF, Part, joined, own_classes, parts_of
from edgetl.core.tensors import Arrays, TensorSpec
from edgetl.tasks.base import Evidence, Floats, Metric, Task, Weights

#: The metric that training and repair choose by, and what ``--task`` calls several tasks of any kind.
MEAN, NAME = "mean", "multi-task"
_KNOWN, _LABEL = "known", "truth"


def several(parts: Mapping[str, Task]) -> Task:
    """One task made of several, by their names."""
    kinds = joined({name: task.labels for name, task in parts.items()})
    metrics = {MEAN: Metric("mean over the tasks", partial(_mean, parts), "higher", "share", 0.01)}
    for name, task in parts.items():
        metrics |= {f"{name}.{key}": _of_part(name, metric) for key, metric in task.metrics.items()}
    return Task(
        name=joined({name: task.name for name, task in parts.items()}),
        about=f"several at once: {', '.join(f'{name} ({task.about})' for name, task in parts.items())}",
        inputs=tuple(kind for kind in ("image", "text", "tensor") if all(kind in t.inputs for t in parts.values())),
        labels=kinds,
        outputs=partial(_outputs, parts),
        decode=partial(_decode, parts),
        evidence=partial(_evidence, parts, kinds),
        metrics=metrics,
        divergence=partial(_averaged, parts, lambda task: task.divergence),
        agreement=partial(_averaged, parts, lambda task: task.agreement),
        describe=partial(_describe, parts),
        parts=parts,
    )


def own(answers: Arrays, name: str, task: Task) -> dict[str, npt.NDArray[Any]]:
    """Outputs or answers of one of the tasks, as it names them itself."""
    found = {_output(task): answers[name]} if name in answers else {}
    prefix = f"{name}."
    return found | {key.removeprefix(prefix): value for key, value in answers.items() if key.startswith(prefix)}


def rows_of(part: Part, labels: npt.NDArray[Any], answers: Arrays, task: Task) -> dict[str, npt.NDArray[Any]]:
    """One task's answers to the samples that have a label of it."""
    known = part.known(labels)
    return {key: value[known] for key, value in own(answers, part.name, task).items()}


def _averaged(
    parts: Mapping[str, Task], measure: Callable[[Task], Callable[[Arrays, Arrays], float]], one: Arrays, other: Arrays
) -> float:
    """The mean over the tasks of what each measures between two models."""
    return float(np.mean([measure(task)(own(one, n, task), own(other, n, task)) for n, task in parts.items()]))


def _output(task: Task) -> str:
    return task.outputs(("", ""))[0].name


def _outputs(parts: Mapping[str, Task], classes: Sequence[str]) -> tuple[TensorSpec, ...]:
    specs = ((name, task.outputs(own_classes(name, classes))[0]) for name, task in parts.items())
    return tuple(replace(spec, name=name) for name, spec in specs)


def _decode(parts: Mapping[str, Task], outputs: Arrays, options: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    missing = next((name for name in parts if name not in outputs), None)
    if missing is not None:
        raise DataError(f"the network gives {', '.join(outputs) or 'nothing'}", f"give '{missing}', too")
    answers: dict[str, npt.NDArray[Any]] = {}
    for name, task in parts.items():
        found = task.decode(own(outputs, name, task), task.options)
        answers |= {name: outputs[name], **{f"{name}.{key}": value for key, value in found.items()}}
    return answers


def _evidence(parts: Mapping[str, Task], kinds: str, answers: Arrays, labels: npt.NDArray[Any]) -> Evidence:
    """Each task's, of all samples: rows without a label of it hold nothing, and ``NAME.known`` says which they are."""
    found: dict[str, npt.NDArray[Any]] = {}
    for part in parts_of(kinds, numbered(parts, answers)):
        task, known = parts[part.name], part.known(labels)
        rows = task.evidence(rows_of(part, labels, answers, task), part.own(labels))
        for key, values in rows.items():
            whole = np.zeros((len(labels), *values.shape[1:]), values.dtype)
            whole[known] = values
            found[f"{part.name}.{key}"] = whole
        found |= {f"{part.name}.{_KNOWN}": known, f"{part.name}.{_LABEL}": labels[:, part.labels.start]}
    return found


def numbered(parts: Mapping[str, Task], answers: Arrays) -> list[str]:
    """Classes of several tasks by their numbers, as many as each has logits; none of a single task."""
    widths = {name: answers[name].shape[1] for name, task in parts.items() if task.labels != "number"}
    return [f"{name}{CLASS_OF}{i}" for name, width in widths.items() for i in range(width)]


def _of_part(name: str, metric: Metric) -> Metric:
    def score(evidence: Evidence, weights: Weights) -> Floats:
        return _scored(name, metric, evidence, weights)

    return replace(metric, title=f"{metric.title} of {name}", score=score, right=None, strata=None, sums=None)


def _scored(name: str, metric: Metric, evidence: Evidence, weights: Weights) -> Floats:
    """A task's metric over the samples that have a label of it; NaN where there is none."""
    known = evidence[f"{name}.{_KNOWN}"]
    if not known.any():
        return np.full(len(weights), np.nan)
    prefix = f"{name}."
    rows = {key.removeprefix(prefix): v[known] for key, v in evidence.items() if key.startswith(prefix)}
    return metric.score(rows, weights[:, known])


def _mean(parts: Mapping[str, Task], evidence: Evidence, weights: Weights) -> Floats:
    """The mean of the tasks' own default metrics, errors in standard deviations of the labels and with a minus."""
    scores = []
    for name, task in parts.items():
        metric, known = task.metrics[task.metric], evidence[f"{name}.{_KNOWN}"]
        spread = float(np.std(evidence[f"{name}.{_LABEL}"][known])) if metric.unit == "labels" and known.any() else 1.0
        sign = 1 if metric.better == "higher" else -1
        scores.append(sign * _scored(name, metric, evidence, weights) / (spread or 1.0))
    return np.asarray(np.nanmean(scores, axis=0))


def _describe(parts: Mapping[str, Task], answers: Arrays, classes: Sequence[str], top: int) -> list[dict[str, Any]]:
    """``tasks``: what each says of the sample."""
    told = {
        name: task.describe(own(answers, name, task), own_classes(name, classes), top) for name, task in parts.items()
    }
    return [{"tasks": dict(zip(told, row, strict=True))} for row in zip(*told.values(), strict=True)]
