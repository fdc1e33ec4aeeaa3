"""The run's folder between commands: what it was started with, whether it is finished, and whether the data stayed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgetl.base.errors import DataError, EdgetlError, RunError
from edgetl.base.progress import Progress, tracked
from edgetl.base.storage import read_json, sha256_file, write_json
from edgetl.core.data import Dataset
from edgetl.core.run import (
    BASELINE,
    CHECKPOINT,
    HISTORY,
    MANIFEST,
    PREPROCESS_FILE,
    SPLITS_FILE,
    VAL_OUTPUTS,
    WEIGHTS,
    Run,
    load_run,
)
from edgetl.inputs import load_dataset
from edgetl.transfer.settings import IMPLIED, Settings

SETTINGS = "settings.json"
#: What a reader writes where the data hold no files: the embedded digits, or rows of texts and arrays.
IMAGES, SAMPLES = "images", "samples"
_OWN = (MANIFEST, CHECKPOINT, WEIGHTS, BASELINE, SPLITS_FILE, PREPROCESS_FILE, HISTORY, VAL_OUTPUTS, IMAGES, SAMPLES)


def enter(out: Path, settings: Settings, fresh: bool) -> Run | None:
    """Make ``out`` ready for these settings.

    Args:
        out: the run's folder; may exist only if edgetl made it or it is empty.
        settings: everything the outcome depends on.
        fresh: drop what stands there.

    Returns:
        the finished run of the same settings, or None if there is work to do.

    Raises:
        RunError: the folder holds a run with other settings, or files that are not edgetl's.
        EdgetlError: not writable.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        present = [p for p in out.iterdir() if not p.name.endswith(".partial")]
    except OSError as error:
        raise EdgetlError(f"cannot write {out} ({error.strerror or error})", "choose another --out") from error
    foreign = sorted(p.name for p in present if p.name not in _OWN)
    if foreign:
        raise RunError(f"{out} holds files that are no run's ({', '.join(foreign[:3])})", "choose another --out")
    if fresh:
        clear(out)
    finished = load_run(out) if (out / MANIFEST).is_file() else None
    started = out / CHECKPOINT / SETTINGS
    if finished is not None:
        _refuse_difference(out, "a finished", finished.settings, settings.to_json())
    elif started.is_file():
        _refuse_difference(out, "an unfinished", read_json(started, RunError), settings.to_json())
    else:
        write_json(started, settings.to_json())
    return finished


@contextmanager
def first_steps(out: Path) -> Iterator[None]:
    """Where nothing was done before, what fails here leaves nothing: corrected data meet no settings of these."""
    new = not (out / SPLITS_FILE).is_file()
    try:
        yield
    except EdgetlError:
        if new:
            clear(out)
        raise


def clear(out: Path) -> None:
    """Remove what edgetl wrote into a run's folder, the manifest first, and nothing else."""
    for name in _OWN:
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        else:
            (out / name).unlink(missing_ok=True)


def tidy(out: Path) -> None:
    """Remove the checkpoint and what a killed process left half-written."""
    shutil.rmtree(out / CHECKPOINT, ignore_errors=True)
    for leftover in out.glob(".*.partial"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _refuse_difference(out: Path, what: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    before, now = {**IMPLIED, **dict(_flat(theirs))}, dict(_flat(ours))
    changed = [name for name in now if before.get(name) != now[name]] + [name for name in before if name not in now]
    if changed:
        shown = ", ".join(f"{name} {before.get(name)} there, {now.get(name)} now" for name in changed[:3])
        more = " …" if len(changed) > 3 else ""
        raise RunError(
            f"{out} holds {what} run with other settings ({shown}{more})",
            "give another --out, or --fresh to replace it",
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def dataset_of(
    out: Path, data: str | Path, kind: str, seed: int, shares: Mapping[str, float], progress: Progress
) -> Dataset:
    """The labelled samples, files of this kind of input, with their splits: as listed when the run began, or now.

    Raises:
        DataError: nothing to learn from, or the files changed since the run began.
    """
    if (out / SPLITS_FILE).is_file():
        dataset = Dataset.from_json(read_json(out / SPLITS_FILE, RunError))
        # What a reader wrote into the run's folder, it can write again.
        if dataset.root.is_dir() or dataset.root not in {(out / name).resolve() for name in (IMAGES, SAMPLES)}:
            check_unchanged(dataset, progress)
            return dataset
    into = out / (IMAGES if kind == "image" else SAMPLES)
    dataset = load_dataset(data, kind=kind, seed=seed, shares=shares, into=into, progress=progress)
    write_json(out / SPLITS_FILE, dataset.to_json())
    return dataset


def check_unchanged(dataset: Dataset, progress: Progress) -> None:
    """Compare the files with the hashes of the listing.

    Raises:
        DataError: a file is gone, new or different; the message names it.
    """
    remedy = "restore it, or start over with --fresh"
    with ThreadPoolExecutor(4) as pool:
        files = [dataset.root / sample.path for sample in dataset.samples]
        found = pool.map(lambda file: sha256_file(file) if file.is_file() else "", files)
        for sample, digest in zip(
            dataset.samples, tracked(found, "checking samples", progress, len(files)), strict=True
        ):
            if digest != sample.sha256:
                state = "changed" if digest else "is gone"
                raise DataError(f"{dataset.root / sample.path} {state} since the run began", remedy)
    if not all(sample.path.split("/")[0] in dataset.classes for sample in dataset.samples):
        return
    known = {sample.path for sample in dataset.samples} | {skipped.path for skipped in dataset.skipped}
    listed = (p for name in dataset.classes for p in (dataset.root / name).rglob("*") if p.is_file())
    new = sorted({p.relative_to(dataset.root).as_posix() for p in listed if not p.name.startswith(".")} - known)
    if new:
        raise DataError(f"{dataset.root / new[0]} is new since the run began", "remove it, or start over with --fresh")
