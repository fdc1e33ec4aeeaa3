"""What an adoption is ordered with, and whether it was done already."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.base.errors import DataError, RunError
from edgetl.base.extras import version
from edgetl.base.storage import sha256_file
from edgetl.core.data import label_kind
from edgetl.core.data.several import taken_apart
from edgetl.core.data.walk import is_ignored
from edgetl.core.licences import licences_beside
from edgetl.core.run import MANIFEST, Run, load_run
from edgetl.inputs import INPUTS, what
from edgetl.inputs.base import Input
from edgetl.tasks import TASKS, Task, find_task
from edgetl.workflow.adoption.claim_check import Claim
from edgetl.workflow.adoption.given import Given
from edgetl.workflow.adoption.samples import Sources

_VERSIONS = (
    "edgetl",
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "numpy",
    "PIL",
)


@dataclass(frozen=True)
class Declared:
    """What a model's owner says of it, files as they were given."""

    task: Task
    output: str | None
    classes: tuple[str, ...]
    names_told_by: str
    answers: Path | None
    claim: Claim | None


def task_for(data: str | Path, wanted: str | None, definition: Input) -> Task:
    """The task that reads the data's labels and the model's input, or the one that was named, if it does."""
    labels = what(data)[1]
    fitting = [task for task in TASKS.values() if task.labels == labels and definition.kind in task.inputs]
    if taken_apart(labels):
        what_is = f"{data} is of several tasks, and a model that was trained elsewhere is adopted for one"
        raise DataError(what_is, "give a table with one of its columns, and name the model's output: --output NAME")
    noun, column = INPUTS[definition.kind].noun, label_kind(labels).column
    if wanted is None and not fitting:
        raise DataError(f"no task reads the column '{column}' and {noun}s", "see: edgetl tasks")
    task = find_task(wanted) if wanted is not None else fitting[0]
    if task not in fitting:
        names = " or ".join(known.name for known in fitting) or "none: see edgetl tasks"
        what_is = f"{data} has the column '{column}' and the model takes {noun}s, which {task.name} does not read"
        raise DataError(what_is, f"use --task {names}")
    return task


def settings_of(given: Given, definition: Input, sources: Sources, declared: Declared) -> dict[str, Any]:
    """Everything that the outcome depends on, but for the samples' content."""
    claim = declared.claim
    return {
        "model": given.sha256,
        "output": declared.output,
        "task": declared.task.name,
        "preprocess": definition.digest,
        "classes": list(declared.classes),
        "answers": None if declared.answers is None else _hash(declared.answers),
        "claim": None if claim is None else f"{claim.metric}={claim.value:g}",
        "data": _place(sources.data),
        "unseen": None if sources.unseen is None else _place(sources.unseen),
        "seed": sources.seed,
        **({} if sources.group_by is None else {"group_by": sources.group_by}),
    }


def _hash(file: Path) -> str:
    if not file.is_file():
        raise DataError(f"there are no answers {file}", "give an .npz with logits (n, classes) and sha256 (n)")
    return sha256_file(file)


def _place(source: str | Path) -> str:
    return str(Path(source).resolve()) if Path(source).exists() else str(source)


def _located(model: str) -> str:
    """A model as a user names it, with the file or folder in it in full."""
    for mark in ("@", ":"):
        kind, found, path = model.rpartition(mark)
        if found and Path(path).exists():
            return f"{kind}{mark}{_place(path)}"
    return _place(model)


def standing(folder: Path, settings: Mapping[str, Any], fresh: bool) -> Run | None:
    """The run of the same settings that stands there, or None if there is none, or if it is to be replaced.

    Raises:
        RunError: the folder holds another run, or no run.
    """
    held = sorted(file.name for file in folder.iterdir() if not is_ignored(file.name)) if folder.is_dir() else []
    if not held:
        return None
    if MANIFEST not in held:
        raise RunError(f"{folder} holds files that are no run's ({', '.join(held[:3])})", "choose another --out")
    if fresh:
        return None
    there = load_run(folder)
    names = {*settings, "group_by"}
    changed = sorted(name for name in names if there.settings.get(name) != settings.get(name))
    if there.adoption is None or changed:
        shown = ", ".join(changed[:3]) or "it was trained here"
        raise RunError(
            f"{folder} holds another run ({shown} {'differs' if changed else ''})".replace(" )", ")"),
            "give another --out, or --fresh to replace it",
        )
    return there


def lineage_of(
    given: Given, sources: Sources, declared: Declared, out: Path, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """Where the run came from.

    Args:
        given, sources, declared: of the adoption.
        out: the run's folder.
        asked: what the command line takes besides, by option; what is no text or path cannot stand in one.
    """
    model = asked.get("model")
    words = _located(str(model)) if isinstance(model, (str, Path)) else given.model
    places = (sources.data, sources.unseen)
    command = ["edgetl", "adopt", words, "--data", _place(sources.data), "--out", str(out)]
    command += ["--task", declared.task.name, "--seed", str(sources.seed)]
    if sources.unseen is not None:
        command += ["--unseen", _place(sources.unseen)]
    if sources.group_by is not None:
        command += ["--group-by", sources.group_by]
    for name, value in asked.items():
        if name != "model" and isinstance(value, (str, Path)):
            command += [f"--{name}", _place(value)]
    return {
        "architecture": given.backbone or given.model,
        "weights": given.model,
        "weights_sha256": given.sha256,
        "licence": "",
        **({"data_licences": stated} if (stated := licences_beside(filter(None, places))) else {}),
        "versions": {name: version(name) for name in _VERSIONS},
        "seed": sources.seed,
        "command": shlex.join(command),
    }
