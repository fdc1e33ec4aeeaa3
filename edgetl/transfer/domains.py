"""Two domains in one data set: labelled samples of a source to train on, samples of the target to certify on.

Of the target, rows of a CSV file that have a label serve search and certify, and all others are without one: some serve
calibration, and the rest training, which never reads a label of the target. Where no row has a label, samples for
search and certify are set apart, too, and the trained model's answers stand in for their labels.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from edgetl.base.errors import DataError
from edgetl.base.progress import Progress
from edgetl.base.storage import sha256_file
from edgetl.base.wording import counted
from edgetl.core.data import SPLITS, Dataset, Label, Sample, assign_splits, label_kind
from edgetl.core.data.readers.columns import read_table, splits_of
from edgetl.core.data.samples import Skipped
from edgetl.core.data.walk import writable_name
from edgetl.inputs import INPUTS
from edgetl.transfer.model import Deployable, outputs
from edgetl.transfer.stores import store_of
from edgetl.transfer.streams import files_of, unlabelled

#: Of a labelled source that only trains.
SOURCE: Mapping[str, float] = {"train": 0.85, "val": 0.15, "calibration": 0.0, "search": 0.0, "certify": 0.0}
#: Of the target's samples: those with a label, and those without, of which train is what is adapted to.
_LABELLED = {"search": 1 / 3, "certify": 2 / 3}
_CALIBRATION = {"calibration": 0.1}
_NOBODY = {"calibration": 0.1, "search": 0.1, "certify": 0.2}
#: What the target's part of a data set serves.
HELD = ("calibration", "search", "certify")
_CERTIFYING = ("search", "certify")
#: Fewest samples with a label that are worth dividing.
_FEWEST = 10


def with_target(
    dataset: Dataset, target: Path, kind: str, seed: int, folder: Path, own: Path, progress: Progress
) -> Dataset:
    """A source's samples to train on, with the target's for calibration, search and certify.

    Args:
        dataset: the source's.
        target: a folder, or a CSV file whose labels, if it has any, are those of the source.
        kind: of the samples' files.
        seed: decides which sample of the target serves what.
        folder: for samples of a table of texts.
        own: the folder that holds what readers write for the run.
        progress: told of each file.

    Raises:
        DataError: unusable files, labels that the source does not have, or too few samples.
    """
    source = {sample.pixels for sample in dataset.samples}
    _, files = unlabelled(target, kind, folder, progress)
    files = [(file, content) for file, content in files if content not in source and writable_name(str(file))]
    told = _told(target, dataset, kind, folder)
    samples = _once([_sample(file, content, *told.get(file, (None, ""))) for file, content in files])
    held = _divided(samples, dataset, target, seed)
    kept = tuple(sample for sample in dataset.samples if sample.split not in HELD)
    unused = tuple(
        Skipped(sample.path, "held back by the source: the target's samples certify")
        for sample in dataset.samples
        if sample.split in HELD
    )
    noun = INPUTS[kind].noun
    note = f"the target {target.name} gave {counted(len(held), noun)} for calibration, search and certify"
    source_part = replace(dataset, samples=kept, skipped=(*dataset.skipped, *unused), notes=(*dataset.notes, note))
    return joined_with(source_part, held, own, "target")


def has_labels(target: Path, kind: str) -> bool:
    """Whether the target's own labels certify: whether any row that serves them has one."""
    if target.is_dir():
        return False
    return any(label and split in ("", *_CERTIFYING) for label, split in _cells(target, label_kind(kind).column))


def answered(
    dataset: Dataset, splits: Sequence[str], network: Deployable, labels: Any, device: torch.device, progress: Progress
) -> Dataset:
    """With a trained network's answers for labels, in the splits whose samples have none.

    Args:
        dataset: of both domains.
        splits: those of :data:`HELD` whose samples have no label of the target's own.
        network: in evaluation mode, on ``device``, its outputs in the labels' unit.
        labels: outputs, float32 (n, width) → labels.
        device: to compute on.
        progress: told of each sample.
    """
    nobody = [sample for sample in dataset.samples if sample.split in splits]
    store = store_of(network.definition, [dataset.file(sample) for sample in nobody])
    (found,) = outputs(network, store, device, "answering for the target", progress).values()
    given = {sample.path: label for sample, label in zip(nobody, labels(found), strict=True)}
    samples = [replace(s, label=given[s.path]) if s.path in given else s for s in dataset.samples]
    return replace(dataset, samples=tuple(samples))


def _cells(target: Path, column: str) -> list[tuple[str, str]]:
    """Label and split of each row, as written, "" for none."""
    table = read_table(target)
    splits = splits_of(target, (row.get("split") for row in table.rows), table.lines)
    return [(row.get(column, "").strip(), split) for row, split in zip(table.rows, splits, strict=True)]


