"""From logits to probabilities, and how far two models' probabilities are apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_BLOCK = 1 << 19
#: Logits beyond this are limited to it, so that an infinite one still gives finite figures.
_LARGEST = 1e9


def softmax(logits: npt.NDArray[Any]) -> Floats:
    """Probabilities of classes that exclude each other, float64 [n, classes], from logits [n, classes]."""
    return np.asarray(np.exp(log_softmax(logits)))


def log_softmax(logits: npt.NDArray[Any]) -> Floats:
    """Their natural logarithms; infinite logits are limited, NaN stays."""
    shifted = finite(logits)
    shifted -= shifted.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def sigmoid(logits: npt.NDArray[Any]) -> Floats:
    """Probabilities of labels that do not exclude each other, float64, from logits of any shape."""
    return np.asarray(np.exp(log_sigmoid(finite(logits))))


def log_sigmoid(logits: Floats) -> Floats:
    """Natural logarithm of :func:`sigmoid`, without overflow."""
    return np.asarray(-np.logaddexp(0.0, -logits))


def finite(logits: npt.NDArray[Any]) -> Floats:
    """A copy in double precision without infinities; NaN stays."""
    return np.clip(logits.astype(np.float64), -_LARGEST, _LARGEST)


def softmax_divergence(reference: npt.NDArray[Any], found: npt.NDArray[Any]) -> Floats:
    """KL(reference || found) of the softmax of each row, nats, float64 [n]; both are logits [n, classes]."""
    p, q = log_softmax(reference), log_softmax(found)
    return np.asarray(np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0.0))


def sigmoid_divergence(reference: npt.NDArray[Any], found: npt.NDArray[Any]) -> Floats:
    """Mean over the labels of the KL(reference || found) of Bernoulli variables, nats, float64 [n]; logits [n, L]."""
    a, b = finite(reference), finite(found)
    present = np.exp(log_sigmoid(a)) * (log_sigmoid(a) - log_sigmoid(b))
    absent = np.exp(log_sigmoid(-a)) * (log_sigmoid(-a) - log_sigmoid(-b))
    return np.asarray(np.maximum((present + absent).mean(axis=1), 0.0))


def mean_in_blocks(
    of: Callable[[npt.NDArray[Any], npt.NDArray[Any]], Floats], one: npt.NDArray[Any], other: npt.NDArray[Any]
) -> float:
    """Mean over the rows of a figure of two arrays [n, k], in blocks of rows, so that memory does not grow with n."""
    total = sum(float(of(one[rows], other[rows]).sum()) for rows in row_blocks(*one.shape))
    return total / max(len(one), 1)


def row_blocks(n: int, columns: int) -> Iterator[slice]:
    """Slices of ``n`` rows that together are all of them, each of bounded size."""
    step = max(1, _BLOCK // max(columns, 1))
    return (slice(start, start + step) for start in range(0, n, step))
