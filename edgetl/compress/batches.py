"""Samples on their way into a graph: at the batch size that it takes, and under the names that it reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CompressionError
from edgetl.core.tensors import Arrays, count, joined, rows


def filled(feeds: Arrays, size: int) -> dict[str, npt.NDArray[Any]]:
    """The samples, and copies of the last one up to ``size``."""
    return rows(feeds, np.minimum(np.arange(max(size, count(feeds))), count(feeds) - 1))


def batched(feeds: Arrays, fixed: object, step: int) -> Iterator[tuple[dict[str, npt.NDArray[Any]], int]]:
    """The samples in batches, and how many of each are samples.

    Args:
        feeds: (n, …) each.
        fixed: the batch size of the graph, to which the last batch is filled; anything but a number where it is open.
        step: size of the batches where it is open.
    """
    size = fixed if isinstance(fixed, int) else step
    for start in range(0, count(feeds), size):
        part = rows(feeds, slice(start, start + size))
        yield filled(part, size) if isinstance(fixed, int) else part, count(part)


def grouped(samples: Sequence[Arrays], size: int) -> tuple[Arrays, ...]:
    """Samples (1, …) in batches of ``size``, the last one filled with copies.

    Raises:
        CompressionError: samples of several lengths do not fit into one batch.
    """
    parts = (samples[start : start + size] for start in range(0, len(samples), size))
    try:
        return tuple(filled(joined(part), size) for part in parts)
    except ValueError as error:
        raise CompressionError(
            f"samples of several sizes do not fit into a batch of {size} ({error})", "export with any batch size"
        ) from error


def fed(feeds: Arrays, session: Any) -> dict[str, npt.NDArray[Any]]:
    """What a session of ONNX Runtime reads of the feeds; a fixed batch is filled with copies.

    Raises:
        CompressionError: an input of the session is missing.
    """
    read = session.get_inputs()
    if missing := [value.name for value in read if value.name not in feeds]:
        raise CompressionError(f"the model reads '{missing[0]}', which is not among {list(feeds)}", "give it")
    size = read[0].shape[0]
    wanted = {value.name: feeds[value.name] for value in read}
    return filled(wanted, size) if isinstance(size, int) and size != count(wanted) else wanted
