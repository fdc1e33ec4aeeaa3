"""Labelled images: reading them, refusing bad ones, and splitting them so that no image is in two splits."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.errors import DataError
from edgetl.extras import require
from edgetl.preprocess import decode
from edgetl.progress import Progress, silent, tracked
from edgetl.splits import SHARES, SPLITS, Sample, assign_splits
from edgetl.storage import new_folder, sha256_bytes, sha256_json

MAX_BAD_SHARE = 0.05
_SPLIT_ALIASES = {"valid": "val", "validation": "val", "test": "certify", "calib": "calibration"}


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


def load_dataset(
    source: str | Path,
    *,
    seed: int = 0,
    shares: Mapping[str, float] = SHARES,
    digits_into: Path | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Read labelled images and split them.

    Args:
        source: a folder with a folder for each class, a CSV file with the columns ``path,label[,split]``
            (paths relative to the file), or ``"digits"`` (scikit-learn's 1,797 handwritten digits).
        seed: decides which image falls into which split; nothing else does.
        shares: the part of each class that each split gets.
        digits_into: where the embedded digits are written as PNG files.
        progress: told of each file read.

    Raises:
        DataError: nothing to learn from, or more than 5 % of the files are unusable; the message names them.
    """
    if str(source) == "digits":
        root = write_digits(digits_into or Path("digits"))
        return replace(load_dataset(root, seed=seed, shares=shares, progress=progress), mirror_safe=False)
    path = Path(source)
    if not path.exists():
        raise DataError(
            f"there is no {path}", "give a folder with a folder for each class, a CSV file (path,label), or 'digits'"
        )
    root, classes, listed = _from_csv(path) if path.is_file() else _from_folder(path)
    samples, damaged = _read(root, listed, progress)
    samples, conflicting = _without_conflicts(samples, classes)
    skipped = damaged + conflicting
    _refuse_if_unusable(path, classes, samples, skipped)
    split, copies = _certified_once(assign_splits(samples, seed, shares))
    dataset = Dataset(root.resolve(), classes, split, skipped + copies + _strays(path))
    for name in ("train", "val", "certify"):
        if not dataset.split(name):
            raise DataError(f"{path} leaves no image for the split '{name}'", "add images: five a class at least")
    return dataset


def _from_folder(root: Path) -> tuple[Path, tuple[str, ...], list[Sample]]:
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(folders) < 2:
        only = f"only the class '{folders[0].name}'" if folders else "no class folder"
        raise DataError(f"{root} holds {only}", "give a folder with at least two folders, one for each class")
    if {folder.name.lower() for folder in folders} <= {*SPLITS, *_SPLIT_ALIASES}:
        raise DataError(f"{root} holds splits, not classes", "give a CSV file with the columns path,label,split")
    listed = []
    for label, folder in enumerate(folders):
        # A link to nothing is no file, but its owner believes in an image there: it is listed, and named as missing.
        found = [p for p in folder.rglob("*") if p.is_file() or not p.exists()]
        if not _writable_name(folder.name):
            raise DataError(f"the class folder {folder.name!a} holds a line break or is no UTF-8", "rename it")
        files = sorted(p for p in found if not any(s.startswith(".") for s in p.relative_to(folder).parts))
        if not files:
            raise DataError(f"the class folder {folder} is empty", "add images or remove the folder")
        listed += [Sample(p.relative_to(root).as_posix(), label, "", "") for p in files]
    return root, tuple(folder.name for folder in folders), listed


def _strays(source: Path) -> tuple[Skipped, ...]:
    """Files that lie beside the class folders: no label, no use, but no silence either."""
    beside = sorted(p.name for p in source.iterdir() if p.is_file()) if source.is_dir() else []
    return tuple(Skipped(name, "it lies in no class folder") for name in beside if not name.startswith("."))


def _writable_name(name: str) -> bool:
    return len(name.splitlines()) == 1 and name.encode(errors="replace").decode() == name


