"""Samples, their labels and their splits: what a reader gives and what a run keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError
from edgetl.base.schema import Json, from_json
from edgetl.base.storage import sha256_json
from edgetl.core.data.labels import LABEL_KINDS, Label, LabelKind
from edgetl.core.data.several import Part, label_kind, parts_of

#: Each split has one use: weights; early stopping; ranges; choices; the certificate. ``certify`` is read once.
SPLITS = ("train", "val", "calibration", "search", "certify")
_KNOWN = frozenset({*SPLITS, ""})
#: What labels are where ``splits.json`` does not say.
CLASS = "class"


@dataclass(frozen=True)
class Sample:
    """One labelled file: an image, a text, arrays.

    Attributes:
        path: relative to the dataset's root, with forward slashes.
        label: index into the dataset's classes, sorted indexes of several, or a number
            (:data:`edgetl.core.data.labels.LABEL_KINDS`), or one of these for each of several tasks.
        sha256: of the file's bytes.
        pixels: SHA-256 of what the file holds once it is decoded; equal for copies of one sample in different files.
        split: one of :data:`SPLITS`, or "" before splitting.
        group: a name for what belongs together, such as frames of one scene; "" for what stands by itself.
    """

    path: str
    label: Label
    sha256: str
    pixels: str
    split: str = ""
    group: str = ""

    @property
    def unit(self) -> str:
        """What stays in one split: its group, or else whatever holds the same."""
        return f"group {self.group}" if self.group else self.pixels


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Samples under one root, their classes and their splits.

    Attributes:
        root: the folder.
        classes: names; none where labels are numbers.
        samples, skipped: what was read, and what was left out.
        mirror_safe: whether a mirrored sample still has its label (letters and digits do not).
        label_kind: name of one (:func:`edgetl.core.data.several.label_kind`).
        ignored: how many files and folders of systems and programs lay among them, by name.
        notes: what their owner should know of them, a sentence each.
        places: path of a sample → its file, where that is not ``root / path``; see :func:`edgetl.core.data.located`.
            No part of the record.
    """

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    skipped: tuple[Skipped, ...] = ()
    mirror_safe: bool = True
    label_kind: str = CLASS
    ignored: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    places: Mapping[str, Path] = field(default_factory=dict)

    def file(self, sample: Sample) -> Path:
        """A sample's file, as an absolute path."""
        return self.places.get(sample.path, self.root / sample.path)

    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of one split, in the dataset's order."""
        return tuple(sample for sample in self.samples if sample.split == name)

    @property
    def measured(self) -> str:
        """The split on which a finished model's own metric is told: search, where nothing was trained here."""
        return "val" if self.split("val") else "search"

    def paths(self, name: str) -> list[Path]:
        """Absolute paths of one split's files."""
        return [self.file(sample) for sample in self.split(name)]

    def labels(self, name: str) -> npt.NDArray[Any]:
        """Labels of one split: class indexes int64 (n,), indicators uint8 (n, classes), or numbers float64 (n,).

        Of several tasks float64 (n, columns), as :class:`edgetl.core.data.several.Part` tells them apart.
        """
        return self.labels_of(self.split(name))

    def labels_of(self, samples: Sequence[Sample]) -> npt.NDArray[Any]:
        """Labels of some samples, in the same form."""
        return self._kind.array([sample.label for sample in samples], self.classes)

    def groups(self, name: str) -> npt.NDArray[np.int64] | None:
        """The group of each sample of one split, from 0 up, int64 (n,); None where no two belong together."""
        return group_numbers(self.split(name))

    def sizes(self) -> dict[str, int]:
        """Samples of each split."""
        return {name: len(self.split(name)) for name in SPLITS}

    def counts(self) -> dict[str, dict[str, int]]:
        """Samples for each split and class, those of several classes in each; no class where labels are numbers."""
        return {s: {c: int(found[c]) for c in self.classes} for s, found in self.summary().items()}

    def summary(self) -> dict[str, dict[str, float]]:
        """For each split, the samples of each class, or of numbers ``n``, ``mean``, ``sd``, ``min`` and ``max``."""
        labels: dict[str, list[Label]] = {name: [] for name in SPLITS}
        for sample in self.samples:
            labels.setdefault(sample.split, []).append(sample.label)
        return {name: self._kind.summary(labels[name], self.classes) for name in SPLITS}

    @property
    def parts(self) -> tuple[Part, ...]:
        """The tasks that its labels are of, where they are of several; none where they are of one."""
        return () if self.label_kind in LABEL_KINDS else parts_of(self.label_kind, self.classes)

    @property
    def unlearned(self) -> tuple[str, ...]:
        """Names of those tasks, of several, that no sample to train on has a label of."""
        if not self.parts:
            return ()
        labels = self.labels("train")
        return tuple(part.name for part in self.parts if not part.known(labels).any())

    @property
    def _kind(self) -> LabelKind:
        return label_kind(self.label_kind)

    @property
    def digest(self) -> str:
        """SHA-256 over classes and over every file's hash, label and split; independent of where the files lie."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; what is rare, only where there is any of it."""
        rows = [[s.path, _plain(s.label), s.sha256, s.pixels, s.split] for s in self.samples]
        return {
            "root": str(self.root),
            "classes": list(self.classes),
            "mirror_safe": self.mirror_safe,
            "samples": rows,
            "skipped": [[s.path, s.reason] for s in self.skipped],
            **({"groups": [s.group for s in self.samples]} if any(s.group for s in self.samples) else {}),
            **({"label_kind": self.label_kind} if self.label_kind != CLASS else {}),
            **({"ignored": dict(self.ignored)} if self.ignored else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
        }

    @classmethod
    def from_json(cls, record: Json, source: str | Path = "the list of splits") -> Dataset:
        """Read what :meth:`to_json` wrote; ``source`` is the file that it comes from.

        Raises:
            DataError: a field is missing or of the wrong kind.
        """
        listed = from_json(_Listed, record, source, DataError, "make the run again")
        kind = label_kind(listed.label_kind)
        samples: list[Sample] = []
        if listed.groups and len(listed.groups) != len(listed.samples):
            what = f"{source}: {len(listed.groups)} groups for {len(listed.samples)} samples"
            raise DataError(what, "make the run again")
        # Tens of thousands of rows: checked here, in a third of the time that the schema takes.
        try:
            for fields in listed.samples:
                path, label, sha256, pixels, split = fields
                if type(fields) is not list or not type(path) is type(sha256) is type(pixels) is str:
                    raise TypeError("a path or a hash is no string")
                if split not in _KNOWN:
                    raise ValueError(f"there is no split {split!r:.20}")
                samples.append(Sample(path, kind.restore(label, listed.classes), sha256, pixels, split))
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"{source}: samples[{len(samples)}] is malformed ({error})", "make the run again"
            ) from error
        if listed.groups:
            samples = [replace(s, group=group) for s, group in zip(samples, listed.groups, strict=True)]
        skipped = tuple(Skipped(path, reason) for path, reason in listed.skipped)
        said = (dict(listed.ignored), listed.notes)
        return cls(Path(listed.root), listed.classes, tuple(samples), skipped, listed.mirror_safe, kind.name, *said)


