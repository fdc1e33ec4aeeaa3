"""Are these arrays answers of models to the same samples? Each kind of label has a check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.certify.paired import paired_indexes
from edgetl.core.data import parts_of
from edgetl.core.tensors import Arrays
from edgetl.tasks import Task, multi_label, regression
from edgetl.tasks.several import rows_of

REFERENCE, DEPLOYED = "reference", "deployed"
Labels = npt.NDArray[Any]
Models = dict[str, dict[str, npt.NDArray[Any]]]
Checked = tuple[Labels, Models, tuple[str, ...]]


def checked(task: Task, labels: npt.ArrayLike, models: Mapping[str, Arrays], names: Sequence[str] | None) -> Checked:
    """Labels, answers and names of the classes, as the task reads them.

    Args:
        task: what the models are for.
        labels: the truth, one for each sample.
        models: answers of each, by name, as ``task.decode`` gives them.
        names: of the classes or labels; without it their indexes are their names.

    Raises:
        CertifyError: arrays that are empty, of unequal length or of another kind; a class without a name, or a name
            that is given twice.
    """
    if REFERENCE not in models or DEPLOYED not in models:
        raise CertifyError("there is nothing to compare", f"give answers of '{REFERENCE}' and of '{DEPLOYED}'")
    given = None if names is None else tuple(str(name) for name in names)
    if given is not None and len(set(given)) < len(given):
        twice = sorted({name for name in given if given.count(name) > 1})
        raise CertifyError(f"the class name '{twice[0]}' is given twice", "give every class its own name")
    if task.parts:
        return _several(task, labels, models, given)
    return _CHECKS[task.labels](labels, {name: dict(answers) for name, answers in models.items()}, given)


def _several(task: Task, labels: npt.ArrayLike, models: Mapping[str, Arrays], names: tuple[str, ...] | None) -> Checked:
    """Each task's answers to the samples that have a label of it; those to the others are as they come."""
    truth, parts = numbers(labels, "labels"), parts_of(task.labels, names or ())
    columns = parts[-1].labels.stop
    if truth.ndim != 2 or truth.shape[1] != columns or not len(truth):
        raise CertifyError(
            f"labels has the shape {truth.shape}", f"give {columns} columns, NaN where there is no label"
        )
    for name, answers in models.items():
        uneven = [key for key, values in answers.items() if len(values) != len(truth)]
        if uneven:
            what = f"{uneven[0]} of {name} has {len(answers[uneven[0]])} rows for {len(truth)} samples"
            raise CertifyError(what, "give an answer for each")
    for part in parts:
        own, known = task.parts[part.name], part.known(truth)
        if known.any():
            rows = {name: rows_of(part, truth, answers, own) for name, answers in models.items()}
            checked(own, part.own(truth), rows, part.classes or None)
    return truth.astype(np.float64), {name: dict(answers) for name, answers in models.items()}, names or ()


def _classes(labels: npt.ArrayLike, models: Models, names: tuple[str, ...] | None) -> Checked:
    if "labels" in models:
        raise CertifyError("a model cannot be called 'labels'", "give the rung another name")
    arrays = {"labels": labels, **{name: answers["class"] for name, answers in models.items()}}
    found = dict(zip(arrays, paired_indexes(**arrays), strict=True))
    truth = found["labels"]
    if names is None:
        names = tuple(str(i) for i in range(int(truth.max()) + 1))
    else:
        for source, values in found.items():
            if int(values.max()) >= len(names):
                raise CertifyError(
                    f"{source} holds class {int(values.max())}, but there are only {len(names)} class names",
                    "use the class list that the model was trained with",
                )
    return truth, {name: {**answers, "class": found[name]} for name, answers in models.items()}, names


def _label_sets(labels: npt.ArrayLike, models: Models, names: tuple[str, ...] | None) -> Checked:
    truth = numbers(labels, "labels")
    if truth.ndim != 2 or not truth.size or not np.isin(truth, (0, 1)).all():
        raise CertifyError(
            f"labels is {truth.dtype} of the shape {truth.shape}", "give 0 or 1 for each label of each sample"
        )
    names = tuple(map(str, range(truth.shape[1]))) if names is None else names
    if len(names) != truth.shape[1]:
        raise CertifyError(f"labels has {truth.shape[1]} columns for {len(names)} names", "give a column for each")
    for name, answers in models.items():
        scores = answers[multi_label.LOGITS] = numbers(answers[multi_label.LOGITS], name)
        if scores.shape != truth.shape:
            raise CertifyError(
                f"{name} has the shape {scores.shape} and labels {truth.shape}", "give a score for each label"
            )
        present = answers.get(multi_label.PRESENT)
        if present is None or present.dtype != bool or present.shape != truth.shape:
            raise CertifyError(f"{name} does not say which labels are present", "give true or false for each label")
        if np.isnan(scores).any():
            raise CertifyError(f"{name} contains NaN", "the model is numerically broken: try another precision")
    return truth.astype(bool), models, names


def _values(labels: npt.ArrayLike, models: Models, names: tuple[str, ...] | None) -> Checked:
    truth = _finite(labels, "labels")
    for name, answers in models.items():
        values = answers[regression.VALUES] = _finite(answers[regression.VALUES], name)
        if len(values) != len(truth):
            lengths = ", ".join(f"{name} {len(a[regression.VALUES])}" for name, a in models.items())
            raise CertifyError(
                f"the arrays have different lengths (labels {len(truth)}, {lengths})", "give one value for each sample"
            )
    return truth, models, ()


def _finite(values: npt.ArrayLike, name: str) -> npt.NDArray[np.float64]:
    array = numbers(values, name)
    column = array[:, 0] if name != "labels" and array.ndim == 2 and array.shape[1] == 1 else array
    if column.ndim != 1 or not len(column):
        raise CertifyError(f"{name} is {array.dtype} of the shape {array.shape}", "give one number for each sample")
    if not np.isfinite(column).all():
        raise CertifyError(f"{name} holds NaN or infinity", "give finite numbers")
    return column.astype(np.float64)


def numbers(values: npt.ArrayLike, name: str) -> npt.NDArray[Any]:
    """An array of numbers of any shape.

    Raises:
        CertifyError: it holds something else.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise CertifyError(f"{name} is not an array of numbers ({error})") from error
    if array.dtype.kind not in "fiub":
        raise CertifyError(f"{name} is {array.dtype} of the shape {array.shape}", "give numbers")
    return array


_CHECKS: Mapping[str, Callable[[npt.ArrayLike, Models, tuple[str, ...] | None], Checked]] = {
    "class": _classes,
    "classes": _label_sets,
    "number": _values,
}
