"""A Run: the outcome of training, here or elsewhere, as a folder.

    run.json             sealed manifest: task, backbone, strategy, settings, metrics, lineage, SHA-256 of each file
    weights.safetensors  the finalized model's tensors, under timm's or torchvision's names
    model.onnx           instead of them: the float model, where it was trained elsewhere and is none of theirs
    baseline.safetensors those of the model that the transfer is measured against, if one was trained
    splits.json          classes and every image with hash, label and split
    preprocess.json      the one definition of the input; what it needs besides (tokenizer.json) lies beside it
    history.jsonl        one line for each epoch
    val.npz              the finalized model's outputs on the val split (search, where there is no val), in its order:
                         ``out.NAME``, first axis n
    val-start.npz        the same before the first step of training, where that is a linear probe
    val-baseline.npz     the same of the baseline
    images/, samples/    only where the data hold no files for them: the embedded digits, rows of texts or arrays
    readings.jsonl       one line for each reading of the certify split by any bundle of the run, added later
    checkpoint/          only while training, or that of the baseline, is unfinished

``run.json`` is written last: a folder without it is no Run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgetl.base.errors import RunError
from edgetl.base.names import below
from edgetl.base.schema import Json, from_json, to_json
from edgetl.base.storage import (
    parse_json,
    read_json,
    sha256_file,
    sha256_json,
    write_bytes,
    write_json,
    write_sealed,
)
from edgetl.core.adaptation import Adaptation
from edgetl.core.adoption import Adoption
from edgetl.core.data import Dataset
from edgetl.core.run_record import Baseline, RunMetrics, RunRecord, read_run_record
from edgetl.core.val_outputs import BASELINE_OUTPUTS, START_OUTPUTS, VAL_OUTPUTS, read_val_outputs

MANIFEST = "run.json"
WEIGHTS = "weights.safetensors"
NETWORK = "model.onnx"
BASELINE = "baseline.safetensors"
SPLITS_FILE = "splits.json"
PREPROCESS_FILE = "preprocess.json"
HISTORY = "history.jsonl"
READINGS = "readings.jsonl"
CHECKPOINT = "checkpoint"
#: What a reader writes where the data hold no files: the embedded digits, or rows of texts and arrays.
IMAGES, SAMPLES = "images", "samples"


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes:
        path: the folder.
        backbone, strategy: names as in ``edgetl backbones`` and ``edgetl strategies``.
        dataset: images, classes and splits.
        input_record: how a file becomes the network's input; :func:`edgetl.inputs.input_of` reads it.
        settings: every option that training depended on, among them ``seed`` and ``epochs``.
        metrics: what it reached.
        lineage: source of the pretrained weights, their hash and licence, versions, command line.
        weights_sha256: of ``weights.safetensors`` or ``model.onnx``.
        baseline: of the model in ``baseline.safetensors``; None without one.
        hashes: SHA-256 of each file that the manifest seals, by name.
        task: as in ``edgetl tasks``; runs from before there were others are classification.
        adoption: of a model that was trained elsewhere.
        adaptation: of a model that was adapted to a target domain, whose samples certify.
    """

    path: Path
    backbone: str
    strategy: str
    dataset: Dataset
    input_record: Mapping[str, Any]
    settings: Mapping[str, Any]
    metrics: RunMetrics
    lineage: Mapping[str, Any]
    weights_sha256: str
    baseline: Baseline | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    task: str = "classification"
    adoption: Adoption | None = None
    adaptation: Adaptation | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.dataset.classes

    @property
    def weights(self) -> Path:
        """The safetensors file."""
        return self.path / WEIGHTS

    @property
    def network(self) -> Path | None:
        """The float ONNX file of a model that was trained elsewhere; None where the run has weights instead."""
        return self.path / NETWORK if NETWORK in self.hashes else None

    @property
    def history(self) -> list[dict[str, Any]]:
        """One row for each epoch, the start first; empty in an older run, which did not seal them.

        Raises:
            RunError: a line is no JSON object.
        """
        if HISTORY not in self.hashes:
            return []
        try:
            lines = (self.path / HISTORY).read_text(encoding="utf-8").splitlines()
            return [dict(parse_json(line)) for line in lines]
        except (ValueError, TypeError) as error:
            raise RunError(f"{self.path / HISTORY} is malformed", "train the run again") from error

    @property
    def val_outputs(self) -> dict[str, npt.NDArray[Any]] | None:
        """What the finalized model answered on the val split, in its order; None in a run that did not keep it.

        Raises:
            RunError: the file holds something else.
        """
        return self._outputs(VAL_OUTPUTS)

    @property
    def start_outputs(self) -> dict[str, npt.NDArray[Any]] | None:
        """The same before the first step of training, where the start is a linear probe of pretrained weights."""
        return self._outputs(START_OUTPUTS)

    @property
    def baseline_outputs(self) -> dict[str, npt.NDArray[Any]] | None:
        """The same of the baseline; None without one, or of a time when they were not kept."""
        return self._outputs(BASELINE_OUTPUTS)

    def _outputs(self, name: str) -> dict[str, npt.NDArray[Any]] | None:
        if name not in self.hashes:
            return None
        return read_val_outputs(self.path / name, len(self.dataset.split(self.dataset.measured)))

    @property
    def gain(self) -> float | None:
        """How much better than the baseline's the task's default metric is on val; None without a baseline."""
        return None if self.baseline is None else self.metrics.above(self.baseline.metrics)

    @property
    def digest(self) -> str:
        """SHA-256 that names this outcome: weights, splits and preprocessing; the baseline is no part of it."""
        parts = [self.weights_sha256, self.dataset.digest, sha256_json(self.input_record), self.backbone]
        # What was checked of a model stands in the certificates of its bundles.
        told = [to_json(part) for part in (self.adoption, self.adaptation) if part is not None]
        return sha256_json([*parts, *told])

    def to_json(self) -> dict[str, Any]:
        """What a user wants to see of the run, as plain JSON values."""
        return {
            "run": str(self.path),
            "task": self.task,
            "backbone": self.backbone,
            "strategy": self.strategy,
            "classes": list(self.classes),
            "settings": dict(self.settings),
            "metrics": to_json(self.metrics),
            "baseline": None if self.baseline is None else {**to_json(self.baseline), "gain": self.gain},
            "lineage": dict(self.lineage),
            "adoption": to_json(self.adoption),
            "adaptation": to_json(self.adaptation),
            "preprocess": dict(self.input_record),
            "splits": self.dataset.summary(),
            "skipped": [{"path": s.path, "reason": s.reason} for s in self.dataset.skipped],
            "ignored": dict(self.dataset.ignored),
            "notes": list(self.dataset.notes),
            "digest": self.digest,
        }


