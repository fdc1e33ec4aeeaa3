"""From sample files to a network's outputs, through a bundle's own preprocessing and runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgetl.base.parallel import CORES, in_order
from edgetl.base.progress import Progress, silent, tracked
from edgetl.core.bundle import Artifact, Bundle
from edgetl.core.tensors import Arrays, TensorSpec, count
from edgetl.inputs import input_of
from edgetl.runtime.open_head import answering, labels_of, open_head, seeing
from edgetl.runtime.sessions import Session, fixed_batch, open_session, reentrant
from edgetl.tasks import Task, find_task

#: What a network's head is: the certified one, as its file has it; with the classes that were added on the device,
#: where there are any; or one that gives what it reads, where it stands open.
Head = Literal["certified", "enrolled", "features"]
HEADS: tuple[Head, ...] = ("certified", "enrolled", "features")
#: Inferences at once where nothing is timed.
AT_ONCE = min(CORES, 4)


def predict(
    bundle: Bundle,
    paths: Sequence[Path],
    *,
    role: str = "deployed",
    threads: int | None = None,
    simulated: bool = False,
    head: Head = "certified",
    progress: Progress = silent,
) -> dict[str, npt.NDArray[Any]]:
    """Run sample files through a bundle, one at a time, so that memory does not grow with their number.

    Args:
        bundle: opened and checked.
        paths: sample files: images, texts, arrays.
        role: ``deployed``, ``float`` or ``exported``.
        threads: worker threads; all cores when None.
        simulated: see :func:`edgetl.runtime.sessions.open_session`.
        head: see :data:`HEADS`.
        progress: told of each sample.

    Returns:
        each of the network's outputs by name, of shape (n, …), floating ones as float32.

    Raises:
        DataError: a file is missing or damaged.
        BackendError: the runtime refuses the artifact.
    """
    source = input_of(bundle)
    outputs = {spec.name: np.empty((0, *(size or 0 for size in spec.shape[1:]))) for spec in output_specs(bundle, head)}
    task = f"{bundle.target}: running {'(simulated) ' if simulated else ''}{role}"
    with several(_artifact(bundle, role, head), threads=threads, simulated=simulated) as sessions:
        feeds = (source.feeds(path) for path in tracked(paths, task, progress))
        for row, found in enumerate(inferred(sessions, feeds)):
            if not row:
                outputs = {name: np.empty((len(paths), *x.shape[1:]), x.dtype) for name, x in found.items()}
            for name, value in found.items():
                outputs[name][row] = value[0]
    return outputs


def output_specs(bundle: Bundle, head: Head = "certified") -> tuple[TensorSpec, ...]:
    """The outputs that a bundle's network must have with a head, as its task says."""
    if head == "features":
        (spec,) = task_of(bundle).outputs(bundle.labels)
        return (replace(spec, shape=(spec.shape[0], open_head(bundle).features)),)
    return task_of(bundle).outputs(labels_of(bundle) if head == "enrolled" else bundle.labels)


def _artifact(bundle: Bundle, role: str, head: Head) -> Artifact:
    if head == "features":
        return seeing(bundle)
    return answering(bundle, role) if head == "enrolled" else bundle.artifact(role)


def task_of(bundle: Bundle) -> Task:
    """What a bundle's model is for.

    Raises:
        UnknownNameError: this edgetl knows no such task.
    """
    return find_task(bundle.manifest.task)


def open_role(bundle: Bundle, role: str, threads: int | None, simulated: bool) -> Session:
    """An artifact of a bundle in its runtime, on all cores unless told otherwise; see :func:`open_session`."""
    return open_session(bundle.artifact(role), threads=threads or CORES, simulated=simulated)


@contextmanager
def several(artifact: Artifact, *, threads: int | None = None, simulated: bool = False) -> Iterator[list[Session]]:
    """Sessions of an artifact that work at once where nothing is timed, on all cores; closed at the end.

    Where one session may be asked by several threads, it is, so that the weights are held once. The other runtimes
    spread an inference over the cores themselves: one session.

    Args:
        artifact: what to load.
        threads: one session with so many instead.
        simulated: see :func:`edgetl.runtime.sessions.open_session`.

    Raises:
        BackendError: see :func:`edgetl.runtime.sessions.open_session`.
    """
    count = AT_ONCE if threads is None and reentrant(artifact, simulated=simulated) else 1
    with closing(open_session(artifact, threads=threads or -(-CORES // count), simulated=simulated)) as session:
        yield [session] * count


def inferred(sessions: Sequence[Session], feeds: Iterable[Arrays]) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """What :func:`infer` gives for each, in order, as many at once as there are sessions."""
    return in_order([partial(infer, session) for session in sessions], feeds)


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
