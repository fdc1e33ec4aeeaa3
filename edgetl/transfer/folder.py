"""The run's folder between commands: what it was started with, whether it is finished, and whether the data stayed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgetl.base.errors import DataError, RunError
from edgetl.base.lock import exclusive
from edgetl.base.progress import Progress, tracked
from edgetl.base.storage import read_json, sha256_file, write_json
from edgetl.core.data import NEEDED, Dataset, find_reader, refuse_inside, unlisted
from edgetl.core.data.walk import is_ignored
from edgetl.core.run import (
    BASELINE,
    CHECKPOINT,
    HISTORY,
    IMAGES,
    MANIFEST,
    PREPROCESS_FILE,
    READINGS,
    SAMPLES,
    SPLITS_FILE,
    WEIGHTS,
    Run,
    load_run,
    read_splits,
    write_splits,
)
from edgetl.core.transfer_outcome import RETENTION
from edgetl.core.val_outputs import BASELINE_OUTPUTS, START_OUTPUTS, VAL_OUTPUTS
from edgetl.inputs import load_dataset
from edgetl.inputs.text import TOKENIZER
from edgetl.transfer.checkpoint import LAST
from edgetl.transfer.curves import TENSORBOARD
from edgetl.transfer.settings import IMPLIED, UNKNOWN, Settings

SETTINGS = "settings.json"
#: Below the checkpoint's folder: samples of streams that have no files of their own.
STREAMS = "streams"
_OUTPUTS = (VAL_OUTPUTS, START_OUTPUTS, BASELINE_OUTPUTS)
_FILES = (MANIFEST, CHECKPOINT, WEIGHTS, BASELINE, SPLITS_FILE, PREPROCESS_FILE, HISTORY, IMAGES, SAMPLES, *_OUTPUTS)
_OWN = (*_FILES, TOKENIZER, TENSORBOARD, RETENTION)
#: The stages before, each a run of its own: the run starts from the last one's weights.
VIA = "via"


@contextmanager
def held(out: Path, data: str | Path) -> Iterator[None]:
    """Hold the run's folder, which nothing is written into yet.

    Raises:
        DataError: it lies inside the data.
        EdgetlError: another training holds it, or it cannot be written to.
    """
    refuse_inside(out, data)
    with exclusive(out, "training"):
        yield


def standing(out: Path, settings: Settings, fresh: bool) -> Run | None:
    """What ``out`` holds of these settings; nothing is changed.

    Args:
        out: the run's folder; may hold only what edgetl made.
        settings: everything the outcome depends on.
        fresh: whatever stands there is to be replaced.

    Returns:
        the finished run of the same settings, or None if there is work to do.

    Raises:
        RunError: the folder holds a run with other settings, or files that are not edgetl's.
    """
    foreign = sorted(
        p.name for p in out.iterdir() if p.name not in (*_OWN, VIA, READINGS) and not p.name.endswith(".partial")
    )
    foreign = [name for name in foreign if not is_ignored(name)]
    if foreign:
        raise RunError(f"{out} holds files that are no run's ({', '.join(foreign[:3])})", "choose another --out")
    if fresh:
        return None
    finished = load_run(out) if (out / MANIFEST).is_file() else None
    started = out / CHECKPOINT / SETTINGS
    if finished is not None:
        _refuse_difference(out, "a finished", finished.settings, settings.to_json())
    elif started.is_file():
        _refuse_difference(out, "an unfinished", read_json(started, RunError), settings.to_json())
    return finished


def batch_size_of(out: Path) -> int:
    """The batch size of the run that stands in ``out``, finished or not; :data:`UNKNOWN` where none was found yet."""
    held = out / CHECKPOINT / SETTINGS
    settings: Mapping[str, Any] = {}
    if (out / MANIFEST).is_file():
        settings = load_run(out).settings
    elif held.is_file():
        settings = read_json(held, RunError)
    size = settings.get("batch_size")
    return size if isinstance(size, int) else UNKNOWN


def keep_settings(out: Path, settings: Settings) -> None:
    """Write what the run is trained with, once all of it is known."""
    write_json(out / CHECKPOINT / SETTINGS, settings.to_json())


class FirstSteps:
    """From reading the data to the first checkpoint of training: what fails until then leaves nothing.

    Args:
        out: the run's folder, held.
        fresh: what stands there is replaced, once nothing of the data is in the way.
    """

    def __init__(self, out: Path, fresh: bool) -> None:
        self.out = out
        begun = (out / MANIFEST).is_file() or (out / CHECKPOINT / SETTINGS).is_file()
        self.goes_on = begun and not fresh and (out / SPLITS_FILE).is_file()
        self.begun = False

    def __enter__(self) -> FirstSteps:
        shutil.rmtree(self.own, ignore_errors=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        shutil.rmtree(self.own, ignore_errors=True)
        # Whoever interrupts goes on later; whatever failed would fail again, and other settings must find no trace.
        if self.begun and isinstance(error, Exception) and not (self.out / CHECKPOINT / LAST).is_file():
            clear(self.out)

    def read(
        self,
        data: str | Path,
        kind: str,
        seed: int,
        shares: Mapping[str, float],
        progress: Progress,
        group_by: str | None = None,
        needed: Sequence[str] = NEEDED,
    ) -> Dataset:
        """The labelled samples of this kind of input, with their splits: as listed when the run began, or now.

        Raises:
            DataError: nothing to learn from, or the files changed since the run began.
        """
        if self.goes_on:
            dataset = read_splits(self.out)
            if not dataset.root.is_dir() and dataset.root.parent == self.out.resolve():
                # What a reader wrote into the run's folder, it can write again.
                find_reader(data).read(Path(data), dataset.root)
            check_unchanged(dataset, data, progress)
            return dataset
        into = self.own / (IMAGES if kind == "image" else SAMPLES)
        return load_dataset(
            data, kind=kind, seed=seed, shares=shares, into=into, needed=needed, group_by=group_by, progress=progress
        )

    def begin(self, settings: Settings, dataset: Dataset) -> Dataset:
        """Write what the run was started with, unless it is there; the data set, where its files lie from now on."""
        if self.goes_on:
            return dataset
        self.begun = True
        clear(self.out)
        if dataset.root.parent == self.own.resolve():
            dataset = replace(dataset, root=dataset.root.replace(self.out.resolve() / dataset.root.name))
        keep_settings(self.out, settings)
        if self.streams.is_dir():
            self.streams.replace(self.out / CHECKPOINT / STREAMS)
        write_splits(self.out, dataset)
        return dataset

    @property
    def streams(self) -> Path:
        """Where samples of streams are written now."""
        return (self.out / CHECKPOINT if self.goes_on else self.own) / STREAMS

    @property
    def own(self) -> Path:
        """Where a reader writes samples until all is known to be well."""
        return self.out / ".new.partial"


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
    now = dict(_flat(ours))
    before = {**{name: value for name, value in IMPLIED.items() if name in now}, **dict(_flat(theirs))}
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


def check_unchanged(dataset: Dataset, data: str | Path, progress: Progress) -> None:
    """Compare the files with the hashes of the listing, and the listing with what there is to list now.

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
    new = unlisted(data, dataset)
    if new:
        raise DataError(f"{dataset.root / new[0]} is new since the run began", "remove it, or start over with --fresh")