def _told(target: Path, dataset: Dataset, kind: str, folder: Path) -> dict[Path, tuple[Label | None, str]]:
    """Label, or None, and split, or "", of each file that a table names; nothing of a folder's."""
    if target.is_dir():
        return {}
    labels, places = label_kind(dataset.label_kind), {name: i for i, name in enumerate(dataset.classes)}
    found: dict[Path, tuple[Label | None, str]] = {}
    rows = zip(files_of(target, kind, folder), _cells(target, labels.column), strict=True)
    for number, (file, (cell, split)) in enumerate(rows, 1):
        if not cell or split not in ("", *_CERTIFYING):
            found[file] = (None, "")
            continue
        try:
            found[file] = (labels.label(labels.parse(cell), places), split)
        except KeyError as error:
            what = f"row {number} of {target} has the class {error}, which the source does not have"
            raise DataError(what, f"its classes are {', '.join(dataset.classes)}") from error
        except ValueError as error:
            what = f"in row {number} of {target}, {labels.column} holds '{cell:.40}'"
            raise DataError(what, f"give {error}") from error
    return found


def _sample(file: Path, content: str, label: Label | None, split: str) -> tuple[Path, Sample, bool]:
    """A file, its sample, and whether it has a label; one without has one that means nothing yet."""
    return file, Sample(str(file), 0 if label is None else label, "", content, split), label is not None


def _once(found: Iterable[tuple[Path, Sample, bool]]) -> list[tuple[Path, Sample, bool]]:
    """One of each content, a labelled one first; none where copies are labelled in two ways."""
    kept: dict[str, tuple[Path, Sample, bool]] = {}
    contradicted = set[str]()
    for entry in found:
        _, sample, labelled = entry
        other = kept.setdefault(sample.pixels, entry)
        if labelled and other[2] and other[1].label != sample.label:
            contradicted.add(sample.pixels)
        elif labelled and not other[2]:
            kept[sample.pixels] = entry
    return [entry for content, entry in kept.items() if content not in contradicted]


def _divided(
    found: Sequence[tuple[Path, Sample, bool]], dataset: Dataset, target: Path, seed: int
) -> list[tuple[Path, Sample]]:
    """The target's samples that are held back from training, each with its split and its file."""
    files = {sample.path: file for file, sample, _ in found}
    nothing: Label = () if dataset.label_kind == "classes" else 0.0 if dataset.label_kind == "number" else 0
    labelled = [sample for _, sample, has in found if has]
    others = [replace(sample, label=nothing) for _, sample, has in found if not has]
    if labelled and len(labelled) < _FEWEST:
        what = f"{target} has a label in {counted(len(labelled), 'row')}"
        raise DataError(what, f"give {_FEWEST} at least, or none: then agreement with the trained model is told")
    # Where only one of the two is named, both are taken from it.
    named = {sample.split for sample in labelled} >= set(_CERTIFYING)
    free = [sample for sample in labelled if not (named and sample.split)]
    held = [s for s in labelled if named and s.split] + _assigned(free, _LABELLED, seed, dataset.label_kind)
    held += [
        sample
        for sample in _assigned(others, _CALIBRATION if labelled else _NOBODY, seed, dataset.label_kind)
        if sample.split in HELD
    ]
    missing = [name for name in HELD if not any(sample.split == name for sample in held)]
    if missing:
        what = f"the target {target} leaves no sample for {missing[0]}"
        raise DataError(what, "give more samples; of a CSV file, rows without a label and, to certify, rows with one")
    return [(files[sample.path], sample) for sample in held]


def _assigned(samples: Sequence[Sample], shares: Mapping[str, float], seed: int, kind: str) -> list[Sample]:
    if not samples:
        return []
    whole = {**dict.fromkeys(SPLITS, 0.0), **shares}
    whole["train"] = max(1 - sum(shares.values()), 0.0)
    return assign_splits([replace(sample, split="") for sample in samples], seed, whole, kind)


def joined_with(dataset: Dataset, held: Sequence[tuple[Path, Sample]], own: Path, name: str) -> Dataset:
    """A data set and samples from elsewhere under one root: the folder above both, or what a reader wrote for the run.

    Args:
        dataset: the samples to train on, and others.
        held: files and their samples, which the data set does not have.
        own: the folder that holds what readers write for the run; what lies there takes the files to it.
        name: of their folder there.
    """
    root = dataset.root.resolve()
    if root.parent == own.resolve():
        (root / name).mkdir(exist_ok=True)
        placed = []
        for number, (file, sample) in enumerate(held):
            kept = root / name / f"{number:06}{file.suffix.lower()}"
            shutil.copyfile(file, kept)
            placed.append((kept, sample))
        held = placed
    files = [file.absolute() for file, _ in held]
    common = Path(os.path.commonpath([root, *(file.resolve().parent for file in files)]))
    below = PurePosixPath(root.relative_to(common).as_posix())
    rebased = [replace(sample, path=(below / sample.path).as_posix()) for sample in dataset.samples]
    skipped = tuple(replace(each, path=(below / each.path).as_posix()) for each in dataset.skipped)
    rebased += [
        replace(sample, path=file.resolve().relative_to(common).as_posix(), sha256=sha256_file(file))
        for file, (_, sample) in zip(files, held, strict=True)
    ]
    samples = tuple(sorted(rebased, key=lambda sample: sample.path))
    return replace(dataset, root=common, samples=samples, skipped=skipped)
