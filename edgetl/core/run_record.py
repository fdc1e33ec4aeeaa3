"""``run.json`` of a run, as a value: how it was trained, what it reached, and the hash of every file in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgetl.base.errors import RunError
from edgetl.base.names import check_name
from edgetl.base.schema import Json, from_json
from edgetl.base.storage import read_sealed
from edgetl.core.adaptation import Adaptation
from edgetl.core.adoption import Adoption

SCHEMA: Literal[2] = 2


@dataclass(frozen=True, kw_only=True)
class RunMetrics:
    """What training reached.

    Attributes:
        val: scores of the finalized model on val by name, the task's metrics and ``loss`` and ``n`` among them; those
            that the labels leave undefined are missing.
        start: the same before the first step.
        metric: name of the task's default metric, by which a transfer is compared with its baseline.
        better: whether higher or lower values of it are.
        best_epoch, epochs_run: 0 is the start.
    """

    val: Mapping[str, float]
    start: Mapping[str, float] = field(default_factory=dict)
    metric: str = "accuracy"
    better: Literal["higher", "lower"] = "higher"
    best_epoch: int = 0
    epochs_run: int = 0

    def above(self, other: RunMetrics) -> float | None:
        """How much better the score is than another run's; None where one of them is undefined."""
        mine, theirs = self.val.get(self.metric), other.val.get(self.metric)
        if mine is None or theirs is None:
            return None
        return float(mine - theirs if self.better == "higher" else theirs - mine)


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The model in ``baseline.safetensors``: what the same samples give without the transfer.

    Attributes:
        kind: the architecture trained from scratch, or a linear probe on the pretrained backbone.
        metrics, settings: as those of a run.
        sha256: of the file; "" before the run knows it.
    """

    kind: Literal["scratch", "probe"]
    metrics: RunMetrics
    settings: Mapping[str, Json] = field(default_factory=dict)
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What ``run.json`` says.

    Attributes:
        backbone, strategy, task: as in the lists of ``edgetl``; a run from before there were tasks is classification.
        settings: every option that training depended on, among them ``seed`` and ``epochs``.
        metrics: what it reached.
        lineage: source of the pretrained weights, their hash and licence, versions, command line.
        files: SHA-256 of each file of the run that is sealed.
        baseline: None without one.
        adoption: of a model that was trained elsewhere; None for one of edgetl's own.
        adaptation: of a model that was adapted to a target domain.
    """

    backbone: str
    strategy: str
    settings: Mapping[str, Json]
    metrics: RunMetrics
    lineage: Mapping[str, Json]
    files: Mapping[str, str]
    baseline: Baseline | None = None
    adoption: Adoption | None = None
    adaptation: Adaptation | None = None
    task: str = "classification"
    schema: Literal[1, 2] = SCHEMA

    def __post_init__(self) -> None:
        seed = self.settings.get("seed", 0)
        if not isinstance(seed, int) or seed < 0:
            raise ValueError("the seed is no whole number of 0 or more")


def read_run_record(file: Path) -> RunRecord:
    """Read ``run.json``; those of schema 1 lack what has a default.

    Raises:
        RunError: altered, of another schema, or of another shape.
    """
    record = read_sealed(file, RunError)
    if record.get("schema") not in (1, SCHEMA):
        raise RunError(
            f"{file.parent} is a run of schema {record.get('schema')!r:.20}, and this edgetl reads 1 and {SCHEMA}",
            "train it again",
        )
    read = from_json(RunRecord, record, file, RunError, "train it again")
    for name in read.files:
        try:
            check_name(name)
        except ValueError as error:
            raise RunError(f"{file}: {error}", "use no run that names such files") from error
    return read