def write_run(
    path: Path,
    *,
    backbone: str,
    strategy: str,
    dataset: Dataset,
    input_record: Mapping[str, Any],
    input_files: Mapping[str, bytes] | None = None,
    settings: Mapping[str, Any],
    metrics: RunMetrics,
    lineage: Mapping[str, Any],
    task: str = "classification",
    adoption: Adoption | None = None,
    adaptation: Adaptation | None = None,
) -> Run:
    """Complete a run whose other files already lie in ``path``: weights or network, history, val outputs."""
    write_splits(path, dataset)
    write_json(path / PREPROCESS_FILE, dict(input_record))
    for name, content in (input_files or {}).items():
        write_bytes(path / name, content)
    names = (WEIGHTS, NETWORK, SPLITS_FILE, PREPROCESS_FILE, HISTORY, VAL_OUTPUTS, START_OUTPUTS, *(input_files or ()))
    files = {name: sha256_file(path / name) for name in names if (path / name).is_file()}
    record = RunRecord(
        backbone=backbone,
        strategy=strategy,
        settings=settings,
        metrics=metrics,
        lineage=lineage,
        files=files,
        task=task,
        adoption=adoption,
        adaptation=adaptation,
    )
    write_sealed(path / MANIFEST, to_json(record))
    return load_run(path)


