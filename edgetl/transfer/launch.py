"""Starting the training loop in one process or in several, with one progress callback for all of them."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import torch.multiprocessing
from lightning_fabric import Fabric

from edgetl.base.progress import Progress
from edgetl.transfer import train
from edgetl.transfer.assembly import Job
from edgetl.transfer.placement import Placement

_INTERRUPTED = 130
#: Seconds after which processes that were started meanwhile are killed, too.
_AGAIN = 0.1


def launch(placement: Placement, job: Job, progress: Progress) -> tuple[str, str] | None:
    """Train in as many processes as the placement says; see :func:`edgetl.transfer.train.fit`."""
    fit = train.fit if placement.devices == 1 else _fit_in_silence
    with _across_processes(progress, placement.devices) as reachable, _ending_together(placement.devices):
        # As a partial, because Fabric takes arguments apart on their way to a process, and stops at frozen dataclasses.
        failure: tuple[str, str] | None = placement.fabric().launch(functools.partial(fit, job=job, progress=reachable))
    return failure


def _fit_in_silence(fabric: Fabric, job: Job, progress: Progress) -> tuple[str, str] | None:
    """:func:`edgetl.transfer.train.fit` in a process of its own, which ends without a word if it is interrupted."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return train.fit(fabric, job, progress)


@contextmanager
def _ending_together(devices: int) -> Iterator[None]:
    """Processes that are started in the block end with it, and do not hear of Ctrl-C before they can answer it.

    A terminal interrupts all of them, and each would print where it stood, halfway through importing torch.
    """
    others = multiprocessing.active_children()
    # It warns of each process that it ends because another one ended: what is told is why the first one did.
    warned = logging.getLogger("torch.multiprocessing.spawn")
    level = warned.level
    warned.setLevel(logging.ERROR)
    try:
        with _deaf(lambda: _killed(others)) if devices > 1 and _hears() else nullcontext():
            yield
    except BaseException:
        for process in _killed(others):
            process.join()
        raise
    finally:
        warned.setLevel(level)


def _hears() -> bool:
    """Whether this thread is the one that Ctrl-C interrupts, on a system where it can be made not to."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        return False
    return hasattr(signal, "pthread_sigmask") and threading.current_thread() is threading.main_thread()


def _killed(others: Sequence[BaseProcess]) -> list[BaseProcess]:
    """The processes that were started since those, which are killed."""
    found = [process for process in multiprocessing.active_children() if process not in others]
    for process in found:
        process.kill()
    return found


@contextmanager
def _deaf(interrupted: Callable[[], object]) -> Iterator[None]:
    """This thread, and processes that it starts, do not hear of Ctrl-C until the block ends.

    From then on ``interrupted`` is called again and again, for what is still being started, and what the block comes to
    is an interruption. To block the signal is not enough for this thread: Python answers here what any other one heard,
    between any two steps, and a process that is being started then would wait for the rest of its orders.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    heard = threading.Event()

    def listen() -> None:
        while True:
            if select.select([reader], [], [], _AGAIN if heard.is_set() else None)[0]:
                number = os.read(reader, 1)
                if not number:
                    return
                if number[0] == signal.SIGINT:
                    heard.set()
            if heard.is_set():
                interrupted()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    told = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    answer = signal.signal(signal.SIGINT, lambda *_: None)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, answer)
        signal.set_wakeup_fd(told)
        os.close(writer)
        listener.join()
        os.close(reader)
        if heard.is_set():
            if callable(answer):
                answer(signal.SIGINT, None)
            raise KeyboardInterrupt


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
