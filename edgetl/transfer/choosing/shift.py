"""How far one set of samples lies from another: what a model trained on the first must expect of the second."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError
from edgetl.base.progress import Progress, silent
from edgetl.core.data import Dataset
from edgetl.core.data.samples import CLASS
from edgetl.inputs import INPUTS, Tensors, load_dataset
from edgetl.inputs.datasets import what
from edgetl.transfer.choosing.domains import Difference, label_shift, mmd, proxy_a_distance
from edgetl.transfer.choosing.ranking import drawn
from edgetl.transfer.choosing.subject import subject_for
from edgetl.transfer.streams import unlabelled

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
#: What stands for a backbone where the values of arrays are compared.
VALUES = "the values themselves"
#: Features of two samples that are as good as one sample: the cosine of the angle between them.
NEAR = 0.999
#: A proxy A-distance up to which two sets pass for one, and from which on they are hardly comparable.
ALIKE, APART = 0.5, 1.5


@dataclass(frozen=True)
class Samples:
    """One of the two sets.

    Attributes:
        files: of its samples.
        fingerprints: SHA-256 of what each holds.
        labels: class of each in :attr:`classes`; None where nothing says.
        classes: names.
    """

    files: tuple[Path, ...]
    fingerprints: tuple[str, ...]
    labels: Labels | None
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Shift:
    """How far two sets lie apart, by the features of a backbone.

    Attributes:
        backbone: its name.
        samples: compared of each.
        distance: proxy A-distance, 0 to 2.
        discrepancy: maximum mean discrepancy.
        labels: total variation of the shares of classes; None where one of them has no labels.
        only: names of classes that only the first, or only the second, has.
        copies: samples of the second that are in the first.
        near: further ones that are hardly to be told from one of the first.
    """

    backbone: str
    samples: tuple[int, int]
    distance: float
    discrepancy: Difference
    labels: Difference | None
    only: tuple[tuple[str, ...], tuple[str, ...]]
    copies: int
    near: int

    @property
    def verdict(self) -> str:
        """In a sentence, and what to do about it."""
        if self.distance < ALIKE:
            return "A classifier hardly tells them apart: train on the first, certify on the second."
        if self.distance < APART:
            return (
                "They differ: certify and calibrate on the second, and expect a loss that certificates on the first "
                "do not show."
            )
        return (
            "They are told apart almost always: what holds on the first says little of the second. Label some of it, "
            "or adapt to it."
        )

    def to_json(self) -> dict[str, Any]:
        """As ``edgetl shift --json`` has it."""
        found = {"mmd": self.discrepancy, "label_shift": self.labels}
        return {
            "backbone": self.backbone,
            "samples": list(self.samples),
            "proxy_a_distance": self.distance,
            **{name: None if each is None else {"value": each.value, "p": each.p} for name, each in found.items()},
            "classes_only_in": [list(names) for names in self.only],
            "copies": self.copies,
            "near_duplicates": self.near,
            "verdict": self.verdict,
        }


def shift(
    one: str | Path,
    other: str | Path,
    *,
    backbone: str | None = None,
    image_size: int | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    progress: Progress = silent,
) -> Shift:
    """Compare two sets of samples, labelled or not; of labelled ones, those that are there to learn from.

    Args:
        one: the samples that a model is trained on: a folder of class folders, a table, an archive, or a folder of
            files without labels.
        other: the same, of where it will be used.
        backbone: whose features; the one that finetune would take by default. Of arrays, their values are compared.
        image_size, seed, accelerator: as for :func:`edgetl.finetune`.
        progress: told of each sample.

    Raises:
        DataError: there are no samples, or of different kinds.
    """
    with tempfile.TemporaryDirectory() as folder:
        kinds = [what(source)[0] for source in (one, other)]
        if kinds[0] != kinds[1]:
            nouns = [f"{INPUTS[kind].noun}s" for kind in kinds]
            raise DataError(f"{one} holds {nouns[0]}, and {other} holds {nouns[1]}", "compare samples of one kind")
        read: list[Samples] = []
        for name, source in (("one", one), ("other", other)):
            read.append(_read(source, kinds[0], Path(folder) / name, seed, progress))
        if kinds[0] == Tensors.kind:
            return _compared(VALUES, read, _values(read), seed)
        chosen = subject_for(kinds[0], backbone, image_size, seed, accelerator)
        seen = [
            chosen.features(samples.files, f"features of {Path(source).name}", progress)
            for samples, source in zip(read, (one, other), strict=True)
        ]
    return _compared(chosen.name, read, seen, seed)


def _values(read: list[Samples]) -> list[Floats]:
    """Arrays as they are, each value in units of the first set's spread of it: no backbone has learned any.

    Raises:
        DataError: they are of different shapes.
    """
    own = Tensors.of(read[0].files)
    raw = [next(iter(own.batch(samples.files).values())).reshape(len(samples.files), -1) for samples in read]
    centre, spread = raw[0].mean(0), np.maximum(raw[0].std(0), 1e-6)
    return [np.asarray((values - centre) / spread, np.float32) for values in raw]


def _read(source: str | Path, kind: str, folder: Path, seed: int, progress: Progress) -> Samples:
    """Samples with their labels where the source has any."""
    try:
        dataset: Dataset = load_dataset(source, kind=kind, seed=seed, into=folder, progress=progress)
    except DataError as error:
        known = _without_labels(source, kind, folder, progress, error)
        order = np.random.default_rng(seed).permutation(len(known))
        files, contents = zip(*(known[row] for row in order), strict=True)
        return Samples(files, contents, None, ())
    dataset = replace(dataset, samples=drawn(dataset, seed))
    of_classes = dataset.label_kind == CLASS
    return Samples(
        tuple(dataset.file(sample) for sample in dataset.samples),
        tuple(sample.pixels for sample in dataset.samples),
        dataset.labels_of(dataset.samples) if of_classes else None,
        dataset.classes if of_classes else (),
    )


def _without_labels(
    source: str | Path, kind: str, folder: Path, progress: Progress, labelled: DataError
) -> list[tuple[Path, str]]:
    """Files and their fingerprints; where there are none, what was wrong with the source as a labelled one counts."""
    path = Path(source)
    if not path.exists():
        raise labelled
    try:
        found = unlabelled(path, kind, folder, progress)[1]
    except DataError:
        raise labelled from None
    if not found:
        raise labelled
    return found


def _compared(backbone: str, read: list[Samples], seen: list[Floats], seed: int) -> Shift:
    first, second = read
    for samples in read:
        if len(samples.files) < 2:
            raise DataError(f"{len(samples.files)} samples are too few to be compared", "give at least 2 of each")
    copies = np.isin(np.array(second.fingerprints), np.array(first.fingerprints))
    return Shift(
        backbone,
        (len(first.files), len(second.files)),
        proxy_a_distance(seen[0], seen[1], seed),
        mmd(seen[0], seen[1], seed),
        _label_shift(first, second, seed),
        _only(first, second),
        int(copies.sum()),
        int((_nearest(seen[1], seen[0]) > NEAR)[~copies].sum()),
    )


def _label_shift(first: Samples, second: Samples, seed: int) -> Difference | None:
    if first.labels is None or second.labels is None:
        return None
    every = sorted({*first.classes, *second.classes})
    named = [
        np.array([every.index(samples.classes[label]) for label in labels], np.int64)
        for samples, labels in ((first, first.labels), (second, second.labels))
    ]
    return label_shift(named[0], named[1], len(every), seed)


def _only(first: Samples, second: Samples) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if first.labels is None or second.labels is None:
        return (), ()
    one, other = set(first.classes), set(second.classes)
    return tuple(sorted(one - other)), tuple(sorted(other - one))


def _nearest(of: Floats, among: Floats) -> Floats:
    """The largest cosine between each row and the rows of another set, both about their common mean."""
    centre = np.concatenate([of, among]).mean(0)
    units = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (of - centre, among - centre)]
    return np.asarray((units[0] @ units[1].T).max(1), np.float32)
