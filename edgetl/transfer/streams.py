"""Samples beside the training samples, and the runs that a strategy takes, as every process gets them.

What the main data hold back (everything but train) is in no stream: a certificate must not depend on what was seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError
from edgetl.base.progress import Progress, silent, tracked
from edgetl.base.wording import counted
from edgetl.core.data import Content, Dataset, Sample, find_reader, read_listing, renumbered
from edgetl.core.data.readers.base import numbered, write_samples
from edgetl.core.data.readers.columns import has_column, read_table
from edgetl.core.data.reading import MAX_BAD_SHARE
from edgetl.core.run import Run
from edgetl.inputs import INPUTS
from edgetl.transfer.sources import Sources, listed

#: Fewest samples of a target without labels; the share of them that the epoch is chosen on, and how many at most.
FEWEST, JUDGED, MOST_JUDGED = 20, 0.15, 1000


@dataclass(frozen=True)
class Stream:
    """Attributes: the files; their labels as the task's data have them, first axis n, or None; samples left out."""

    paths: tuple[Path, ...]
    labels: npt.NDArray[Any] | None = None
    left_out: int = 0

    def to_json(self) -> dict[str, int]:
        """For the run's lineage."""
        return {"samples": len(self.paths), "left_out": self.left_out}


@dataclass(frozen=True)
class Streams:
    """What a strategy was given besides the training samples.

    Attributes:
        samples: by name, "target" and "replay".
        teacher: the run whose answers are followed.
        judged: target samples without labels that no step sees: the epoch is chosen on them; None without any.
    """

    samples: Mapping[str, Stream] = field(default_factory=dict)
    teacher: Run | None = None
    judged: Stream | None = None

    def moved(self, before: Path, after: Path) -> Streams:
        """With the files below one folder below another one."""
        was = before.resolve()

        def place(file: Path) -> Path:
            whole = file.resolve()
            return after / whole.relative_to(was).as_posix() if whole.is_relative_to(was) else file

        def placed(stream: Stream) -> Stream:
            return replace(stream, paths=tuple(map(place, stream.paths)))

        samples = {name: placed(each) for name, each in self.samples.items()}
        return replace(self, samples=samples, judged=None if self.judged is None else placed(self.judged))

    def with_judged(self, seed: int) -> Streams:
        """With a part of the target's samples set apart, the same for the same seed.

        Raises:
            DataError: there are too few.
        """
        target = self.samples["target"]
        if len(target.paths) < FEWEST:
            what = f"the target leaves {counted(len(target.paths), 'sample')} without labels to adapt to"
            raise DataError(what, f"give {FEWEST} at least")
        order = np.random.default_rng(seed).permutation(len(target.paths))
        apart = set(order[: min(int(JUDGED * len(order)), MOST_JUDGED)].tolist())
        parts = [tuple(p for i, p in enumerate(target.paths) if (i in apart) is wanted) for wanted in (False, True)]
        samples = {**self.samples, "target": replace(target, paths=parts[0])}
        return replace(self, samples=samples, judged=Stream(parts[1]))


def read(sources: Sources, dataset: Dataset, kind: str, folder: Path, progress: Progress = silent) -> Streams:
    """Read what is given.

    Args:
        sources: as the user named them.
        dataset: the main data.
        kind: of their files, a key of :data:`edgetl.inputs.INPUTS`.
        folder: where samples of a source go that has no file for each.
        progress: told of each file.

    Raises:
        DataError: nothing is left to learn from, unusable files, other classes, or a run that was trained on samples
            that the main data hold back.
    """
    for what, run in (("teacher", sources.teacher), ("run to start from", sources.previous)):
        if run is not None:
            _refuse_seen(what, run, dataset)
    held = {sample.pixels for sample in dataset.samples if sample.split != "train"}
    found = {}
    if sources.target is not None:
        found["target"] = _unlabelled(sources.target, held, kind, folder / "target", progress)
    if sources.replay is not None:
        found["replay"] = _labelled(sources.replay, held, dataset, kind, folder / "replay", progress)
    return Streams(found, sources.teacher)


