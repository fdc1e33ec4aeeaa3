"""Starting the training loop in one process or in several, with one progress callback for all of them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch.multiprocessing

from edgetl.base.progress import Progress
from edgetl.transfer import train
from edgetl.transfer.assembly import Job
from edgetl.transfer.placement import Placement


def launch(placement: Placement, job: Job, progress: Progress) -> tuple[str, str] | None:
    """Train in as many processes as the placement says; see :func:`edgetl.transfer.train.fit`."""
    with _across_processes(progress, placement.devices) as reachable:
        # As a partial, because Fabric takes arguments apart on their way to a process, and stops at frozen dataclasses.
        failure: tuple[str, str] | None = placement.fabric().launch(
            functools.partial(train.fit, job=job, progress=reachable)
        )
    return failure


@dataclass(frozen=True)
class _Sent:
    """A progress callback that reaches the parent process through a queue."""

    queue: Any

    def __call__(self, task: str, done: int, total: int, detail: str = "") -> None:
        self.queue.put((task, done, total, detail))


@contextmanager
def _across_processes(progress: Progress, devices: int) -> Iterator[Progress]:
    """The callback itself for one process; for several, one that can be sent to them."""
    if devices == 1:
        yield progress
        return
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()

    def deliver() -> None:
        while (message := queue.get()) is not None:
            progress(*message)

    thread = threading.Thread(target=deliver, daemon=True)
    thread.start()
    try:
        yield _Sent(queue)
    finally:
        queue.put(None)
        thread.join()
