"""Stages of a transfer: each starts from the weights of the one before, and the last one is on the data themselves.

A stage without labels is answered by the stage before: gradual self-training, where a domain drifts in steps (Kumar,
Ma and Liang 2020, "Understanding Self-Training for Gradual Domain Adaptation").
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.base.errors import DataError, EdgetlError
from edgetl.base.progress import Progress, silent
from edgetl.base.storage import write_bytes
from edgetl.core.data import LABEL_KINDS
from edgetl.core.data.readers.columns import has_column
from edgetl.core.run import Run
from edgetl.inputs import INPUTS, kind_of
from edgetl.tasks import find_task
from edgetl.tasks.logits import softmax
from edgetl.transfer.finetune import finetune
from edgetl.transfer.folder import VIA
from edgetl.transfer.model import load_model, outputs
from edgetl.transfer.placement import place
from edgetl.transfer.stores import store_of
from edgetl.transfer.streams import unlabelled

#: Of the samples that the stage before gives to a class, the surest share is trained on.
SUREST = 0.9
#: Options that are the last stage's alone, and those that are the first one's.
_LAST, _FIRST = ("baseline", "log", "group_by"), ("weights", "from_run", "backbone")


def staged(
    data: str | Path, out: str | Path, via: Sequence[str | Path], *, progress: Progress = silent, **options: Any
) -> Run:
    """Transfer by way of other data: a run for each stage in ``out/via/N``, and the last one in ``out``.

    Args:
        data, out, options: as for :func:`edgetl.finetune`; what was interrupted goes on.
        via: data for the stages before, in their order, as ``data``; or samples without labels, a folder with no folder
            for each class or a CSV file without labels, which the stage before answers.
        progress: told of each step.

    Raises:
        EdgetlError: as finetune, no stage, or a first stage without labels.
    """
    if not via:
        raise EdgetlError("there is no stage to go by", "name --via DATA, or leave it out")
    folder, before = Path(out) / VIA, None
    for number, source in enumerate(map(Path, via), 1):
        told = partial(_told, f"stage {number} of {len(via) + 1}", progress)
        given = source
        if _has_no_labels(source):
            if before is None:
                raise EdgetlError(f"the first stage, {source}, has no labels", "begin with labelled samples")
            given = _answered(source, before, folder, number, str(options.get("accelerator", "auto")), told)
        stage = {name: value for name, value in options.items() if name not in _LAST}
        if given is not source and stage.get("strategy", "fine-tune") == "fine-tune":
            # The start answers its own answers rightly: by them no epoch is better.
            stage["set"] = {**(stage.get("set") or {}), "keep": "last"}
        before = finetune(given, folder / str(number), **_from(stage, before), progress=told)
    last = partial(_told, f"stage {len(via) + 1} of {len(via) + 1}", progress)
    return finetune(data, out, **_from(options, before), progress=last)


def _told(stage: str, progress: Progress, task: str, done: int, total: int, detail: str = "") -> None:
    progress(f"{stage}: {task}", done, total, detail)


def _from(options: Mapping[str, Any], before: Run | None) -> dict[str, Any]:
    if before is None:
        return dict(options)
    return {**{name: value for name, value in options.items() if name not in _FIRST}, "from_run": before.path}


def _has_no_labels(source: Path) -> bool:
    if source.is_dir():
        suffixes = {suffix for known in INPUTS.values() for suffix in known.suffixes}
        return any(file.is_file() and file.suffix.lower() in suffixes for file in source.iterdir())
    columns = {kind.column for kind in LABEL_KINDS.values()}
    table = has_column(source, "path") or has_column(source, "text")
    return table and not any(has_column(source, column) for column in columns)


def _answered(source: Path, before: Run, folder: Path, number: int, accelerator: str, progress: Progress) -> Path:
    """A table of the samples that the run before is surest of, with its answers for labels.

    Raises:
        DataError: no sample can be used.
        EdgetlError: the task is not one of one class a sample.
    """
    if find_task(before.task).labels != "class":
        what = f"a stage without labels is answered with one class a sample, and the task is {before.task}"
        raise EdgetlError(what, "give every stage labels")
    _, files = unlabelled(source, kind_of(before).name, folder / f"{number}-texts", progress)
    if not files:
        raise DataError(f"{source} holds no sample", "give some, or leave the stage out")
    model, device = load_model(before), place(accelerator, 1, "auto").device
    store = store_of(model.definition, [file for file, _ in files])
    (logits,) = outputs(model.to(device), store, device, "answering", progress).values()
    answers, sure = logits.argmax(1), softmax(logits).max(1)
    kept = [row for answer in range(len(before.classes)) for row in _surest(np.flatnonzero(answers == answer), sure)]
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(("path", "label"))
    table.writerows((str(files[row][0].resolve()), before.classes[int(answers[row])]) for row in sorted(kept))
    write_bytes(folder / f"{number}.csv", text.getvalue().encode())
    return folder / f"{number}.csv"


def _surest(rows: Any, sure: Any) -> list[int]:
    order = rows[np.argsort(-sure[rows], kind="stable")]
    return [int(row) for row in order[: max(round(SUREST * len(order)), min(len(order), 1))]]
