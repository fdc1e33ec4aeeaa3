"""Labelled samples: reading them, refusing bad ones, and splitting them so that no sample is in two splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from edgetl.base.errors import DataError
from edgetl.base.progress import Progress, silent, tracked
from edgetl.base.storage import sha256_file
from edgetl.base.wording import counted, enumerated
from edgetl.core.data.groups import Bits, GroupRule, Taken, grouped, grouping_note
from edgetl.core.data.labels import Label
from edgetl.core.data.readers import Listing, find_reader
from edgetl.core.data.samples import SPLITS, Dataset, Sample, Skipped
from edgetl.core.data.several import label_kind, together
from edgetl.core.data.splits import SHARES, assign_splits
from edgetl.core.data.walk import shown_name, unlistable, writable_name

MAX_BAD_SHARE = 0.05
#: Splits without which there is nothing to train, to choose by, or to certify on.
NEEDED = ("train", "val", "certify")


class Assign(Protocol):
    """Gives samples their splits; see :func:`edgetl.core.data.assign_splits`."""

    def __call__(self, samples: Sequence[Sample], seed: int, *, kind: str) -> list[Sample]: ...


@dataclass(frozen=True)
class Content:
    """What the files of a data set hold.

    Attributes:
        noun: one of them, in messages; its plural ends in s.
        fingerprint: SHA-256 of what a file holds once it is decoded, equal for copies of one sample in different
            files; raises DataError for a file that cannot be decoded.
        remark: what its owner should know of how a file is read; "" if nothing.
        taken: by which camera a file was taken, and when; None of samples that no camera takes.
        look: what a file looks like, in bits; None of samples that look like nothing.
    """

    noun: str
    fingerprint: Callable[[Path], str]
    remark: Callable[[Path], str] | None = None
    taken: Callable[[Path], Taken | None] | None = None
    look: Callable[[Path], Bits] | None = None


def read_dataset(
    source: str | Path,
    content: Content,
    *,
    seed: int = 0,
    shares: Mapping[str, float] = SHARES,
    into: Path | None = None,
    needed: Sequence[str] = NEEDED,
    group_by: GroupRule | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Read labelled samples and split them.

    Args:
        source: what one of :data:`edgetl.core.data.READERS` takes: a folder with a folder for each class, a CSV file
            (paths relative to it, or texts), an .npz file, or ``"digits"``.
        content: what its files hold.
        seed: decides which sample falls into which split; nothing else does.
        shares: the part of each class that each split gets.
        into: folder for the samples of a source that has no file for each; None: one named after the source, here.
        needed: splits that must not be empty.
        group_by: what belongs together, besides what the data name as one group; it never straddles splits.
        progress: told of each file read.

    Raises:
        DataError: nothing to learn from, or more than 5 % of the files are unusable; the message names them.
    """
    path = Path(source)
    own = Path(f"{path.stem}-samples") if path.suffix else path
    listing = find_reader(source).read(path, into or own)
    assign = partial(assign_splits, shares=shares)
    return read_listing(listing, path, content, assign, needed=needed, seed=seed, group_by=group_by, progress=progress)


