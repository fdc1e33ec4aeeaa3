"""How long work tells whoever watches it: one callback, rendered by the command line, silent in scripts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Called with the task's name, the steps done, the steps in all (0: unknown) and a short detail."""

    def __call__(self, task: str, done: int, total: int, detail: str = "") -> None: ...


def silent(task: str, done: int, total: int, detail: str = "") -> None:
    """Report nothing."""


def tracked(items: Iterable[T], task: str, progress: Progress, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` and report each one done."""
    count = total if total is not None else len(items) if isinstance(items, Sized) else 0
    progress(task, 0, count)
    for done, item in enumerate(items, 1):
        yield item
        progress(task, done, count)
