"""The baseline of a run: what the same samples, splits, seed and preprocessing give without the transfer.

A finished run gets it afterwards, so that the run's own weights, settings and digest are those of a run without one.
While it is unfinished it is trained in ``checkpoint/baseline-KIND``, a folder with a checkpoint of its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from edgetl.base.errors import EdgetlError, TrainingError
from edgetl.base.progress import Progress
from edgetl.base.storage import read_json, write_json
from edgetl.core.run import BASELINE, CHECKPOINT, Run, record_baseline
from edgetl.core.run_record import Baseline, RunMetrics
from edgetl.core.tensors import packed
from edgetl.core.val_outputs import BASELINE_OUTPUTS, write_val_outputs
from edgetl.transfer import checkpoint, strategies
from edgetl.transfer import weights as sources
from edgetl.transfer.assembly import Job, finished
from edgetl.transfer.checkpoint import State, epoch_file
from edgetl.transfer.classifier import head_of
from edgetl.transfer.folder import tidy
from edgetl.transfer.launch import launch
from edgetl.transfer.model import Deployable, head_width, network_for, val_outputs
from edgetl.transfer.placement import Placement
from edgetl.transfer.plan import Plan
from edgetl.transfer.scores import Scores
from edgetl.transfer.settings import Settings
from edgetl.transfer.start import with_head
from edgetl.transfer.tasks import scored

START = "start.json"


def check(order: Plan, kind: str) -> None:
    """Refuse, before any work, a baseline that cannot be or that would say nothing.

    Raises:
        EdgetlError: an unknown kind, a linear probe measured against itself, a start from scratch measured against
            itself, batches of one sample from scratch, or tasks that the data have no labels of.
    """
    strategies.find_baseline(kind)
    if order.strategy.column is not None:
        what = "no baseline learns the earlier run's tasks, of which there are no samples to train on"
        raise EdgetlError(what, "leave --baseline out, and measure against a run of the new data by itself")
    probed = order.settings.strategy == "linear-probe"
    if kind == "probe" and probed:
        other = "--baseline scratch" if order.backbone.pretrained else "--strategy fine-tune"
        raise EdgetlError("a linear probe cannot be measured against a linear probe", f"use {other}")
    if kind == "scratch" and not order.backbone.pretrained:
        remedy = "leave --baseline out" if probed else "use --baseline probe"
        raise EdgetlError(f"the backbone '{order.backbone.name}' starts from scratch itself", remedy)
    if kind == "scratch" and order.settings.batch_size == 1:
        raise EdgetlError(
            "batch norm cannot be trained from scratch on one sample a step", "give --batch-size 2 or more"
        )


def add(order: Plan, run: Run, kind: str, progress: Progress) -> Run:
    """Train the baseline that is asked for and enter it in the run; a run that has it is returned as it is.

    Raises:
        TrainingError: training from scratch diverged; the run stays finished, without a baseline.
        EdgetlError: pretrained weights that are missing, or a folder that cannot be written.
    """
    if run.baseline is not None and run.baseline.kind == kind:
        return run

    def told(task: str, done: int, total: int, detail: str = "") -> None:
        progress(f"baseline: {task}", done, total, detail)

    model, settings, state = (_scratch if kind == "scratch" else _probe)(order, run, told)
    order.learner.scale(run.dataset.labels("train")).fold(head_of(model.backbone)[1])
    device = order.placement.device
    model.to(device, memory_format=torch.channels_last)
    outputs = val_outputs(model, run.dataset, device, progress=told)
    metrics = RunMetrics(
        val=scored(order.task, outputs, run.dataset.labels("val")).to_json(),
        metric=run.metrics.metric,
        better=run.metrics.better,
        best_epoch=state.best_epoch if state else 0,
        epochs_run=state.epoch if state else 0,
    )
    if run.baseline is not None:
        # A process killed between the file and the manifest must leave a run whose hashes hold.
        record_baseline(run.path, None)
    checkpoint.write_weights(run.path / BASELINE, model.backbone.state_dict())
    write_val_outputs(run.path, outputs, BASELINE_OUTPUTS)
    entry = Baseline(kind="scratch" if kind == "scratch" else "probe", metrics=metrics, settings=settings.to_json())
    return record_baseline(run.path, entry)


def _probe(order: Plan, run: Run, progress: Progress) -> tuple[Deployable, Settings, State | None]:
    strategy = strategies.find_baseline("probe")
    whole = replace(order, strategy=replace(order.strategy, rebuild=None))
    model, _, _ = with_head(whole, run.dataset, strategy.head, progress)
    none = replace(
        order.settings,
        strategy="probe",
        epochs=0,
        learning_rate=0.0,
        details=strategy.to_json(),
        options={},
        given={},
    )
    return model, none, None


def _scratch(order: Plan, run: Run, progress: Progress) -> tuple[Deployable, Settings, State | None]:
    settings, placement = _scratch_settings(order), _scratch_placement(order)
    folder = order.checkpoints / "baseline-scratch"
    start = _random_start(order, run, folder, progress)
    job = Job(folder, run.dataset, order.input, settings, start, order.workers, order.checkpoint_seconds)
    failure = launch(placement, job, progress)
    if failure is not None:
        # Taking it up again would diverge again.
        tidy(order.out)
        raise TrainingError(f"baseline from scratch: {failure[0]}", "use --baseline probe")
    state = checkpoint.restore(job.checkpoints, {}) or State(best=start)
    model, _ = finished(job, state.best_epoch)
    return model.eval(), settings, state


def _scratch_settings(order: Plan) -> Settings:
    # A strategy without gradient steps has no budget to equal; then it is fine-tuning's.
    epochs = order.settings.epochs or None
    strategy = strategies.resolve("scratch", order.backbone, order.learner.terms, epochs, None)
    return replace(
        order.settings,
        strategy="scratch",
        epochs=strategy.schedule.epochs,
        learning_rate=strategy.schedule.learning_rate,
        weights="none",
        weights_sha256=None,
        devices=_scratch_placement(order).devices,
        details=strategy.to_json(),
        options={},
        given={},
    )


def _scratch_placement(order: Plan) -> Placement:
    """Batch statistics cannot be shared by processes on the CPU, so there one process trains."""
    return replace(order.placement, devices=1) if order.placement.accelerator == "cpu" else order.placement


def _random_start(order: Plan, run: Run, folder: Path, progress: Progress) -> Scores:
    """Leave the architecture with seeded random weights as epoch 0; done once."""
    record = folder / START
    if record.is_file():
        return Scores(**read_json(record)["val"])
    torch.manual_seed(order.settings.seed)
    body = _untrained(order, run)
    model = network_for(order.task, run.classes, body, order.input).eval().to(memory_format=torch.channels_last)
    outputs = val_outputs(model, run.dataset, torch.device("cpu"), progress=progress)
    scale = order.learner.scale(run.dataset.labels("train"))
    applied = model.named(scale.applied(packed(outputs)))
    scores = scored(order.task, applied, run.dataset.labels("val"))
    checkpoint.write_weights(epoch_file(folder / CHECKPOINT, 0), body.state_dict())
    write_json(record, {"val": scores.record()})
    return scores


def _untrained(order: Plan, run: Run) -> nn.Module:
    width = head_width(order.task, run.classes)
    return sources.build(order.backbone.name, width, weights="none", definition=order.input)