def _from_csv(path: Path) -> tuple[Path, tuple[str, ...], list[Sample]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            rows, columns = list(reader), reader.fieldnames or []
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file ({error})", "give the columns path,label[,split]") from error
    if not {"path", "label"} <= set(columns):
        raise DataError(f"{path} has the columns {', '.join(columns) or 'none'}", "it needs path,label[,split]")
    classes = tuple(sorted({row["label"] for row in rows if row["label"]}))
    if len(classes) < 2:
        raise DataError(f"{path} names {len(classes)} class", "a classifier needs at least two")
    listed = []
    for line, row in enumerate(rows, 2):
        name = (row.get("split") or "").strip().lower()
        split = _SPLIT_ALIASES.get(name, name)
        if not row["path"] or not row["label"] or (split and split not in SPLITS):
            raise DataError(f"{path}, line {line}: bad path, label or split", f"splits are {', '.join(SPLITS)}")
        listed.append(Sample(row["path"], classes.index(row["label"]), "", "", split))
    return path.parent, classes, listed


def _read(root: Path, listed: Sequence[Sample], progress: Progress) -> tuple[list[Sample], tuple[Skipped, ...]]:
    def read(sample: Sample) -> Sample | Skipped:
        file = root / sample.path
        if not _writable_name(sample.path):
            return Skipped(ascii(sample.path), "its name holds a line break or is no UTF-8")
        try:
            image = decode(file)
        except DataError as error:
            return Skipped(sample.path, error.what.replace(str(file), "the file"))
        pixels = sha256_bytes(f"{image.size}".encode() + image.tobytes())
        return replace(sample, sha256=sha256_bytes(file.read_bytes()), pixels=pixels)

    with ThreadPoolExecutor(4) as pool:
        done = list(tracked(pool.map(read, listed), "reading images", progress, len(listed)))
    return [s for s in done if isinstance(s, Sample)], tuple(s for s in done if isinstance(s, Skipped))


def _refuse_if_unusable(
    source: Path, classes: Sequence[str], samples: Sequence[Sample], skipped: Sequence[Skipped]
) -> None:
    total = len(samples) + len(skipped)
    named = "; ".join(f"{bad.path}: {bad.reason}" for bad in skipped[:3]) + (" …" if len(skipped) > 3 else "")
    if len(skipped) > MAX_BAD_SHARE * total:
        raise DataError(
            f"{len(skipped)} of {total} files in {source} are unusable, more than 5 % ({named})",
            "remove or replace them",
        )
    present = {sample.label for sample in samples}
    for label, name in enumerate(classes):
        if label not in present:
            raise DataError(f"the class '{name}' in {source} has no usable image ({named})", "add images")


def _without_conflicts(samples: Sequence[Sample], classes: Sequence[str]) -> tuple[list[Sample], tuple[Skipped, ...]]:
    labels: dict[str, set[int]] = {}
    for sample in samples:
        labels.setdefault(sample.pixels, set()).add(sample.label)
    kept = [s for s in samples if len(labels[s.pixels]) == 1]
    out = tuple(
        Skipped(s.path, "the same picture is labelled " + " and ".join(classes[i] for i in sorted(labels[s.pixels])))
        for s in samples
        if len(labels[s.pixels]) > 1
    )
    return kept, out


def _certified_once(samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], tuple[Skipped, ...]]:
    """Without further copies of a certify picture, which would count as independent images in the paired test."""
    first: dict[str, str] = {}
    for sample in samples:
        first.setdefault(sample.pixels, sample.path)
    extra = {s for s in samples if s.split == "certify" and first[s.pixels] != s.path}
    named = [(s.path, first[s.pixels]) for s in samples if s in extra]
    reasons = tuple(Skipped(path, f"a copy of {original}, which is certified on once") for path, original in named)
    return tuple(s for s in samples if s not in extra), reasons


def write_digits(folder: Path) -> Path:
    """Write scikit-learn's 1,797 digits (8x8, grey) as PNG files, a folder for each class, unless it is there."""
    from PIL import Image

    if folder.is_dir():
        return folder
    bunch = require("sklearn.datasets", "the embedded digits").load_digits()
    with new_folder(folder) as root:
        for index, (image, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
            (root / str(label)).mkdir(exist_ok=True)
            grey = np.clip(image * 255 / 16, 0, 255).round().astype(np.uint8)
            Image.fromarray(grey).save(root / str(label) / f"{index:04d}.png", optimize=False)
    return folder
