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
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.core.bench import Tried
from edgetl.core.bundle import Artifact
from edgetl.core.tensors import Arrays
from edgetl.runtime.measurement import Schedule
from edgetl.runtime.plan import Plan
from edgetl.runtime.predict import infer
from edgetl.runtime.sessions import Session, fixed_batch, open_sessions, unpadded

#: A query, given its number; the number says which sample comes next.
Query = Callable[[int], object]

#: Seconds for which each schedule is tried offline before the best is measured.
TRIAL_S = 0.7
#: An offline query lasts about this long, so that its ends, where sessions wait for the last, weigh little.
OFFLINE_QUERY_S = 0.1
#: Samples that a session takes at once offline, where the graph leaves its batch open.
OFFLINE_BATCHES = (1, 8)


@dataclass(frozen=True)
class Opened:
    """An artifact ready to be timed: its sessions, the query, the schedule, and what else was tried for it."""

    sessions: Sequence[Session]
    query: Query
    schedule: Schedule
    tried: tuple[Tried, ...] = ()


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
        schedule, tried = _best_offline(artifact, samples, plan, cores)
    else:
        several = plan.scenario == "multi-stream"
        schedule, tried = Schedule(plan.streams or max(2, cores // plan.threads) if several else 1, plan.threads), ()
    with _sessions(artifact, schedule) as (sessions, pool):
        fixed = fixed_batch(sessions[0].inputs)
        schedule = schedule if fixed is None else Schedule(schedule.streams, schedule.threads, fixed, schedule.turns)
        yield Opened(sessions, _query(sessions, pool, samples, schedule), schedule, tried)


@contextlib.contextmanager
def _sessions(artifact: Artifact, schedule: Schedule) -> Iterator[tuple[list[Session], ThreadPoolExecutor]]:
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(schedule.streams, "edgetl-stream"))
        sessions = open_sessions(artifact, schedule.streams, threads=schedule.threads, batch=schedule.batch)
        for session in sessions:
            stack.callback(session.close)
        yield sessions, pool


def full_batches(samples: Sequence[Arrays], batch: int) -> list[dict[str, npt.NDArray[Any]]]:
    """The feeds of each sample, as often as a session takes samples at once."""
    return [{name: np.repeat(x, batch, axis=0) for name, x in feeds.items()} for feeds in samples]


def _query(
    sessions: Sequence[Session], pool: ThreadPoolExecutor, samples: Sequence[Arrays], schedule: Schedule
) -> Query:
    own = [unpadded(sample, sessions[0].inputs) for sample in samples]
    feeds = full_batches(own, schedule.batch)
    if schedule.streams == schedule.turns == 1:
        only = sessions[0]
        return lambda number: infer(only, feeds[number % len(feeds)])

    def query(number: int) -> None:
        # The next share goes to whoever is free: what one session loses to a disturbance, another makes up.
        shares = itertools.count()

        def work(session: Session) -> None:
            while (share := next(shares)) < schedule.streams * schedule.turns:
                infer(session, feeds[(number + share) % len(feeds)])

        def once(session: Session) -> None:
            infer(session, feeds[(number + next(shares)) % len(feeds)])

        list(pool.map(once if schedule.turns == 1 else work, sessions))

    return query


def _best_offline(
    artifact: Artifact, samples: Sequence[Arrays], plan: Plan, cores: int
) -> tuple[Schedule, tuple[Tried, ...]]:
    """Try the schedules that keep all cores busy, and size the query for the fastest."""
    shapes = [(cores, 1), (1, cores)] if plan.streams is None else [(plan.streams, plan.threads)]
    tried: list[Tried] = []
    for streams, threads in dict.fromkeys(shapes):
        for batch in OFFLINE_BATCHES:
            with _sessions(artifact, Schedule(streams, threads, batch)) as (sessions, pool):
                fixed = fixed_batch(sessions[0].inputs)
                if batch > 1 and fixed == 1:
                    break
                schedule = Schedule(streams, threads, batch if fixed is None else fixed, 4)
                rate = schedule.samples * _rate(_query(sessions, pool, samples, schedule))
            tried.append(Tried(streams, threads, schedule.batch, rate))
            # One sample at once may be what the graph says, or what an engine was built for.
            if fixed not in (None, 1):
                break
    best = max(tried, key=lambda entry: entry.images_per_s)
    turns = max(4, math.ceil(OFFLINE_QUERY_S * best.images_per_s / (best.streams * best.batch)))
    return Schedule(best.streams, best.threads, best.batch, turns), tuple(tried)


def _rate(query: Query) -> float:
    """Queries a second, the first one left out."""
    query(0)
    started, n = time.perf_counter(), 0
    while not n or time.perf_counter() - started < TRIAL_S:
        n += 1
        query(n)
    return n / (time.perf_counter() - started)
