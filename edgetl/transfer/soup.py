"""Several finished runs as one: the mean of their weights, which ships as one network (Wortsman et al. 2022)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgetl.base.errors import RunError
from edgetl.base.progress import Progress, silent
from edgetl.base.storage import new_folder
from edgetl.core.run import WEIGHTS, Run, load_run, write_run
from edgetl.core.run_record import RunMetrics
from edgetl.core.val_outputs import write_val_outputs
from edgetl.inputs import input_of
from edgetl.tasks import find_task
from edgetl.transfer import checkpoint, statistics
from edgetl.transfer.averaging import blended
from edgetl.transfer.model import Deployable, load_model, val_outputs
from edgetl.transfer.scores import Scores, key
from edgetl.transfer.stores import store_of
from edgetl.transfer.tasks import scored
from edgetl.transfer.train import write_history

STRATEGY = "soup"
_HOST = torch.device("cpu")
#: What two runs may differ in that has no short words.
_UNSHOWN = ("input", "samples and splits", "the channels that were pruned")


@dataclass(frozen=True, eq=False)
class _Tasted:
    """A network, and what it answers to the validation samples."""

    network: Deployable
    outputs: Mapping[str, npt.NDArray[np.float32]]
    scores: Scores


@dataclass(frozen=True, eq=False)
class _Member:
    """A run, what it holds, and what it reaches on the validation samples."""

    run: Run
    tensors: Mapping[str, Tensor]
    tasted: _Tasted


def soup(runs: Sequence[str | Path], out: str | Path, *, uniform: bool = False, progress: Progress = silent) -> Run:
    """Average the weights of runs that differ in how they were trained, not in what on.

    The greedy soup begins with the best run on the validation samples and takes in each further one, the better ones
    first, if the mean is no worse there with it: it never is worse than its best member. Where the members' batch
    statistics differ, those of the mean are measured again on the training samples.

    Args:
        runs: folders of at least two finished runs of one backbone, task, input and division of the samples.
        out: folder of the new run.
        uniform: take all of them.
        progress: told of each run that is tried.

    Raises:
        RunError: they do not belong together, or ``out`` is not empty.
    """
    opened = [load_run(run) for run in runs]
    _refuse_strangers(opened)
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} is not empty", "choose another --out")
    members = sorted((_member(run) for run in opened), key=lambda m: m.tasted.scores.rank, reverse=True)
    taken, best = [members[0]], members[0].tasted
    for number, member in enumerate(members[1:], 1):
        progress("tasting", number, len(members) - 1)
        found = _tasted(_mean([*taken, member]), members[0].run)
        if uniform or found.scores.rank >= best.scores.rank:
            taken, best = [*taken, member], found
    return _written(folder, taken, members, best)


def _refuse_strangers(runs: Sequence[Run]) -> None:
    if len(runs) < 2:
        raise RunError("one run makes no soup", "name at least two")
    first = runs[0]
    adopted = [run.path for run in runs if run.adoption is not None]
    if adopted:
        raise RunError(f"{adopted[0]} was adopted", "name runs that finetune made")
    columns = [run.path for run in runs if "columns" in run.lineage]
    if columns:
        raise RunError(f"{columns[0]} has a column for each of its tasks", "name runs of one network")
    for run in runs[1:]:
        for what, one, other in (
            ("backbone", first.backbone, run.backbone),
            ("task", first.task, run.task),
            ("classes", list(first.classes), list(run.classes)),
            ("input", input_of(first).digest, input_of(run).digest),
            ("samples and splits", first.dataset.digest, run.dataset.digest),
            ("the channels that were pruned", first.lineage.get("pruned"), run.lineage.get("pruned")),
        ):
            if one != other:
                shown = "" if what in _UNSHOWN else f": {one} and {other}"
                remedy = "train them on the same data with the same --seed, and vary --learning-rate or --set"
                raise RunError(f"{first.path} and {run.path} differ in {what}{shown}", remedy)


def _member(run: Run) -> _Member:
    model = load_model(run)
    return _Member(run, model.backbone.state_dict(), _tasted(model, run))


def _tasted(model: Deployable, run: Run) -> _Tasted:
    outputs = val_outputs(model, run.dataset, _HOST)
    return _Tasted(model, outputs, scored(find_task(run.task), outputs, run.dataset.labels(run.dataset.measured)))


def _mean(members: Sequence[_Member]) -> Deployable:
    """A network with the mean of the members' values, in evaluation mode."""
    made = copy.deepcopy(members[0].tasted.network)
    made.backbone.load_state_dict(blended([member.tensors for member in members], [1 / len(members)] * len(members)))
    if any(
        not torch.equal(value, one.tensors[name])
        for name, value in statistics.values_of(made.backbone)
        for one in members
    ):
        statistics.measure(made, store_of(made.definition, members[0].run.dataset.paths("train")))
    made.eval()
    return made


def _written(folder: Path, taken: Sequence[_Member], members: Sequence[_Member], best: _Tasted) -> Run:
    first, task = members[0].run, find_task(members[0].run.task)
    told = [
        {"run": member.run.path.name, "weights_sha256": member.run.weights_sha256, "taken": member in taken,
         "val": member.tasted.scores.to_json()}
        for member in members
    ]  # fmt: skip
    with new_folder(folder) as partial:
        checkpoint.write_weights(partial / WEIGHTS, best.network.backbone.state_dict())
        write_val_outputs(partial, best.outputs)
        write_history(partial, [{"epoch": 0, "val": best.scores.to_json()}])
        write_run(
            partial,
            task=first.task,
            backbone=first.backbone,
            strategy=STRATEGY,
            dataset=first.dataset,
            input_record=input_of(first).to_json(),
            input_files=input_of(first).files,
            settings={**first.settings, "strategy": STRATEGY, "options": {}, "given": {}},
            metrics=RunMetrics(
                val=best.scores.to_json(),
                start=members[0].tasted.scores.to_json(),
                metric=key(task.metric),
                better=task.metrics[task.metric].better,
                best_epoch=0,
                epochs_run=0,
            ),
            lineage={**first.lineage, "members": told},
        )
    return load_run(folder)
