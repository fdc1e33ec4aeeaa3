"""Labelled samples: reading them, refusing bad ones, and splitting them so that no sample is in two splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from edgetl.base.errors import DataError
from edgetl.base.progress import Progress, silent, tracked
from edgetl.base.storage import sha256_bytes
from edgetl.core.data.digits import write_digits
from edgetl.core.data.folder import from_folder, strays, writable_name
from edgetl.core.data.samples import Dataset, Sample, Skipped
from edgetl.core.data.splits import SHARES, assign_splits
from edgetl.core.data.table import from_table

MAX_BAD_SHARE = 0.05
#: SHA-256 of what a file holds once it is decoded; raises DataError for a file that cannot be.
Content = Callable[[Path], str]


def read_dataset(
    source: str | Path,
    content: Content,
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
        content: SHA-256 of what a file holds once it is decoded, equal for copies of one sample in different files;
            raises DataError for a file that cannot be decoded.
        seed: decides which image falls into which split; nothing else does.
        shares: the part of each class that each split gets.
        digits_into: where the embedded digits are written as PNG files.
        progress: told of each file read.

    Raises:
        DataError: nothing to learn from, or more than 5 % of the files are unusable; the message names them.
    """
    if str(source) == "digits":
        root = write_digits(digits_into or Path("digits"))
        return replace(read_dataset(root, content, seed=seed, shares=shares, progress=progress), mirror_safe=False)
    path = Path(source)
    if not path.exists():
        raise DataError(
            f"there is no {path}", "give a folder with a folder for each class, a CSV file (path,label), or 'digits'"
        )
    root, classes, listed = from_table(path) if path.is_file() else from_folder(path)
    samples, damaged = _read(root, listed, content, progress)
    samples, conflicting = _without_conflicts(samples, classes)
    skipped = damaged + conflicting
    _refuse_if_unusable(path, classes, samples, skipped)
    split, copies = _certified_once(assign_splits(samples, seed, shares))
    dataset = Dataset(root.resolve(), classes, split, skipped + copies + strays(path))
    for name in ("train", "val", "certify"):
        if not dataset.split(name):
            raise DataError(f"{path} leaves no image for the split '{name}'", "add images: five a class at least")
    return dataset


def _read(
    root: Path, listed: Sequence[Sample], content: Content, progress: Progress
) -> tuple[list[Sample], tuple[Skipped, ...]]:
    def read(sample: Sample) -> Sample | Skipped:
        file = root / sample.path
        if not writable_name(sample.path):
            return Skipped(ascii(sample.path), "its name holds a line break or is no UTF-8")
        try:
            pixels = content(file)
        except DataError as error:
            return Skipped(sample.path, error.what.replace(str(file), "the file"))
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
