"""Which samples of the calibration split give the ranges, and the record of that choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CompressionError
from edgetl.base.storage import sha256_file
from edgetl.core.compression import Calibration, CalibrationSample
from edgetl.core.data import Dataset, Sample, label_kind

SPLIT = "calibration"
#: Of the values of a regression, each of as many samples.
BINS = 10
Features = Callable[[Sequence[Path]], npt.NDArray[np.floating[Any]]]


@dataclass(frozen=True)
class Selection:
    """The chosen calibration samples.

    Attributes:
        indexes: positions within ``dataset.split("calibration")``, in the order chosen.
        paths: their files.
        record: for ``calibration.json``.
    """

    indexes: tuple[int, ...]
    paths: tuple[Path, ...]
    record: Calibration


def select_samples(
    dataset: Dataset,
    selection: str,
    size: int,
    seed: int,
    features: Features | npt.NDArray[np.floating[Any]] | None = None,
) -> Selection:
    """Choose calibration samples; the same dataset, settings and features give the same choice.

    Args:
        dataset: only its calibration split is used.
        selection: ``random``; ``class-balanced`` (random within each class, the classes taking turns; where samples
            have several classes, within each set of them; where they have numbers, within each of :data:`BINS` bins
            of as many samples); or ``k-centre`` (greedy farthest-first traversal of the features: Gonzalez 1985;
            Sener and Savarese 2018).
        size: how many; the whole split if it is smaller.
        seed: of the draw; for ``k-centre``, of its first sample.
        features: for ``k-centre``: an array (n, d) over the calibration split in its order, or a function from its
            files to one.

    Raises:
        CompressionError: an empty split, an unknown selection, missing or misshapen features, or a file that is
            not the one that was split.
    """
    samples = dataset.split(SPLIT)
    if not samples:
        raise CompressionError("the run has no calibration samples", "add some: ten a class at least")
    if size < 1:
        raise CompressionError(f"{size} calibration samples are too few", "choose at least 1")
    files = [dataset.file(sample) for sample in samples]
    draw = np.random.default_rng(seed)
    count = min(size, len(samples))
    balanced = ""
    if selection == "random":
        indexes = [int(i) for i in draw.permutation(len(samples))[:count]]
    elif selection == "class-balanced":
        balanced, strata = _strata(dataset.label_kind, [sample.label for sample in samples])
        indexes = _balanced(strata, count, draw)
    elif selection == "k-centre":
        indexes = _k_centre(_feature_array(features, files), count, draw)
    else:
        raise CompressionError(f"unknown selection '{selection}'", "use random, class-balanced or k-centre")
    chosen = [(samples[i], files[i]) for i in indexes]
    record = Calibration(
        split=SPLIT,
        available=len(samples),
        selection=selection,
        size=count,
        seed=seed,
        balanced=balanced,
        samples=tuple(_entry(sample, file) for sample, file in chosen),
    )
    return Selection(tuple(indexes), tuple(file for _, file in chosen), record)


def _entry(sample: Sample, file: Path) -> CalibrationSample:
    try:
        found = sha256_file(file)
    except OSError as error:
        raise CompressionError(f"cannot read {file} ({error.strerror})", "restore the run's files") from error
    if sample.sha256 and found != sample.sha256:
        raise CompressionError(f"{file} has changed since the samples were split", "make the run again")
    return CalibrationSample(sample.path, found, sample.label)


def _strata(kind: str, labels: Sequence[Any]) -> tuple[str, list[int]]:
    """What is balanced, in words, and the number of each sample's stratum."""
    if kind == "number":
        values = np.array(labels, dtype=np.float64)
        inner = np.quantile(values, np.arange(1, BINS) / BINS)
        return f"{BINS} quantile bins", [int(i) for i in np.searchsorted(inner, values, side="right")]
    marks = label_kind(kind).marks
    held: Sequence[Any] = labels if marks is None else marks(labels)
    number = {label: i for i, label in enumerate(sorted(set(held)))}
    return "classes" if marks is None else "label sets", [number[label] for label in held]


def _balanced(labels: Sequence[int], count: int, draw: np.random.Generator) -> list[int]:
    queues = {label: [i for i, own in enumerate(labels) if own == label] for label in sorted(set(labels))}
    for queue in queues.values():
        draw.shuffle(queue)
    chosen: list[int] = []
    while len(chosen) < count:
        # When the last round cannot serve every stratum, none is favoured for its place in the list.
        order = draw.permutation(sorted(label for label, queue in queues.items() if queue))
        chosen += [queues[int(label)].pop() for label in order[: count - len(chosen)]]
    return chosen


def _k_centre(features: npt.NDArray[np.floating[Any]], count: int, draw: np.random.Generator) -> list[int]:
    chosen = [int(draw.integers(len(features)))]
    nearest = np.full(len(features), np.inf)
    while len(chosen) < count:
        nearest = np.minimum(nearest, ((features - features[chosen[-1]]) ** 2).sum(axis=1))
        # Copies of one sample are at distance 0 of one another: never choose one twice for it.
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return chosen


def _feature_array(
    features: Features | npt.NDArray[np.floating[Any]] | None, files: Sequence[Path]
) -> npt.NDArray[np.floating[Any]]:
    if features is None:
        raise CompressionError("k-centre needs features of the samples", "give them, or use class-balanced")
    array = np.asarray(features(files) if callable(features) else features, dtype=np.float64)
    if array.ndim != 2 or len(array) != len(files) or not np.isfinite(array).all():
        raise CompressionError(
            f"the features have shape {array.shape} for {len(files)} samples", "give one finite row for each"
        )
    return array
