"""What one query is, in each of MLPerf's scenarios: one sample, several at once, or a heap of them.

Sessions that work at once are real ones, each with its own runtime threads, called from one thread each: every
runtime here lets go of Python's lock while it computes.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.core.bundle import Artifact
from edgetl.core.tensors import Arrays
from edgetl.runtime.plan import Plan
from edgetl.runtime.predict import infer
from edgetl.runtime.sessions import Session, fixed_batch, open_sessions

#: A query, given its number; the number says which sample comes next.
Query = Callable[[int], object]

#: Seconds for which each way of working offline is tried before the best is measured.
TRIAL_S = 0.7
#: An offline query lasts about this long, so that its ends, where sessions wait for the last, weigh little.
OFFLINE_QUERY_S = 0.1
#: Samples that a session takes at once offline, where the graph leaves its batch open.
OFFLINE_BATCHES = (1, 8)


@dataclass(frozen=True)
class Way:
    """How queries are worked on.

    Attributes:
        streams: sessions at work at once.
        threads: worker threads of each.
        batch: samples that a session takes at once.
        turns: times that each session is called in one query, on average.
    """

    streams: int = 1
    threads: int = 1
    batch: int = 1
    turns: int = 1

    @property
    def images(self) -> int:
        """Samples of one query."""
        return self.streams * self.batch * self.turns


@dataclass(frozen=True)
class Opened:
    """An artifact ready to be asked: its sessions, the query, the way, and what else was tried for it."""

    sessions: Sequence[Session]
    query: Query
    way: Way
    tried: Sequence[dict[str, Any]] = ()

    def to_json(self) -> dict[str, Any]:
        """The way, the images of a query, and what was tried."""
        return {**asdict(self.way), "images_per_query": self.way.images, "tried": list(self.tried)}


@contextlib.contextmanager
def opened(artifact: Artifact, samples: Sequence[Arrays], plan: Plan) -> Iterator[Opened]:
    """Open as many sessions of an artifact as the plan's scenario wants, and close them afterwards.

    Args:
        artifact: what to execute.
        samples: feeds of one sample each, in rotation.
        plan: scenario, streams and threads.

    Raises:
        BackendError: the runtime refuses the artifact.
    """
    cores = os.cpu_count() or 1
    if plan.scenario == "offline":
        way, tried = _best_offline(artifact, samples, plan, cores)
    else:
        several = plan.scenario == "multi-stream"
        way, tried = Way(plan.streams or max(2, cores // plan.threads) if several else 1, plan.threads), []
    with _sessions(artifact, way) as (sessions, pool):
        fixed = fixed_batch(sessions[0].inputs)
        way = way if fixed is None else Way(way.streams, way.threads, fixed, way.turns)
        yield Opened(sessions, _query(sessions, pool, samples, way), way, tried)


@contextlib.contextmanager
def _sessions(artifact: Artifact, way: Way) -> Iterator[tuple[list[Session], ThreadPoolExecutor]]:
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(way.streams, "edgetl-stream"))
        sessions = open_sessions(artifact, way.streams, threads=way.threads)
        for session in sessions:
            stack.callback(session.close)
        yield sessions, pool


def full_batches(samples: Sequence[Arrays], batch: int) -> list[dict[str, npt.NDArray[Any]]]:
    """The feeds of each sample, as often as a session takes samples at once."""
    return [{name: np.repeat(x, batch, axis=0) for name, x in feeds.items()} for feeds in samples]


def _query(sessions: Sequence[Session], pool: ThreadPoolExecutor, samples: Sequence[Arrays], way: Way) -> Query:
    feeds = full_batches(samples, way.batch)
    if way.streams == way.turns == 1:
        only = sessions[0]
        return lambda number: infer(only, feeds[number % len(feeds)])

    def query(number: int) -> None:
        # The next share goes to whoever is free: what one session loses to a disturbance, another makes up.
        shares = itertools.count()

        def work(session: Session) -> None:
            while (share := next(shares)) < way.streams * way.turns:
                infer(session, feeds[(number + share) % len(feeds)])

        def once(session: Session) -> None:
            infer(session, feeds[(number + next(shares)) % len(feeds)])

        list(pool.map(once if way.turns == 1 else work, sessions))

    return query


def _best_offline(
    artifact: Artifact, samples: Sequence[Arrays], plan: Plan, cores: int
) -> tuple[Way, list[dict[str, Any]]]:
    """Try the ways in which all cores can be kept busy, and size the query for the fastest."""
    shapes = [(cores, 1), (1, cores)] if plan.streams is None else [(plan.streams, plan.threads)]
    tried: list[dict[str, Any]] = []
    for streams, threads in dict.fromkeys(shapes):
        for batch in OFFLINE_BATCHES:
            with _sessions(artifact, Way(streams, threads)) as (sessions, pool):
                fixed = fixed_batch(sessions[0].inputs)
                way = Way(streams, threads, batch if fixed is None else fixed, 4)
                rate = way.images * _rate(_query(sessions, pool, samples, way))
            tried.append({"streams": streams, "threads": threads, "batch": way.batch, "images_per_s": rate})
            if fixed is not None:
                break
    best = max(tried, key=lambda entry: entry["images_per_s"])
    at_once = best["streams"] * best["batch"]
    turns = max(4, math.ceil(OFFLINE_QUERY_S * best["images_per_s"] / at_once))
    return Way(best["streams"], best["threads"], best["batch"], turns), tried


def _rate(query: Query) -> float:
    """Queries a second, the first one left out."""
    query(0)
    started, n = time.perf_counter(), 0
    while not n or time.perf_counter() - started < TRIAL_S:
        n += 1
        query(n)
    return n / (time.perf_counter() - started)
