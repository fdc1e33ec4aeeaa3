"""What finetune was asked for, as given, and what a run that it goes on from adds to that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgetl.base.errors import EdgetlError
from edgetl.base.schema import LARGEST
from edgetl.core.run import Run
from edgetl.tasks import Task
from edgetl.tasks.several import NAME as MULTI_TASK
from edgetl.transfer.earlier import with_new
from edgetl.transfer.settings import AUTO
from edgetl.transfer.strategies.base import NewColumn


@dataclass(frozen=True)
class Options:
    """The arguments of :func:`edgetl.transfer.finetune.finetune`, as given."""

    data: str | Path
    out: str | Path
    task: str | None
    backbone: str | None
    strategy: str
    epochs: int | None
    seed: int
    batch_size: int | str
    learning_rate: float | None
    image_size: int | None
    weights: str | Path | None
    devices: int
    accelerator: str
    precision: str
    workers: int | None
    shares: Mapping[str, float] | None
    checkpoint_seconds: float
    set: Mapping[str, Any] = field(default_factory=dict)
    teacher: str | Path | None = None
    target_data: str | Path | None = None
    retain: str | Path | None = None
    from_run: str | Path | None = None
    augment: str | None = None
    group_by: str | None = None


def check_numbers(options: Options) -> None:
    rate, size, least = options.learning_rate, options.batch_size, max(options.devices, 1)
    rules = (
        ("epochs", options.epochs, options.epochs is None or options.epochs >= 1, "at least 1"),
        ("seed", options.seed, options.seed >= 0, "at least 0"),
        ("batch size", size, size == AUTO or (isinstance(size, int) and size >= least), f"at least {least}, or {AUTO}"),
        ("learning rate", rate, rate is None or (rate > 0 and math.isfinite(rate)), "a positive number"),
        ("number of workers", options.workers, options.workers is None or options.workers >= 0, "at least 0"),
        ("checkpoint interval", options.checkpoint_seconds, options.checkpoint_seconds >= 0, "at least 0 seconds"),
    )
    for name, given, fine, wanted in rules:
        if not fine:
            raise EdgetlError(f"the {name} is {given}", f"give {wanted}")
        if isinstance(given, int) and given > LARGEST:
            raise EdgetlError(f"the {name} is {given}", f"give at most {LARGEST}")


def going_on(options: Options, previous: Run | None, column: NewColumn | None) -> Options:
    """An order that starts from a run's weights, or beside them: its backbone and size, unless others are given.

    Raises:
        EdgetlError: other weights are given, too, or what the run cannot have.
    """
    if previous is None:
        return options
    if column is None and "columns" in previous.lineage:
        what = f"{previous.path} has a column for each of its tasks, and '{options.strategy}' trains one network"
        raise EdgetlError(what, "use --strategy progressive, or give --from the run of one of them")
    starts = column is None or column.start == "previous"
    if options.weights is not None and starts:
        raise EdgetlError("--from and --weights both say what to start from", "give one of them")
    height = previous.input_record.get("height")
    size = options.image_size if options.image_size is not None or not isinstance(height, int) else height
    if column is not None and size != height:
        what = f"the columns of {previous.path} read images of {height} pixels, and the new one reads the same"
        raise EdgetlError(what, "leave --image-size out")
    backbone = options.backbone or previous.backbone
    if backbone != previous.backbone:
        what = f"{previous.path} is a run of the backbone '{previous.backbone}', not '{backbone}'"
        raise EdgetlError(what, "leave --backbone out")
    given = previous.weights.resolve() if starts else options.weights
    return replace(options, weights=given, backbone=backbone, image_size=size)


def beside(options: Options, task: Task, previous: Run, column: NewColumn) -> Task:
    """The tasks of a run and the data's.

    Raises:
        EdgetlError: others are named, or they cannot go together.
    """
    found = with_new(previous, task, column)
    if options.task not in (None, MULTI_TASK, task.name, found.name):
        raise EdgetlError(f"the tasks are {found.name}, and not {options.task}", "leave --task out")
    return found