@dataclass(frozen=True)
class _Listed:
    """What ``splits.json`` holds, its samples as they are."""

    root: str
    classes: tuple[str, ...]
    samples: Json
    skipped: tuple[tuple[str, str], ...]
    mirror_safe: bool
    label_kind: str = CLASS
    ignored: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.samples, list):
            raise ValueError("samples is no list")
        try:
            label_kind(self.label_kind)
        except KeyError as error:
            raise ValueError(f"there is no kind of label {self.label_kind!r:.20}") from error
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("two classes have one name")


def _plain(label: Label | None) -> Any:
    return [_plain(one) for one in label] if isinstance(label, tuple) else label


def group_numbers(samples: Sequence[Sample]) -> npt.NDArray[np.int64] | None:
    """The group of each sample, from 0 up, int64 (n,); None where no two of them belong together."""
    found: dict[str, int] = {}
    # What stands by itself is named by its place.
    numbers = [found.setdefault(s.group or f"/{place}", len(found)) for place, s in enumerate(samples)]
    return None if len(found) == len(samples) else np.array(numbers, np.int64)


def digest_of(record: Mapping[str, Any]) -> str:
    """:attr:`Dataset.digest` of what :meth:`Dataset.to_json` wrote, without making its samples."""
    rows = [[path, label, sha256, split] for path, label, sha256, _, split in record["samples"]]
    kind, groups = record.get("label_kind", CLASS), record.get("groups")
    told = [record["classes"], rows] if kind == CLASS and groups is None else [record["classes"], rows, kind]
    return sha256_json(told if groups is None else [*told, groups])
