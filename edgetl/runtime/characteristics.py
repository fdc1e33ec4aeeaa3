"""Numbers that say what a sample and its answer are like: of the network's input, and of its outputs.

None of them needs a label. Of a picture: ``brightness`` and ``contrast`` (mean and standard deviation of the luma, 0
to 255, of the picture as the network gets it), ``sharpness`` (logarithm of the mean absolute Laplacian of the luma,
which blur lowers and noise raises) and ``colour`` (mean distance of the largest from the smallest channel). Of texts
and of arrays: mean and standard deviation of each array. Of classes: ``class``, its index, ``confidence``, its
probability, and ``margin``, by how much its logit exceeds the next. Of several labels: ``confidence``, the mean over
them of the probability of what is said of each, and ``present``, how many there are. Of numbers: ``value``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from edgetl.core.tensors import Arrays
from edgetl.tasks import Task
from edgetl.tasks.logits import sigmoid, softmax
from edgetl.tasks.several import own

Floats = npt.NDArray[np.float64]
#: ITU-R BT.601, as Pillow's conversion to grey.
_LUMA = np.array([0.299, 0.587, 0.114])
#: Arrays of one input that are told apart.
_MOST_ARRAYS = 16


def of_input(feeds: Arrays) -> dict[str, float]:
    """The characteristics of one sample as it is fed to the network, each array (1, …)."""
    found: dict[str, float] = {}
    for name, array in list(feeds.items())[:_MOST_ARRAYS]:
        if array.dtype == np.uint8 and array.ndim == 4 and array.shape[-1] == 3:
            found |= dict(_of_picture(array[0].astype(np.float64)))
        else:
            values = array.astype(np.float64)
            found |= {f"{name} mean": float(values.mean()), f"{name} spread": float(values.std())}
    return {name: value if np.isfinite(value) else 0.0 for name, value in found.items()}


def _of_picture(pixels: Floats) -> Iterator[tuple[str, float]]:
    luma = pixels @ _LUMA
    yield "brightness", float(luma.mean())
    yield "contrast", float(luma.std())
    inner = luma[1:-1, 1:-1]
    laplacian = 4 * inner - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    yield "sharpness", float(np.log1p(np.abs(laplacian).mean())) if laplacian.size else 0.0
    yield "colour", float((pixels.max(axis=2) - pixels.min(axis=2)).mean())


def of_outputs(task: Task, outputs: Arrays) -> dict[str, Floats]:
    """The characteristics of n answers, float64 [n] each; of several tasks each name after its task's and a dot."""
    answers = task.decode(outputs, task.options)
    if task.parts:
        parts = {name: _of_answers(own(answers, name, part)) for name, part in task.parts.items()}
        return {f"{name}.{key}": values for name, found in parts.items() for key, values in found.items()}
    return _of_answers(answers)


def _of_answers(answers: Arrays) -> dict[str, Floats]:
    if "values" in answers:
        return {"value": _finite(answers["values"].reshape(len(answers["values"]), -1)[:, 0])}
    logits = answers["logits"].astype(np.float64)
    if "present" in answers:
        shares = sigmoid(logits)
        said = np.where(answers["present"], shares, 1 - shares)
        return {"confidence": _finite(said.mean(axis=1)), "present": _finite(answers["present"].sum(axis=1))}
    ordered = np.sort(logits, axis=1)
    above = ordered[:, -1] - ordered[:, -2] if logits.shape[1] > 1 else ordered[:, -1]
    found = {"class": answers["class"], "confidence": softmax(logits).max(axis=1), "margin": above}
    return {name: _finite(values) for name, values in found.items()}


def _finite(values: npt.NDArray[np.generic]) -> Floats:
    return np.nan_to_num(values.astype(np.float64))