def write_splits(path: Path, dataset: Dataset) -> None:
    """Keep a data set in a run's folder; the run's own samples are named as such, so that they may move with it."""
    record = dataset.to_json()
    if dataset.root.parent == path.resolve() and dataset.root.name in (IMAGES, SAMPLES):
        record["root"] = dataset.root.name
    write_json(path / SPLITS_FILE, record)


def read_splits(path: Path) -> Dataset:
    """The data set of a run's folder.

    Raises:
        RunError: there is none.
        DataError: it is malformed.
    """
    dataset = Dataset.from_json(read_json(path / SPLITS_FILE, RunError), path / SPLITS_FILE)
    own = path.resolve() / dataset.root.name
    # Older runs wrote down where they were; one that moved has its samples with it.
    moved = dataset.root.is_absolute() and not dataset.root.is_dir() and own.is_dir()
    if dataset.root.name in (IMAGES, SAMPLES) and (moved or str(dataset.root) == dataset.root.name):
        return replace(dataset, root=own)
    return dataset


def record_baseline(path: Path, baseline: Baseline | None) -> Run:
    """Enter in a finished run the baseline whose weights and outputs already lie in it; nothing else changes.

    Args:
        path: the run's folder.
        baseline: the hash of the weights is added. None to take the entry out, as must be done before the file is
            replaced.

    Raises:
        RunError: no whole run.
    """
    record = read_run_record(path / MANIFEST)
    own = (BASELINE, BASELINE_OUTPUTS)
    files = {name: digest for name, digest in record.files.items() if name not in own}
    if baseline is not None:
        files |= {name: sha256_file(path / name) for name in own}
        baseline = replace(baseline, sha256=files[BASELINE])
    write_sealed(path / MANIFEST, to_json(replace(record, files=files, baseline=baseline)))
    return load_run(path)


def load_run(path: str | Path) -> Run:
    """Open a finished run and check that it is whole and unaltered.

    Raises:
        RunError: missing, unfinished, of another schema, or a file does not match its hash.
    """
    folder = Path(path)
    if not (folder / MANIFEST).is_file():
        if (folder / CHECKPOINT).is_dir():
            raise RunError(f"the run {folder} is unfinished", "give the same finetune command again: it resumes")
        how = "make one with: edgetl finetune DATA --out RUN, or edgetl adopt MODEL --data DATA --out RUN"
        raise RunError(f"{folder} is not a run (it has no {MANIFEST})", how)
    record = read_run_record(folder / MANIFEST)
    held = WEIGHTS if record.adoption is None or NETWORK not in record.files else NETWORK
    for name in (held, SPLITS_FILE, PREPROCESS_FILE):
        if name not in record.files:
            raise RunError(f"{folder / MANIFEST} has no hash of {name}", "train the run again")
    for name, expected in record.files.items():
        try:
            file = below(folder, name)
        except ValueError as error:
            raise RunError(f"{folder}: {error}", "use no run that names such files") from error
        if not file.is_file() or sha256_file(file) != expected:
            raise RunError(f"{file} is missing or was altered", "train the run again or restore the file")
    preprocess = folder / PREPROCESS_FILE
    return Run(
        path=folder,
        backbone=record.backbone,
        strategy=record.strategy,
        dataset=read_splits(folder),
        input_record=from_json(dict[str, Json], read_json(preprocess, RunError), preprocess, RunError),
        settings=record.settings,
        metrics=record.metrics,
        lineage=record.lineage,
        weights_sha256=record.files[held],
        baseline=record.baseline,
        hashes=record.files,
        task=record.task,
        adoption=record.adoption,
        adaptation=record.adaptation,
    )
