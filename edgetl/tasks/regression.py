"""A number a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgetl.core.tensors import Arrays, TensorSpec
from edgetl.tasks.base import Evidence, Floats, Metric, Sums, Task, Unit, output, share

VALUES = "values"
#: Two models say the same of a sample if their values differ by at most this share of the values' standard deviation.
SAME = 0.01
#: What the metrics are made of, in this order: samples, |error|, error², label, label².
MOMENTS = ("samples", "absolute", "square", "label", "label_square")


def outputs(classes: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Values, float32 (n, 1), whatever the classes."""
    return (TensorSpec(VALUES, "float32", (None, 1)),)


def decode(outputs: Arrays, options: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """``values`` as they are, (n, 1).

    Raises:
        DataError: there are no values (n, 1).
    """
    return {VALUES: output(outputs, VALUES, "1")}


def evidence(answers: Arrays, labels: npt.NDArray[Any]) -> Evidence:
    """The moments of each sample, float64 (n,): see :data:`MOMENTS`; labels are taken less their mean."""
    truth = np.asarray(labels, np.float64)
    errors = np.abs(_values(answers) - truth)
    centred = truth - truth.mean()
    return dict(zip(MOMENTS, (np.ones_like(errors), errors, errors**2, centred, centred**2), strict=True))


def describe(answers: Arrays, classes: Sequence[str], top: int) -> list[dict[str, Any]]:
    """``value``."""
    return [{"value": float(value)} for value in _values(answers)]


def divergence(reference: Arrays, found: Arrays) -> float:
    """Mean squared difference in units of the variance of the reference's values (1 where they are all equal)."""
    before, after = _values(reference), _values(found)
    return float(np.mean((after - before) ** 2) / (before.var() or 1.0))


def agreement(reference: Arrays, found: Arrays) -> float:
    """Share of samples whose values differ by at most 1 % of the standard deviation of the reference's."""
    before, after = _values(reference), _values(found)
    return share(np.abs(after - before) <= SAME * before.std())


def _values(answers: Arrays) -> Floats:
    return answers[VALUES].astype(np.float64).reshape(len(answers[VALUES]))


def _moments(evidence: Evidence) -> Floats:
    return np.stack([evidence[name] for name in MOMENTS], axis=1)


def _mae(sums: Floats) -> Floats:
    return np.asarray(sums[:, 1] / sums[:, 0])


def _rmse(sums: Floats) -> Floats:
    return np.sqrt(sums[:, 2] / sums[:, 0])


def _r2(sums: Floats) -> Floats:
    spread = sums[:, 4] - sums[:, 3] ** 2 / sums[:, 0]
    return np.asarray(np.where(spread > 0, 1 - sums[:, 2] / np.where(spread > 0, spread, 1.0), np.nan))


def unseen_error(reference: Evidence, deployed: Evidence, most: float | None = None) -> tuple[Evidence, Evidence]:
    """The sample that was not seen, at its worst.

    No bound on a mean holds for every distribution, since one sample in a million may be off by anything. What is
    assumed: the deployed model is off by one standard deviation of the labels, as one that knows nothing is, or by the
    greatest change seen, if that is more; the reference is right. Each moment has a worst sample of its own. Where it
    is known how far apart two values can be at most, it is off by that.
    """
    variance = float(reference["label_square"].mean() - reference["label"].mean() ** 2)
    absolute = max(variance**0.5, float(np.abs(deployed["absolute"] - reference["absolute"]).max()))
    square = max(variance, float(np.abs(deployed["square"] - reference["square"]).max()))
    if most is not None:
        absolute, square = most, most**2
    before, after = (1.0, 0.0, 0.0, 0.0, variance), (1.0, absolute, square, 0.0, variance)
    return _row(before), _row(after)


def _row(moments: Sequence[float]) -> Evidence:
    return {name: np.array([value]) for name, value in zip(MOMENTS, moments, strict=True)}


ASSUMES = (
    "This verdict is conditional. No interval of a mean holds whatever the errors are: it is assumed that a sample "
    "that was not seen is off by no more than one standard deviation of the labels, or the greatest change seen. Where "
    "all values are known to lie in a range, --value-range LOW HIGH takes the place of that."
)
MAE, RMSE, R2 = (Sums(_moments, score) for score in (_mae, _rmse, _r2))


def _metric(title: str, sums: Sums, better: Literal["higher", "lower"], unit: Unit, defined: str = "") -> Metric:
    return Metric(
        title, sums.weighed, better, unit, 0.01, sums=sums, unseen=unseen_error, assumes=ASSUMES, defined=defined
    )


def bounded(metric: Metric, most: float) -> Metric:
    """A metric for values of which no two are further apart than ``most``."""
    return replace(metric, unseen=partial(unseen_error, most=most), assumes="")


TASK = Task(
    name="regression",
    about="a number for a sample",
    inputs=("image", "text", "tensor"),
    labels="number",
    outputs=outputs,
    decode=decode,
    evidence=evidence,
    metrics={
        "mae": _metric("mean absolute error", MAE, "lower", "labels"),
        "rmse": _metric("root mean square error", RMSE, "lower", "labels"),
        "r2": _metric("R²", R2, "higher", "", "all labels are equal: use mae or rmse"),
    },
    divergence=divergence,
    agreement=agreement,
    describe=describe,
    audits=frozenset(("suspicious-gain", "negative-transfer")),
    views=("errors",),
    bounded=bounded,
)
