"""Samples, their classes and their splits: what a reader gives and what a run keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError
from edgetl.base.storage import sha256_json

#: Each split has one use: weights; early stopping; ranges; choices; the certificate. ``certify`` is read once.
SPLITS = ("train", "val", "calibration", "search", "certify")


@dataclass(frozen=True)
class Sample:
    """One labelled image.

    Attributes:
        path: relative to the dataset's root, with forward slashes.
        label: index into the dataset's classes.
        sha256: of the file's bytes.
        pixels: SHA-256 of the decoded picture; equal for copies of one image in different files.
        split: one of :data:`SPLITS`, or "" before splitting.
    """

    path: str
    label: int
    sha256: str
    pixels: str
    split: str = ""


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Images under one root, their classes and their splits."""

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    skipped: tuple[Skipped, ...] = ()
    mirror_safe: bool = True

    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of one split, in the dataset's order."""
        return tuple(sample for sample in self.samples if sample.split == name)

    def paths(self, name: str) -> list[Path]:
        """Absolute paths of one split's files."""
        return [self.root / sample.path for sample in self.split(name)]

    def labels(self, name: str) -> npt.NDArray[np.int64]:
        """Class indices of one split, shape (n,)."""
        return np.array([sample.label for sample in self.split(name)], dtype=np.int64)

    def counts(self) -> dict[str, dict[str, int]]:
        """Images for each split and class."""
        counted = Counter((sample.split, sample.label) for sample in self.samples)
        return {s: {c: counted[s, i] for i, c in enumerate(self.classes)} for s in SPLITS}

    @property
    def digest(self) -> str:
        """SHA-256 over classes and over every file's hash, label and split; independent of where the files lie."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "root": str(self.root),
            "classes": list(self.classes),
            "mirror_safe": self.mirror_safe,
            "samples": [[s.path, s.label, s.sha256, s.pixels, s.split] for s in self.samples],
            "skipped": [[s.path, s.reason] for s in self.skipped],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Dataset:
        """Read what :meth:`to_json` wrote.

        Raises:
            DataError: a field is missing or of the wrong kind.
        """
        try:
            return cls(
                root=Path(record["root"]),
                classes=tuple(record["classes"]),
                samples=tuple(Sample(*row) for row in record["samples"]),
                skipped=tuple(Skipped(*row) for row in record["skipped"]),
                mirror_safe=bool(record["mirror_safe"]),
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"the list of splits is malformed ({error})", "make the run again") from error


def digest_of(record: Mapping[str, Any]) -> str:
    """:attr:`Dataset.digest` of what :meth:`Dataset.to_json` wrote, without making its samples."""
    rows = [[path, label, sha256, split] for path, label, sha256, _, split in record["samples"]]
    return sha256_json([record["classes"], rows])
