"""Several things at once, with their results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from queue import SimpleQueue
from threading import Lock
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")
#: Of this machine.
CORES = os.cpu_count() or 1
#: Held while numpy reads the header of an array: it does so with ``ast``, and CPython 3.11 counts how deep its
#: constructors are for all threads together. Two at once now and then ended in a SystemError (python/cpython 106905).
PARSING = Lock()


def in_order(
    workers: Sequence[Callable[[Given], Made]], items: Iterable[Given], waiting: int | None = None
) -> Iterator[Made]:
    """What workers make of items, in the items' order; each worker has one at a time, in a thread.

    It pays where workers leave Python's lock alone: decoders, runtimes, numpy's larger arrays.

    Args:
        workers: of the same kind; the same one several times if it may be called so.
        items: read by the caller's thread.
        waiting: items and results held at once, which bounds memory; one more than there are workers by default.

    Raises:
        Exception: whatever a worker raised, when it is that item's turn.
    """
    free = SimpleQueue[Callable[[Given], Made]]()
    for worker in workers:
        free.put(worker)

    def make(item: Given) -> Made:
        worker = free.get()
        try:
            return worker(item)
        finally:
            free.put(worker)

    left, held = iter(items), deque[Future[Made]]()
    pool = ThreadPoolExecutor(len(workers), "edgetl")
    try:
        held.extend(pool.submit(make, item) for item in islice(left, waiting or len(workers) + 1))
        while held:
            made = held.popleft().result()
            held.extend(pool.submit(make, item) for item in islice(left, 1))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)
