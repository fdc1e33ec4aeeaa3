"""Samples read while others are computed with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from edgetl.base.parallel import in_order
from edgetl.core.tensors import Arrays
from edgetl.inputs.base import Input

#: Threads that read, and samples that wait to be computed with: two threads keep up with any network.
THREADS, WAITING = 2, 8


def read_ahead(source: Input, files: Iterable[Any]) -> Iterator[Arrays]:
    """The inputs of each sample, in order (see :meth:`Input.feeds`); some are read before they are asked for.

    Raises:
        DataError: as ``source.feeds``, when it is that sample's turn.
    """
    return in_order([source.feeds] * THREADS, files, WAITING)
