"""The labelled samples of a model that was trained elsewhere: which of them it has not seen, and its classes' order."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from edgetl.base.errors import DataError
from edgetl.base.progress import Progress
from edgetl.base.wording import enumerated
from edgetl.core.data import (
    Dataset,
    Listing,
    assign_unlearned,
    find_reader,
    label_kind,
    read_listing,
    read_rule,
    renumbered,
)
from edgetl.core.data.samples import Sample
from edgetl.core.run import IMAGES, SAMPLES
from edgetl.inputs import find_input

NEEDED = ("calibration", "search", "certify")
#: Splits of samples that no weight was fitted to.
_UNSEEN = frozenset({"val", "search", "certify"})


@dataclass(frozen=True)
class Sources:
    """Where samples come from.

    Attributes:
        data: what a reader of labelled samples takes.
        unseen: the same, of samples that the model was not trained on; None where nobody named any.
        kind: of input.
        seed: of the splits.
        group_by: what belongs together, as a user writes it; None for what the data name, alone.
    """

    data: str | Path
    unseen: str | Path | None
    kind: str
    seed: int
    group_by: str | None = None


def read_samples(sources: Sources, into: Path, progress: Progress) -> tuple[Dataset, str]:
    """The samples with their splits, and what named some that the model was not trained on, in words; "" for nothing.

    Args:
        sources: where they come from.
        into: the run's folder, for samples of sources that hold no file for each.
        progress: told of each file read.

    Raises:
        DataError: nothing to certify on, unusable files, or one sample among the seen and the unseen.
    """
    content = find_input(sources.kind).content
    rule = None if sources.group_by is None else read_rule(sources.group_by)
    own = into / (IMAGES if sources.kind == "image" else SAMPLES)
    listing, path = find_reader(sources.data).read(Path(sources.data), own), Path(sources.data)
    told = f"the splits of {path.name}" if any(sample.split in _UNSEEN for sample in listing.samples) else ""
    if sources.unseen is not None:
        other = find_reader(sources.unseen).read(Path(sources.unseen), own / "unseen")
        if (own in listing.root.parents or own == listing.root) != (
            own / "unseen" in (other.root, *other.root.parents)
        ):
            what = f"{path} and {sources.unseen} do not both hold files of their own"
            raise DataError(what, "give two folders or tables of files, or two archives or tables of texts")
        listing, told = _joined(listing, other, path), f"--unseen {Path(sources.unseen).name}"
    # A copy of a sample of training is none that was not seen: it must not be left to one of them to go.
    listing = replace(listing, lenient=False)
    dataset = read_listing(
        listing, path, content, assign_unlearned,
        needed=NEEDED, seed=sources.seed, group_by=rule, progress=progress,
    )  # fmt: skip
    return dataset, told


def _joined(seen: Listing, unseen: Listing, path: Path) -> Listing:
    """Both as one: the first serves calibration unless it says otherwise, the second search and certify."""
    if seen.label_kind != unseen.label_kind:
        columns = [label_kind(listing.label_kind).column for listing in (seen, unseen)]
        raise DataError(
            f"{path} has labels of the kind '{columns[0]}', the unseen samples '{columns[1]}'", "give one kind"
        )
    root = Path(os.path.commonpath([seen.root.resolve(), unseen.root.resolve()]))
    classes = tuple(sorted({*seen.classes, *unseen.classes}))
    samples: list[Sample] = []
    for listing, split in ((seen, "train"), (unseen, "certify")):
        below = PurePosixPath(listing.root.resolve().relative_to(root).as_posix())
        samples += [
            replace(
                sample,
                path=(below / sample.path).as_posix(),
                split=sample.split or split,
                label=renumbered(sample.label, listing.classes, classes),
            )
            for sample in listing.samples
        ]
    skipped = seen.skipped + unseen.skipped
    return Listing(root, classes, tuple(dict.fromkeys(samples)), seen.label_kind, skipped=skipped)


def read_names(file: Path) -> tuple[str, ...]:
    """Names of classes, one a line, in the order of the outputs.

    Raises:
        DataError: no such file, an empty line, or a name twice.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read {file} ({getattr(error, 'strerror', None) or error})", "give a name a line"
        ) from error
    names = tuple(line.strip() for line in lines)
    names = names[:-1] if names and not names[-1] else names
    empty = next((number for number, name in enumerate(names, 1) if not name), None)
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if not names or empty or twice:
        found = f"line {empty} is empty" if empty else f"'{twice}' stands there twice" if twice else "it is empty"
        raise DataError(f"{file} names no classes: {found}", "give a name a line, in the order of the model's outputs")
    return names


def in_order(dataset: Dataset, names: Sequence[str], told_by: str) -> Dataset:
    """A data set whose classes are the model's, in its order.

    Raises:
        DataError: the data have a class that the model has not.
    """
    strange = [name for name in dataset.classes if name not in names]
    if strange:
        theirs, known = (enumerated([f"'{name}'" for name in listed]) for listed in (strange, names))
        what = f"the data have the classes {theirs}, which the model has not: by {told_by} it has {known}"
        raise DataError(what, "name the model's classes as the data do: --classes FILE, a name a line")
    moved = [replace(s, label=renumbered(s.label, dataset.classes, names)) for s in dataset.samples]
    return replace(dataset, classes=tuple(names), samples=tuple(moved))
