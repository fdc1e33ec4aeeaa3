"""All evidence in order: what files say, what graphs compute, what answers show; the costly last, and if needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from edgetl.base.errors import CompressionError, MissingExtraError
from edgetl.base.progress import Progress, silent
from edgetl.compress.layers.points import Point, read_points
from edgetl.compress.layers.topology import read_topology
from edgetl.core.bundle import Bundle
from edgetl.core.findings import Finding
from edgetl.core.tensors import Arrays
from edgetl.diagnosis.activations import audit_activations
from edgetl.diagnosis.answers import audit_answers
from edgetl.diagnosis.batchnorm import audit_batchnorm
from edgetl.diagnosis.observations import DEPLOYED, REFERENCE, Observations
from edgetl.diagnosis.prefix import audit_prefix
from edgetl.diagnosis.records import read_records
from edgetl.diagnosis.runner import reproduce
from edgetl.diagnosis.weights import audit_weights
from edgetl.inputs import Preprocess, input_of
from edgetl.tasks import TASKS, find_task

#: Top-1 agreement with the reference below which, or distance of logits as a share of their spread above which, the
#: deployed answers are said to diverge, and a faulty runner is looked for.
AGREES, NEAR = 0.995, 0.02
#: Kinds of fault that only some tasks can have: the others apply to every model.
OF_A_TASK = frozenset().union(*(task.audits for task in TASKS.values()))
#: Kinds of fault that nothing but a bundle's files shows.
OF_FILES_ALONE = frozenset({"calibration-too-few", "layout", "per-tensor-depthwise", "dead-channel", "another-model"})
#: The kind that says that graphs could not be read here.
UNREAD = "graphs-not-read"
#: Samples in the batch whose members must not influence one another.
BATCH = 4


def diagnose(
    bundle: Bundle, seen: Observations, *, root: Path | None, progress: Progress = silent
) -> tuple[Finding, ...]:
    """Which faults does a bundle, or the program that ran it, have?

    Args:
        bundle: what was certified.
        seen: the answers of its rungs to the certify samples.
        root: folder under which the run's samples lie as in ``splits.json``; None leaves out what needs them.
        progress: told of every long step.

    Returns:
        at most one finding of each kind, the most telling evidence first; empty where nothing is wrong.

    Raises:
        BundleError: a file of the bundle is missing or malformed.
    """
    task, sees_images = find_task(bundle.manifest.task), isinstance(input_of(bundle), Preprocess)
    progress("diagnosing", 0, 4)
    found = list(read_records(bundle, root))
    progress("diagnosing", 1, 4)
    found += _as_far_as_read(_of_graphs(bundle, _one_batch(bundle, root)))
    progress("diagnosing", 2, 4)
    # Ranges of a graph whose preprocessing or weights are wrong differ for that reason.
    if root is not None and not _explained(found) and not _unread(found):
        found += audit_activations(bundle, _points(bundle), read_topology(bundle.source), root)
    progress("diagnosing", 3, 4)
    found += audit_answers(seen, bundle.labels)
    if sees_images and _diverges(seen) and not _explained(found):
        found += reproduce(bundle, seen, progress)
    progress("diagnosing", 4, 4)
    return _one_of_each(finding for finding in found if finding.kind not in OF_A_TASK - task.audits)


def of_files(bundle: Bundle) -> tuple[Finding, ...]:
    """The findings of :func:`diagnose` that take neither samples nor answers: they follow from the bundle's files.

    Where the graphs cannot be read, :data:`UNREAD` is among them.

    Raises:
        BundleError: a file of the bundle is missing or malformed.
    """
    task = find_task(bundle.manifest.task)
    found = [*read_records(bundle, None), *_as_far_as_read(_of_graphs(bundle, None))]
    return _one_of_each(finding for finding in found if finding.kind not in OF_A_TASK - task.audits)


def _of_graphs(bundle: Bundle, batch: Arrays | None) -> Iterator[Finding]:
    """What the graphs show of themselves and, unless only files are to speak, of how they treat a batch."""
    if isinstance(input_of(bundle), Preprocess):
        yield from audit_prefix(bundle)
    topology = read_topology(bundle.source)
    if batch is not None:
        yield from audit_batchnorm(bundle, topology, batch)
    yield from audit_weights(bundle, _points(bundle), topology)


def _as_far_as_read(found: Iterator[Finding]) -> Iterator[Finding]:
    """Findings until a package is missing; that is said then: what was not looked at is not without fault."""
    try:
        yield from found
    except MissingExtraError as lacking:
        yield Finding(UNREAD, f"Nobody looked into the graphs: {lacking.what}.")


def _unread(found: Sequence[Finding]) -> bool:
    return any(finding.kind == UNREAD for finding in found)


def _one_batch(bundle: Bundle, root: Path | None) -> Arrays:
    """A few samples for one batch: of the search split, or noise; none where noise is no input."""
    source = input_of(bundle)
    paths = [] if root is None else [root / s.path for s in bundle.dataset.split("search")[:BATCH]]
    if len(paths) == BATCH and all(path.is_file() for path in paths):
        return source.batch(paths)
    (first, *more) = source.tensors
    if more or first.dtype != "uint8" or None in first.shape[1:]:
        return {}
    shape = (BATCH, *(size or 1 for size in first.shape[1:]))
    return {first.name: np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)}


def _points(bundle: Bundle) -> tuple[Point, ...]:
    """How the artifact executes its layers; nothing where it is not made of the graph that it names."""
    try:
        return read_points(bundle.artifact().graph, bundle.source)
    except CompressionError:
        return ()


def _explained(found: Sequence[Finding]) -> bool:
    return any(finding.severity == "fatal" and finding.kind != "calibration-overlap" for finding in found)


def _diverges(seen: Observations) -> bool:
    """Whether the deployed answers differ from the reference's at all: small differences are explained too."""
    reference, deployed = seen.logits[REFERENCE], seen.logits.get(DEPLOYED)
    if deployed is None or not len(reference) or deployed.shape != reference.shape:
        return False
    agreement = float((reference.argmax(axis=1) == deployed.argmax(axis=1)).mean())
    away = float(np.sqrt(((deployed - reference) ** 2).mean())) / max(float(reference.std()), 1e-12)
    return agreement < AGREES or not away < NEAR


def _one_of_each(found: Iterable[Finding]) -> tuple[Finding, ...]:
    first: dict[str, Finding] = {}
    for finding in found:
        first.setdefault(finding.kind, finding)
    return tuple(first.values())
