"""Raw timings: nothing is averaged, dropped or clipped here.

Artifacts that are compared are measured in one process, taking turns, so that whatever else the machine does
falls on all of them alike.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.bundle import Artifact, Bundle
from edgetl.errors import BackendError
from edgetl.progress import Progress, silent
from edgetl.runtime.machine import machine, state
from edgetl.runtime.predict import infer, read_golden
from edgetl.runtime.sessions import Session, open_session

WARMUP = 10
MIN_RUNS = 30


def interleave(
    sessions: Mapping[str, Session],
    images: npt.NDArray[np.uint8],
    *,
    seconds: float,
    warmup: int = WARMUP,
    progress: Progress = silent,
) -> dict[str, list[float]]:
    """Time inferences of several sessions in turn: of one image, or of one full batch where it is fixed.

    Args:
        sessions: by name.
        images: uint8 (n, H, W, 3), fed in rotation.
        seconds: how long to go on; at least :data:`MIN_RUNS` rounds are made in any case.
        warmup: rounds thrown away first, interleaved too.
        progress: told once a second.

    Returns:
        name → milliseconds of each inference, in order.
    """
    samples: dict[str, list[float]] = {name: [] for name in sessions}
    feeds = {name: _full_batches(session, images) for name, session in sessions.items()}
    names, rounds, started, told = list(sessions), 0, time.perf_counter(), 0.0
    while True:
        now = time.perf_counter()
        if rounds == warmup:
            samples, started = {name: [] for name in sessions}, now
        if rounds >= warmup + MIN_RUNS and now - started >= seconds:
            return samples
        # Whoever follows a larger model finds colder caches: rotating the order spreads that evenly.
        for name in names[rounds % len(names) :] + names[: rounds % len(names)]:
            image = feeds[name][rounds % len(images)]
            before = time.perf_counter_ns()
            infer(sessions[name], image)
            samples[name].append((time.perf_counter_ns() - before) / 1e6)
        rounds += 1
        if now - told > 1:
            told = now
            progress("timing", int(min(now - started, seconds)), int(seconds))


def _full_batches(session: Session, images: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    size = session.input_shape[0] or 1
    return [np.repeat(image[None], size, axis=0) for image in images]


def bench(bundle: Bundle, *, seconds: float, threads: int, progress: Progress = silent) -> dict[str, Any]:
    """Time a bundle's artifact and its float twin in turn, on this machine.

    Returns:
        raw record: ``samples_ms`` and ``executed`` by role, ``cold`` by role, ``device``, ``before``, ``after``,
        ``threads``, ``warmup``, ``batch`` (images an inference: the graph's fixed batch, or 1).

    Raises:
        BackendError: the runtime refuses an artifact, so nothing can be timed here.
        BundleError: the bundle has no golden vectors.
    """
    images, _ = read_golden(bundle)
    # A bundle in float is its own twin: timing it against itself would only measure noise.
    twin = "float" in bundle.manifest["artifacts"] and bundle.artifact("float") != bundle.artifact("deployed")
    roles = ["deployed", *(["float"] if twin else [])]
    cold = {role: _cold_in_fresh_process(bundle, role, threads) for role in roles}
    with contextlib.ExitStack() as opened:
        sessions = {}
        for role in roles:
            sessions[role] = open_session(bundle.artifact(role), threads=threads)
            opened.callback(sessions[role].close)
        before = state()
        samples = interleave(sessions, images, seconds=seconds, progress=progress)
        after = state()
        executed = {role: vars(session.executed()) for role, session in sessions.items()}
        batch = sessions["deployed"].input_shape[0] or 1
    return {
        "samples_ms": samples,
        "executed": executed,
        "cold": cold,
        "device": machine(),
        "before": before,
        "after": after,
        "threads": threads,
        "warmup": WARMUP,
        "batch": batch,
    }


def cold_start(artifact: Artifact, image: npt.NDArray[np.uint8], threads: int) -> dict[str, float]:
    """Load an artifact and infer once, in this process, which should be a fresh one.

    Returns:
        ``cold_start_ms``: from opening the file to the first logits, the runtime's own import included;
        ``peak_rss_mb``: the process's high-water mark after ten more inferences.
    """
    started = time.perf_counter()
    session = open_session(artifact, threads=threads)
    infer(session, image[None])
    elapsed = (time.perf_counter() - started) * 1e3
    for _ in range(10):
        infer(session, image[None])
    return {"cold_start_ms": elapsed, "peak_rss_mb": _peak_rss_mb()}


def _peak_rss_mb() -> float:
    # Linux hands ru_maxrss on through exec: a process started by a large one would report its parent's memory.
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _cold_in_fresh_process(bundle: Bundle, role: str, threads: int) -> dict[str, float]:
    command = [sys.executable, "-m", "edgetl.runtime", "cold", str(bundle.path)]
    command += ["--role", role, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise BackendError(f"the {role} artifact does not start in a fresh process ({last})", "run: edgetl doctor")
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _environment() -> dict[str, str]:
    """This process's environment, with the same import path for the child."""
    paths: Sequence[str] = [path for path in sys.path if path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
