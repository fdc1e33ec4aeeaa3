"""Raw timings: nothing is averaged, dropped or clipped here.

Artifacts that are compared are measured in one process, taking turns, so that whatever else the machine does
falls on all of them alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgetl.base.errors import BackendError
from edgetl.base.progress import Progress, silent
from edgetl.base.schema import from_json
from edgetl.core.bench import LoadGen
from edgetl.core.bundle import GOLDEN, Artifact, Bundle
from edgetl.core.tensors import Arrays
from edgetl.runtime import energy, sensors
from edgetl.runtime.intervals import percentile
from edgetl.runtime.loadgen import run_loadgen
from edgetl.runtime.machine import machine
from edgetl.runtime.measurement import Cold, Look, Measurement, Scheduled
from edgetl.runtime.plan import Plan
from edgetl.runtime.predict import infer
from edgetl.runtime.queries import Opened, Query, full_batches, opened
from edgetl.runtime.selftest import read_golden
from edgetl.runtime.sessions import Session, fixed_batch, open_session, prepare, unpadded

WARMUP = 10
MIN_RUNS = 30
#: Seconds between two looks at clocks, temperatures and neighbours; a look takes well under a millisecond.
LOOK_S = 0.5
#: What may be timed in one process: a bundle's artifact, its float twin, and another bundle's artifact.
ROLES = ("deployed", "float", "against")


@dataclass
class Timed:
    """Milliseconds of each query by name, in order; what was seen meanwhile; and why it ended."""

    samples_ms: dict[str, list[float]]
    watch: list[Look] = field(default_factory=list)
    stopped: str = "duration"


def interleave(
    sessions: Mapping[str, Session],
    samples: Sequence[Arrays],
    *,
    seconds: float,
    warmup: int = WARMUP,
    progress: Progress = silent,
) -> dict[str, list[float]]:
    """Time inferences of several sessions in turn: of one sample, or of one full batch where it is fixed.

    Args:
        sessions: by name.
        samples: feeds of one sample each, in rotation.
        seconds: how long to go on; at least :data:`MIN_RUNS` rounds are made in any case.
        warmup: rounds thrown away first, interleaved too.
        progress: told once a second.

    Returns:
        name → milliseconds of each inference, in order.
    """
    feeds = {name: full_batches(samples, fixed_batch(session.inputs) or 1) for name, session in sessions.items()}

    def query(name: str) -> Query:
        return lambda number: infer(sessions[name], feeds[name][number % len(samples)])

    return take_turns(
        {name: query(name) for name in sessions}, Plan(seconds), warmup=warmup, progress=progress
    ).samples_ms


def take_turns(queries: Mapping[str, Query], plan: Plan, *, warmup: int = WARMUP, progress: Progress = silent) -> Timed:
    """Time several queries in turn until the plan's time is over or the first one's p90 is known well enough.

    Args:
        queries: by name; each is given the number of the round.
        plan: ``seconds`` and ``until``.
        warmup: rounds thrown away first, interleaved too.
        progress: told once a second.
    """
    timed = Timed({name: [] for name in queries})
    for number in range(warmup):
        _round(queries, number, timed.samples_ms)
    timed.samples_ms = {name: [] for name in queries}
    started, reported, looked, check = time.perf_counter(), 0.0, 0.0, MIN_RUNS
    for number in range(warmup, sys.maxsize):
        now, done = time.perf_counter(), number - warmup
        if now - looked > LOOK_S:
            looked = now
            timed.watch.append(sensors.sample(n=done))
        if done >= MIN_RUNS and now - started >= plan.seconds:
            break
        if plan.until is not None and done >= check:
            if _narrow(next(iter(timed.samples_ms.values())), plan.until):
                timed.stopped = "interval"
                break
            # Each look costs time and warm caches, and each is one more chance to stop at a lucky moment.
            check = done + max(done // 4, MIN_RUNS)
            _round(queries, number, {name: [] for name in queries})
        _round(queries, number, timed.samples_ms)
        if now - reported > 1:
            reported = now
            progress("timing", int(min(now - started, plan.seconds)), int(plan.seconds))
    timed.watch.append(sensors.sample(n=len(next(iter(timed.samples_ms.values())))))
    return timed


def _round(queries: Mapping[str, Query], number: int, samples: Mapping[str, list[float]]) -> None:
    # Whoever follows a larger model finds colder caches: rotating the order spreads that evenly.
    names = list(queries)
    first = number % len(names)
    for name in names[first:] + names[:first]:
        query = queries[name]
        before = time.perf_counter_ns()
        query(number)
        samples[name].append((time.perf_counter_ns() - before) / 1e6)


def _narrow(samples: Sequence[float], until: float) -> bool:
    found = percentile(samples, 0.9)
    return found is not None and found.width < until


def bench(bundle: Bundle, plan: Plan | None = None, *, progress: Progress = silent) -> Measurement:
    """Time a bundle's artifact, its float twin, and one it is compared with, in turn, on this machine.

    Raises:
        BackendError: the runtime refuses an artifact, so nothing can be timed here.
        BundleError: the bundle has no golden vectors.
        MissingExtraError: LoadGen is wanted and not installed here.
    """
    plan = plan or Plan()
    loadgen = plan.harness == "loadgen"
    # LoadGen asks one artifact for as long as it lasts: there is no taking turns with a twin.
    roles = ["deployed"] if loadgen else [role for role in ROLES if _timed(bundle, role)]
    feeds = {role: golden_feeds(bundle, role) for role in roles}
    cold = {role: _cold_in_fresh_process(bundle, role, plan.threads) for role in roles}
    with contextlib.ExitStack() as stack:
        ready = {role: stack.enter_context(opened(bundle.artifact(role), feeds[role], plan)) for role in roles}
        before = sensors.state()
        timed, figures = (
            _loadgen(ready["deployed"], plan, progress) if loadgen else (_turns(ready, plan, progress), None)
        )
        after = sensors.state()
        spent = energy.measure({role: (it.query, it.schedule.samples) for role, it in ready.items()})
        executed = {role: it.sessions[0].executed() for role, it in ready.items()}
        schedules = {role: Scheduled(schedule=it.schedule, tried=it.tried) for role, it in ready.items()}
    return Measurement(
        samples_ms={role: tuple(samples) for role, samples in timed.samples_ms.items()},
        executed=executed,
        cold=cold,
        schedules=schedules,
        energy=spent,
        plan=plan,
        stopped=timed.stopped,
        warmup=WARMUP,
        watch=tuple(timed.watch),
        device=machine(),
        before=before,
        after=after,
        loadgen=figures,
    )


def _timed(bundle: Bundle, role: str) -> bool:
    """Whether the bundle has it. One in float is its own twin: timing it against itself would only measure noise."""
    if role not in bundle.manifest.artifacts:
        return False
    return role != "float" or bundle.artifact("float") != bundle.artifact("deployed")


def _turns(ready: Mapping[str, Opened], plan: Plan, progress: Progress) -> Timed:
    return take_turns({role: it.query for role, it in ready.items()}, plan, progress=progress)


def _loadgen(ready: Opened, plan: Plan, progress: Progress) -> tuple[Timed, LoadGen]:
    progress("LoadGen", 0, int(plan.seconds))
    watch = [sensors.sample()]
    samples, figures = run_loadgen(ready.query, plan, ready.schedule.samples)
    watch.append(sensors.sample(n=len(samples)))
    return Timed({"deployed": samples}, watch), figures


def golden_feeds(bundle: Bundle, role: str = "deployed") -> list[dict[str, npt.NDArray[Any]]]:
    """What an artifact is fed while it is timed: the golden vectors beside it where it came from another bundle, else
    the bundle's own.

    Raises:
        BundleError: the bundle has no golden vectors.
    """
    beside = (bundle.artifact(role).path.parent / GOLDEN).relative_to(bundle.path).as_posix()
    return [dict(feeds) for feeds in read_golden(bundle, beside if beside in bundle.manifest.files else GOLDEN).feeds]


def cold_start(artifact: Artifact, feeds: Arrays, threads: int) -> Cold:
    """Load an artifact and infer once, in this process, which should be a fresh one.

    Args:
        artifact: what to load.
        feeds: of one sample.
        threads: worker threads of the runtime.

    Returns:
        time from opening the file to the first outputs, the runtime's own import included but not what it makes of the
        file once, and the process's high-water mark after ten more inferences.
    """
    # An engine is built once for a device, not with every start of a program.
    prepare(artifact)
    started = time.perf_counter()
    with contextlib.closing(open_session(artifact, threads=threads)) as session:
        feeds = unpadded(feeds, session.inputs)
        infer(session, feeds)
        elapsed = (time.perf_counter() - started) * 1e3
        for _ in range(10):
            infer(session, feeds)
    return Cold(elapsed, _peak_rss_mb())


def _peak_rss_mb() -> float | None:
    # Linux hands ru_maxrss on through exec: a process started by a large one would report its parent's memory.
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text("ascii", "replace"), re.MULTILINE)
        if found:
            return int(found[1]) / 1024
    if sys.platform == "win32":
        return None
    import resource

    # In KiB, but for macOS, where it is bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def _cold_in_fresh_process(bundle: Bundle, role: str, threads: int) -> Cold:
    command = [sys.executable, "-m", "edgetl.runtime", "cold", str(bundle.path)]
    command += ["--role", role, "--threads", str(threads)]
    done = subprocess.run(
        command, capture_output=True, check=False, encoding="utf-8", errors="replace", env=_environment()
    )
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise BackendError(f"the {role} artifact does not start in a fresh process ({last})", "run: edgetl doctor")
    return from_json(Cold, json.loads(done.stdout), "the fresh process", BackendError, "run: edgetl doctor")


def _environment() -> dict[str, str]:
    """This process's environment, with the same import path for the child."""
    paths: Sequence[str] = [path for path in sys.path if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
