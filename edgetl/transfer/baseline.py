"""The baseline of a run: what the same images, splits, seed and preprocessing give without the transfer.

A finished run gets it afterwards, so that the run's own weights, settings and digest are those of a run without one.
While it is unfinished it is trained in ``checkpoint/baseline-KIND``, a folder with a checkpoint of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edgetl.base.errors import EdgetlError, TrainingError
from edgetl.base.progress import Progress
from edgetl.base.storage import read_json, write_json
from edgetl.core.run import BASELINE, CHECKPOINT, Run, record_baseline
from edgetl.transfer import checkpoint, strategies, train
from edgetl.transfer import weights as sources
from edgetl.transfer.checkpoint import State, epoch_file
from edgetl.transfer.folder import tidy
from edgetl.transfer.launch import launch
from edgetl.transfer.model import Deployable, val_scores
from edgetl.transfer.placement import Placement
from edgetl.transfer.plan import Plan
from edgetl.transfer.scores import Scores
from edgetl.transfer.start import with_head

START = "start.json"


def check(order: Plan, kind: str) -> None:
    """Refuse, before any work, a baseline that cannot be or that would say nothing.

    Raises:
        EdgetlError: an unknown kind, a linear probe measured against itself, or batches of one image from scratch.
    """
    strategies.find_baseline(kind)
    if kind == "probe" and order.settings["strategy"] == "linear-probe":
        raise EdgetlError("a linear probe cannot be measured against a linear probe", "use --baseline scratch")
    if kind == "scratch" and order.settings["batch_size"] < 2:
        raise EdgetlError(
            "batch norm cannot be trained from scratch on one image a step", "give --batch-size 2 or more"
        )


def add(order: Plan, run: Run, kind: str, progress: Progress) -> Run:
    """Train the baseline that is asked for and enter it in the run; a run that has it is returned as it is.

    Raises:
        TrainingError: training from scratch diverged; the run stays finished, without a baseline.
        EdgetlError: pretrained weights that are missing, or a folder that cannot be written.
    """
    if run.baseline is not None and run.baseline["kind"] == kind:
        return run

    def told(task: str, done: int, total: int, detail: str = "") -> None:
        progress(f"baseline: {task}", done, total, detail)

    model, record = (_scratch if kind == "scratch" else _probe)(order, run, told)
    device = order.placement.device
    model.to(device, memory_format=torch.channels_last)
    scores = val_scores(model, run.dataset, device, progress=told)
    entry = {"kind": kind, **record, "metrics": {"val": scores.to_json(), **record["metrics"]}}
    if run.baseline is not None:
        # A process killed between the file and the manifest must leave a run whose hashes hold.
        record_baseline(run.path, None)
    checkpoint.write_weights(run.path / BASELINE, model.backbone.state_dict())
    return record_baseline(run.path, entry)


def _probe(order: Plan, run: Run, progress: Progress) -> tuple[Deployable, dict[str, Any]]:
    strategy = strategies.find_baseline("probe")
    model, _ = with_head(order, run.dataset, strategy.head, progress)
    settings = {**order.settings, "strategy": "probe", "epochs": 0, "learning_rate": 0.0, "details": strategy.to_json()}
    return model, {"settings": settings, "metrics": {}}


def _scratch(order: Plan, run: Run, progress: Progress) -> tuple[Deployable, dict[str, Any]]:
    settings, placement = _scratch_settings(order), _scratch_placement(order)
    folder = order.checkpoints / "baseline-scratch"
    start = _random_start(order, run, folder, progress)
    job = train.Job(folder, run.dataset, order.preprocess, settings, start, order.workers, order.checkpoint_seconds)
    failure = launch(placement, job, progress)
    if failure is not None:
        # Taking it up again would diverge again.
        tidy(order.out)
        raise TrainingError(f"baseline from scratch: {failure[0]}", "use --baseline probe")
    state = checkpoint.restore(job.checkpoints, {}) or State(best=start)
    body = sources.build(order.backbone.name, len(run.classes), weights="none", preprocess=order.preprocess)
    checkpoint.load_weights(epoch_file(job.checkpoints, state.best_epoch), body)
    model = Deployable(job.strategy.hooks.finalize(body), order.preprocess).eval()
    done = {"best_epoch": state.best_epoch, "epochs_run": state.epoch}
    return model, {"settings": settings, "metrics": done}


def _scratch_settings(order: Plan) -> Mapping[str, Any]:
    # A strategy without gradient steps has no budget to equal; then it is fine-tuning's.
    strategy = strategies.find_baseline("scratch").scheduled(order.settings["epochs"] or None, None)
    return {
        **order.settings,
        "strategy": "scratch",
        "epochs": strategy.schedule.epochs,
        "learning_rate": strategy.schedule.learning_rate,
        "weights": "none",
        "weights_sha256": None,
        "devices": _scratch_placement(order).devices,
        "details": strategy.to_json(),
    }


def _scratch_placement(order: Plan) -> Placement:
    """Batch statistics cannot be shared by processes on the CPU, so there one process trains."""
    return replace(order.placement, devices=1) if order.placement.accelerator == "cpu" else order.placement


def _random_start(order: Plan, run: Run, folder: Path, progress: Progress) -> Scores:
    """Leave the architecture with seeded random weights as epoch 0; done once."""
    record = folder / START
    if record.is_file():
        return Scores(**read_json(record)["val"])
    torch.manual_seed(order.settings["seed"])
    body = sources.build(order.backbone.name, len(run.classes), weights="none", preprocess=order.preprocess)
    model = Deployable(body, order.preprocess).eval().to(memory_format=torch.channels_last)
    scores = val_scores(model, run.dataset, torch.device("cpu"), progress=progress)
    checkpoint.write_weights(epoch_file(folder / CHECKPOINT, 0), body.state_dict())
    write_json(record, {"val": scores.to_json()})
    return scores