def read_listing(
    listing: Listing,
    path: Path,
    content: Content,
    assign: Assign,
    *,
    needed: Sequence[str] = NEEDED,
    seed: int = 0,
    group_by: GroupRule | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Look into the samples of a listing and split them.

    Args:
        listing: what a reader gave.
        path: of the source, for messages.
        content: what its files hold.
        assign: gives each sample its split.
        needed: splits that must not be empty.
        seed: of the division.
        group_by: as for :func:`read_dataset`.
        progress: told of each file read.

    Raises:
        DataError: as :func:`read_dataset` does.
    """
    samples, damaged, remarks = _read(listing, content, progress)
    samples = grouped(samples, listing.root, group_by, content.taken, content.look, progress)
    samples, conflicting = _without_conflicts(samples, listing, content)
    samples, straddling = _in_one_split(samples) if listing.lenient else (samples, ())
    skipped = damaged + conflicting + straddling
    _refuse_if_unusable(path, listing, samples, skipped, content)
    split, copies = _certified_once(assign(samples, seed=seed, kind=listing.label_kind))
    together = grouping_note(split, content.noun)
    dataset = Dataset(
        listing.root.resolve(),
        listing.classes,
        split,
        skipped + copies + listing.skipped,
        listing.mirror_safe,
        listing.label_kind,
        listing.ignored,
        (*_alike(listing.classes), *_division(samples, split, content.noun), *together, *remarks),
    )
    for name in needed:
        if not dataset.split(name):
            few = "five a class" if listing.classes else "ten"
            raise DataError(
                f"{path} leaves no {content.noun} for the split '{name}'", f"add {content.noun}s: {few} at least"
            )
    return dataset


def refuse_inside(out: Path, source: str | Path) -> None:
    """Refuse a folder for outcomes that lies in the data, where the next reading would take it for samples.

    Raises:
        DataError: it does.
    """
    data = Path(source)
    if data.is_dir() and out.resolve().is_relative_to(data.resolve()):
        raise DataError(f"{out} lies inside the data, {data}", "choose another --out")


def unlisted(source: str | Path, dataset: Dataset) -> list[str]:
    """Files that a reader finds now and did not find when it listed this data set; none of what it writes itself.

    Args:
        source: what was read.
        dataset: what came of it.

    Raises:
        DataError: the source is no data set any more.
    """
    reader = find_reader(source)
    if reader.writes:
        return []
    known = {sample.path for sample in dataset.samples} | {skipped.path for skipped in dataset.skipped}
    listing = reader.read(Path(source), Path(source))
    # The data set may have a root further up, which it shares with samples of another source.
    root = listing.root.resolve()
    shared = root.is_relative_to(dataset.root)
    below = PurePosixPath(root.relative_to(dataset.root).as_posix() if shared else ".")
    return sorted({shown_name((below / sample.path).as_posix()) for sample in listing.samples} - known)


def _read(
    listing: Listing, content: Content, progress: Progress
) -> tuple[list[Sample], tuple[Skipped, ...], tuple[str, ...]]:
    """The samples with their hashes, what is none, and what is to be said of how they are read."""

    def read(sample: Sample) -> tuple[Sample | Skipped, str]:
        file = listing.root / sample.path
        if not writable_name(sample.path):
            return unlistable(sample.path), ""
        try:
            pixels = content.fingerprint(file)
        except DataError as error:
            return Skipped(sample.path, error.what.replace(str(file), "the file")), ""
        whole = replace(sample, sha256=sha256_file(file), pixels=pixels)
        return whole, content.remark(file) if content.remark is not None else ""

    with ThreadPoolExecutor(4) as pool:
        found = pool.map(read, listing.samples)
        done = list(tracked(found, f"reading {content.noun}s", progress, len(listing.samples)))
    samples = [sample for sample, _ in done if isinstance(sample, Sample)]
    damaged = tuple(skipped for skipped, _ in done if isinstance(skipped, Skipped))
    remarks = Counter(text for _, text in done if text)
    return samples, damaged, tuple(f"{counted(n, content.noun)}: {text}" for text, n in sorted(remarks.items()))


def _refuse_if_unusable(
    source: Path, listing: Listing, samples: Sequence[Sample], skipped: Sequence[Skipped], content: Content
) -> None:
    total = len(samples) + len(skipped)
    named = "; ".join(f"{bad.path}: {bad.reason}" for bad in skipped[:3]) + (" …" if len(skipped) > 3 else "")
    if len(skipped) > MAX_BAD_SHARE * total:
        raise DataError(
            f"{len(skipped)} of {total} files in {source} are unusable, more than 5 % ({named})",
            "remove or replace them",
        )
    present = label_kind(listing.label_kind).summary([sample.label for sample in samples], listing.classes)
    for name in listing.classes:
        if not present[name]:
            what = f"the class '{name}' in {source} has no usable {content.noun} ({named})"
            raise DataError(what, f"add {content.noun}s")
    if not listing.classes and len({sample.label for sample in samples}) < 2:
        raise DataError(f"all {content.noun}s in {source} have the same target", "there is nothing to learn: vary it")


def _without_conflicts(
    samples: Sequence[Sample], listing: Listing, content: Content
) -> tuple[list[Sample], tuple[Skipped, ...]]:
    """Samples apart from those that are labelled in two ways, of which one must be wrong and nobody knows which."""
    labels: dict[str, dict[Label, None]] = {}
    for sample in samples:
        labels.setdefault(sample.pixels, {})[sample.label] = None
    agreed = {content: together(list(found), listing.label_kind) for content, found in labels.items()}
    shown = label_kind(listing.label_kind).shown

    def reason(sample: Sample) -> str:
        found = sorted(labels[sample.pixels], key=_order)
        told = [shown(label, listing.classes) for label in found]
        return f"the same {content.noun} is labelled " + " and ".join(told)

    kept = [replace(s, label=label) for s in samples if (label := agreed[s.pixels]) is not None]
    lost = [Skipped(s.path, reason(s)) for s in samples if agreed[s.pixels] is None]
    # Rows of one file that say different things of it are one sample.
    return list(dict.fromkeys(kept)), tuple(dict.fromkeys(lost))


def _order(label: Label) -> tuple[Any, ...]:
    """Labels of one kind in an order of their own; what a task has no label of comes last."""
    return tuple((own is None, 0 if own is None else own) for own in label) if isinstance(label, tuple) else (label,)


def _in_one_split(samples: Sequence[Sample]) -> tuple[list[Sample], tuple[Skipped, ...]]:
    """Without what is also in another split, or belongs with what is: what is held out stays, and train loses it."""
    rank = {name: place for place, name in enumerate((*SPLITS, ""))}
    last: dict[str, Sample] = {}
    for sample in samples:
        if sample.unit not in last or rank[sample.split] > rank[last[sample.unit].split]:
            last[sample.unit] = sample
    kept = [s for s in samples if s.split == last[s.unit].split]
    extra = [(s, last[s.unit]) for s in samples if s.split != last[s.unit].split]

    def reason(sample: Sample, there: Sample) -> str:
        what = "a copy of" if sample.pixels == there.pixels else "it belongs with"
        return f"{what} {there.path}, which is held out"

    return kept, tuple(Skipped(sample.path, reason(sample, there)) for sample, there in extra)


def _alike(classes: Sequence[str]) -> list[str]:
    """A sentence for each set of classes whose names differ by case or blanks alone."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        alike.setdefault("".join(name.split()).casefold(), []).append(f"'{name}'")
    found = [names for names in alike.values() if len(names) > 1]
    return [f"the classes {enumerated(names)} differ by case or blanks alone: is that one class?" for names in found]


def _division(given: Sequence[Sample], divided: Sequence[Sample], noun: str) -> list[str]:
    """What train gave for the splits that the data do not name, in a sentence; none where they name no split."""
    named = {sample.split for sample in given}
    taken = {name: sum(s.split == name for s in divided) for name in SPLITS if name not in named}
    if named == {""} or not taken:
        return []
    train = sum(sample.split == "train" for sample in given)
    kept = sum(sample.split == "train" for sample in divided)
    shown = enumerated((f"{name} {n}" for name, n in taken.items()), len(SPLITS))
    named_splits = enumerated((name for name in SPLITS if name in named), len(SPLITS))
    return [f"the data name {named_splits}; taken from train's {counted(train, noun)}: {shown}; train keeps {kept}"]


def _certified_once(samples: Sequence[Sample]) -> tuple[tuple[Sample, ...], tuple[Skipped, ...]]:
    """Without further copies of a certify sample, which would count as independent ones in the paired test."""
    first: dict[str, str] = {}
    for sample in samples:
        first.setdefault(sample.pixels, sample.path)
    extra = {s for s in samples if s.split == "certify" and first[s.pixels] != s.path}
    named = [(s.path, first[s.pixels]) for s in samples if s in extra]
    reasons = tuple(Skipped(path, f"a copy of {original}, which is certified on once") for path, original in named)
    return tuple(s for s in samples if s not in extra), reasons
