"""Where a data set's files are now: each is known by its hash, whatever it is called."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from edgetl.base.errors import DataError
from edgetl.base.progress import Progress, silent, tracked
from edgetl.base.storage import sha256_file
from edgetl.core.data.readers import READERS
from edgetl.core.data.samples import SPLITS, Dataset
from edgetl.core.data.walk import walk

REMEDY = "say where they are now: --data FOLDER"


def located(
    dataset: Dataset,
    data: str | Path | None,
    splits: Collection[str] = SPLITS,
    noun: str = "sample",
    progress: Progress = silent,
) -> Dataset:
    """A data set whose files are where they are now, unchanged.

    Args:
        dataset: as it was read.
        data: where the files lie now, perhaps under other names: what a reader takes, or a folder above them; None
            where they lay.
        splits: whose files are looked for.
        noun: one of them, in messages.
        progress: told of each file.

    Raises:
        DataError: some are missing or were changed.
    """
    root = dataset.root if data is None else _root(Path(data), data, dataset)
    samples = [sample for sample in dataset.samples if sample.split in splits]
    if not root.is_dir():
        raise DataError(f"the {len(samples)} {noun}s are not at {root}", REMEDY)
    with ThreadPoolExecutor(4) as pool:
        hashes = pool.map(_hash, [root / sample.path for sample in samples])
        told = tracked(hashes, f"checking {noun}s", progress, len(samples))
        here = [digest == sample.sha256 for digest, sample in zip(told, samples, strict=True)]
    found = {s.sha256: root / s.path for s, is_here in zip(samples, here, strict=True) if is_here}
    wanted = {sample.sha256 for sample in samples} - set(found)
    for file in _below(Path(data), root) if data is not None and wanted else ():
        if (digest := _hash(file)) in wanted:
            found[digest] = file
            wanted.remove(digest)
            if not wanted:
                break
    missing = [sample.path for sample in samples if sample.sha256 in wanted]
    if missing:
        what = f"{len(missing)} of {len(samples)} {noun}s are missing from {root} or changed (first: {missing[0]})"
        raise DataError(what, "give the folder with the samples that the run was trained from: --data FOLDER")
    moved = {s.path: found[s.sha256] for s, is_here in zip(samples, here, strict=True) if not is_here}
    return replace(dataset, root=root, places=moved)


def _root(path: Path, data: str | Path, dataset: Dataset) -> Path:
    for reader in READERS.values():
        if reader.writes and reader.takes(data):
            # Written out again where they are gone, each under the name that it had; never over what is there.
            return dataset.root if dataset.root.is_dir() else reader.read(path, dataset.root).root
    return path.parent if path.is_file() else path


def _below(data: Path, root: Path) -> Iterator[Path]:
    """Files that may be the samples: those that a table names, then all below the folder."""
    table = READERS["table"]
    if table.takes(data) and not any(reader.writes and reader.takes(data) for reader in READERS.values()):
        listing = table.read(data, data)
        yield from (listing.root / sample.path for sample in listing.samples)
    yield from (root / path for path in walk(root).files)


def _hash(file: Path) -> str:
    try:
        return sha256_file(file) if file.is_file() else ""
    except OSError:
        return ""