def _refuse_seen(what: str, run: Run, dataset: Dataset) -> None:
    learned = {sample.pixels for sample in run.dataset.split("train")}
    seen = sum(sample.pixels in learned for sample in dataset.samples if sample.split != "train")
    if seen:
        raise DataError(
            f"the {what}, {run.path}, was trained on {seen} of the samples that this run holds back to be measured on",
            "train it on the same data with the same --seed",
        )


def _unlabelled(source: Path, held: set[str], kind: str, folder: Path, progress: Progress) -> Stream:
    files, known = unlabelled(source, kind, folder, progress)
    kept = tuple(file for file, content in known if content not in held)
    if not kept:
        noun = INPUTS[kind].noun
        raise DataError(f"{source} holds no {noun} that the data do not hold back", f"give {noun}s of other things")
    return Stream(kept, None, files - len(kept))


def unlabelled(source: Path, kind: str, folder: Path, progress: Progress) -> tuple[int, list[tuple[Path, str]]]:
    """The samples of a source whose labels, if it has any, do not count.

    Args:
        source: a folder, or a CSV file with the column path or text.
        kind, folder, progress: see :func:`read`.

    Returns:
        how many files there are, and those that can be used, each with its fingerprint.

    Raises:
        DataError: too many of them cannot be.
    """
    files = list(files_of(source, kind, folder))
    with ThreadPoolExecutor(4) as pool:
        told = tracked(
            pool.map(lambda file: _fingerprint(file, kind), files), f"reading {source}", progress, len(files)
        )
        prints = list(zip(files, told, strict=True))
    bad = [file for file, content in prints if content is None]
    if len(bad) > MAX_BAD_SHARE * len(files):
        what = f"{len(bad)} of the {len(files)} files in {source} cannot be used, {bad[0]} among them"
        raise DataError(what, "repair or remove them")
    return len(files), [(file, content) for file, content in prints if content is not None]


def files_of(source: Path, kind: str, folder: Path) -> Iterator[Path]:
    """The samples of a folder, of a CSV file's paths, or of its texts, which are written: a file for each row."""
    if source.is_file() and not has_column(source, "path"):
        if not has_column(source, "text"):
            raise DataError(f"{source} holds no samples", "give a folder, or a CSV file with the column path or text")
        texts = [row["text"].encode(errors="replace") for row in read_table(source).rows]
        names = numbered(len(texts), ".txt")
        write_samples(folder, dict(zip(names, texts, strict=True)))
        yield from (folder / name for name in names)
        return
    # A table names its samples; a folder may hold other things.
    every = source.is_file()
    yield from (file for file in listed(source) if every or file.suffix.lower() in INPUTS[kind].suffixes)


def _fingerprint(file: Path, kind: str) -> str | None:
    try:
        return INPUTS[kind].fingerprint(file)
    except DataError:
        return None


def _labelled(source: Path, held: set[str], dataset: Dataset, kind: str, folder: Path, progress: Progress) -> Stream:
    found = INPUTS[kind]
    content = Content(found.noun, found.fingerprint)
    listing = find_reader(source).read(source, folder)
    if listing.label_kind != dataset.label_kind:
        raise DataError(f"the labels of {source} are of another kind than the data's", "give data for the same task")
    other = read_listing(listing, source, content, _training, needed=("train",), progress=progress)
    unknown = [name for name in other.classes if name not in dataset.classes]
    if unknown:
        raise DataError(f"{source} has the class '{unknown[0]}', which the data do not have", "give the same classes")
    kept = [sample for sample in other.split("train") if sample.pixels not in held]
    if not kept:
        raise DataError(f"{source} holds nothing that the data do not hold back", f"give other {found.noun}s")
    moved = [replace(s, label=renumbered(s.label, other.classes, dataset.classes)) for s in kept]
    labels = dataset.labels_of(moved)
    paths = tuple(other.file(sample) for sample in kept)
    return Stream(paths, labels, len(other.samples) - len(kept))


def _training(samples: Sequence[Sample], seed: int, *, kind: str) -> list[Sample]:
    """All of them are to train on, but for those that the source itself holds back."""
    return [replace(sample, split=sample.split or "train") for sample in samples]
