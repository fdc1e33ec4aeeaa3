"""From sample files to a network's outputs, through a bundle's own preprocessing and runtime."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BundleError
from edgetl.base.progress import Progress, silent, tracked
from edgetl.core.bundle import GOLDEN, Bundle
from edgetl.core.tensors import Arrays, TensorSpec, count, joined, rows
from edgetl.inputs import input_of
from edgetl.runtime.installed import SelfTest
from edgetl.runtime.sessions import Session, fixed_batch, open_session
from edgetl.tasks import Task, find_task

#: Largest share of an output's range by which a golden vector may differ from one machine to the next. Other
#: ISAs round integers differently: 1 to 2 % between x86-64 and aarch64 was measured.
GOLDEN_TOLERANCE = 0.05
#: Prefixes of golden.npz: the network's inputs, and the outputs that are expected for them.
_IN, _OUT = "in.", "out."


def predict(
    bundle: Bundle,
    paths: Sequence[Path],
    *,
    role: str = "deployed",
    threads: int | None = None,
    simulated: bool = False,
    progress: Progress = silent,
) -> dict[str, npt.NDArray[Any]]:
    """Run sample files through a bundle, one at a time, so that memory does not grow with their number.

    Args:
        bundle: opened and checked.
        paths: sample files: images, texts, arrays.
        role: ``deployed``, ``float`` or ``exported``.
        threads: worker threads; all cores when None.
        simulated: see :func:`edgetl.runtime.sessions.open_session`.
        progress: told of each sample.

    Returns:
        each of the network's outputs by name, of shape (n, …), floating ones as float32.

    Raises:
        DataError: a file is missing or damaged.
        BackendError: the runtime refuses the artifact.
    """
    source = input_of(bundle)
    outputs = {spec.name: np.empty((0, *(size or 0 for size in spec.shape[1:]))) for spec in output_specs(bundle)}
    task = f"{bundle.target}: running {'(simulated) ' if simulated else ''}{role}"
    with closing(_open(bundle, role, threads, simulated)) as session:
        for row, path in enumerate(tracked(paths, task, progress)):
            found = infer(session, source.feeds(path))
            if not row:
                outputs = {name: np.empty((len(paths), *x.shape[1:]), x.dtype) for name, x in found.items()}
            for name, value in found.items():
                outputs[name][row] = value[0]
    return outputs


def output_specs(bundle: Bundle) -> tuple[TensorSpec, ...]:
    """The outputs that a bundle's network must have, as its task says."""
    return task_of(bundle).outputs(bundle.labels)


def task_of(bundle: Bundle) -> Task:
    """What a bundle's model is for.

    Raises:
        UnknownNameError: this edgetl knows no such task.
    """
    return find_task(bundle.manifest.task)


def _open(bundle: Bundle, role: str, threads: int | None, simulated: bool) -> Session:
    return open_session(bundle.artifact(role), threads=threads or os.cpu_count() or 1, simulated=simulated)


def infer(session: Session, feeds: Arrays) -> dict[str, npt.NDArray[Any]]:
    """One run of a session: feeds of n samples → outputs of n samples by name, floating ones as float32.

    A graph with a fixed batch is filled up with copies of the last sample, whose outputs are left out.
    """
    n = count(feeds)
    missing = (fixed_batch(session.inputs) or n) - n
    if missing > 0:
        feeds = {name: np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) for name, x in feeds.items()}
    outputs = {name: value[:n] for name, value in session.run(feeds).items()}
    return {
        name: value.astype(np.float32, copy=False) if value.dtype.kind == "f" else value
        for name, value in outputs.items()
    }


def golden(feeds: Arrays, outputs: Arrays) -> dict[str, Any]:
    """What golden.npz holds, by key, of n samples and the network's outputs for them: ``in.NAME`` and ``out.NAME``."""
    inputs = {f"{_IN}{name}": value for name, value in feeds.items()}
    return {**inputs, **{f"{_OUT}{name}": value for name, value in outputs.items()}}


def read_golden(path: Path) -> tuple[list[dict[str, npt.NDArray[Any]]], dict[str, npt.NDArray[Any]]]:
    """A bundle's golden vectors.

    Args:
        path: the bundle's folder.

    Returns:
        the feeds of each sample, first axes of 1; and each output that is expected for them, (n, …).

    Raises:
        BundleError: the folder has no golden vectors.
    """
    file = path / GOLDEN
    if not file.is_file():
        raise BundleError(f"{path} has no golden vectors", "export it again")
    with np.load(file, allow_pickle=False) as stored:
        inputs, outputs = (
            {key.removeprefix(kind): stored[key] for key in stored.files if key.startswith(kind)}
            for kind in (_IN, _OUT)
        )
    if not inputs or not outputs or len({len(values) for values in (*inputs.values(), *outputs.values())}) != 1:
        raise BundleError(f"{file} holds no golden vectors that this edgetl reads", "export the bundle again")
    return [rows(inputs, slice(row, row + 1)) for row in range(count(inputs))], outputs


def selftest(bundle: Bundle, *, threads: int | None = None, simulated: bool = False) -> SelfTest:
    """Does this machine give the golden outputs?

    Raises:
        BundleError: the bundle has no golden vectors, or they are another network's.
    """
    feeds, expected = read_golden(bundle.path)
    with closing(_open(bundle, "deployed", threads, simulated)) as session:
        found = joined([infer(session, sample) for sample in feeds])
    shapes = [{name: x.shape for name, x in outputs.items()} for outputs in (expected, found)]
    if shapes[0] != shapes[1]:
        raise BundleError(f"{bundle.path} has golden vectors of another network", "export it again")
    differences = [
        float(np.abs(found[name] - x).max()) / (float(np.ptp(x)) or 1.0) for name, x in expected.items() if x.size
    ]
    # NaN passes no test, and max() would drop it behind a number.
    difference = float(np.max(differences, initial=0.0))
    told = difference if math.isfinite(difference) else None
    return SelfTest(difference <= GOLDEN_TOLERANCE, told, GOLDEN_TOLERANCE, len(feeds))
