"""The one training loop. A strategy acts on it through four hooks: fit start, loss, epoch end, finalize.

Everything random is a function of seed, epoch, step, sample and rank, so that an interrupted run, taken up again from
its last checkpoint on the same machine with the same number of threads, ends with the very same weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor

from edgetl.base.errors import TrainingError
from edgetl.base.progress import Progress
from edgetl.base.storage import write_bytes
from edgetl.core.run import HISTORY
from edgetl.transfer import checkpoint
from edgetl.transfer.assembly import Job, Setup, assemble, enter_train_mode
from edgetl.transfer.checkpoint import State, epoch_file
from edgetl.transfer.loader import Varied, batch_indices, load
from edgetl.transfer.model import EVAL_BATCH
from edgetl.transfer.samples import MEMORY_LIMIT, SampleStore
from edgetl.transfer.scores import Scores
from edgetl.transfer.stores import store_of
from edgetl.transfer.strategies.base import StepContext
from edgetl.transfer.tasks import scored


def fit(fabric: Fabric, job: Job, progress: Progress) -> tuple[str, str] | None:
    """Train to the end, from the last checkpoint if there is one; every process runs this.

    Returns:
        None, or what went wrong and the remedy of a :class:`TrainingError`: exceptions do not survive the way back
        from a spawned process.
    """
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    setup = assemble(fabric, job)
    first = {"epoch": 0, "val": job.start.to_json()}
    state = checkpoint.restore(job.checkpoints, setup.parts) or State(best=job.start, history=[first])
    limit = MEMORY_LIMIT // fabric.world_size
    shown = progress if fabric.is_global_zero else _unseen
    safe = job.dataset.mirror_safe
    train, val = (store_of(job.definition, job.dataset.paths(name), limit, shown, safe) for name in ("train", "val"))
    samples = Varied(train, setup.learner.targets(job.dataset.labels("train"), setup.scale), setup.seed)
    schedule = setup.strategy.schedule
    try:
        while state.epoch < schedule.epochs and state.stale < schedule.patience:
            _train_epoch(setup, job, state, samples, shown)
            scores = evaluate(setup, val, job.dataset.labels("val"))
            setup.strategy.hooks.epoch_end(setup.network)
            _close_epoch(setup, job, state, scores)
    except TrainingError as error:
        return error.what, error.remedy
    return None


def _unseen(task: str, done: int, total: int, detail: str = "") -> None:
    """Only the first process reports."""


def _train_epoch(setup: Setup, job: Job, state: State, samples: Varied, progress: Progress) -> None:
    fabric, schedule = setup.fabric, setup.strategy.schedule
    lengths = samples.store.lengths
    batches = batch_indices(len(samples), job.settings.batch_size, setup.seed, state.epoch, lengths)
    steps = len(batches)
    enter_train_mode(setup)
    todo = load(samples, batches[state.step :], state.epoch, fabric.global_rank, fabric.world_size, job.workers)
    began = saved = time.monotonic()
    for inputs, targets in todo:
        rate = schedule.rate(state.epoch * steps + state.step, steps)
        _reseed(setup.seed, state.epoch, state.step, fabric.global_rank)
        done = (state.epoch * steps + state.step) / (schedule.epochs * steps)
        count = len(batches[state.step])
        totals = accumulate(setup, fabric.to_device(inputs), fabric.to_device(targets), count, done)
        due = time.monotonic() - saved >= job.checkpoint_seconds
        *sums, vote = _summed(fabric, [*totals, float(due and fabric.is_global_zero)])
        _refuse_divergence(sums[0], state, rate)
        _update(setup, rate)
        state.step += 1
        state.sums = [a + b for a, b in zip(state.sums, sums, strict=True)]
        now = time.monotonic()
        state.seconds, began = state.seconds + now - began, now
        if vote and fabric.is_global_zero:
            checkpoint.save(job.checkpoints, state, setup.parts)
        if vote:
            saved = time.monotonic()
        progress("training", state.epoch * steps + state.step, schedule.epochs * steps, _detail(setup, state))


def accumulate(
    setup: Setup, inputs: Mapping[str, Tensor], targets: Tensor, global_count: int, done: float
) -> list[float]:
    """Forward and backward of this process's share of a global batch.

    The gradients left in the model are those of the mean loss over the global batch, however it is divided.

    Args:
        setup: from :func:`assemble`.
        inputs: the network's, by name; their first axis is n.
        targets: as :class:`Learner` gives them, first axis n.
        global_count: samples in the global batch.
        done: the share of training that is over.

    Returns:
        loss times samples, samples right, samples: of this share.
    """
    fabric, n = setup.fabric, len(targets)
    outputs = setup.model(*(inputs[spec.name] for spec in setup.network.definition.tensors))
    context = StepContext(setup.network, inputs, targets, outputs, setup.class_counts, {}, setup.strategy.anchor, done)
    loss = setup.strategy.loss(context)
    # DDP averages over processes, whose shares of the batch may differ in size.
    fabric.backward(loss * (n * fabric.world_size / global_count))
    right = setup.learner.right(outputs.detach(), targets) if setup.learner.right else 0.0
    return [float(loss.detach()) * n, float(right), float(n)]


def _summed(fabric: Fabric, values: list[float]) -> list[float]:
    if fabric.world_size == 1:
        return values
    total = fabric.all_reduce(torch.tensor(values, device=fabric.device), reduce_op="sum")
    return [float(value) for value in total]


def _update(setup: Setup, rate: float) -> None:
    for group in setup.optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
    clip = setup.strategy.schedule.clip
    if clip:
        setup.fabric.clip_gradients(setup.model, setup.optimizer, max_norm=clip, error_if_nonfinite=False)
    setup.optimizer.step()
    setup.optimizer.zero_grad()


def _reseed(seed: int, epoch: int, step: int, rank: int) -> None:
    key = hashlib.sha256(f"step:{seed}:{epoch}:{step}:{rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(key[:8], "big"))


def _refuse_divergence(loss: float, state: State, rate: float) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss became {loss} in epoch {state.epoch + 1}, step {state.step + 1}, at learning rate {rate:.3g}",
            "lower --learning-rate or use --precision 32-true",
        )


def _detail(setup: Setup, state: State) -> str:
    loss, right, seen = state.sums
    accuracy = f", accuracy {right / seen:.3f}" if setup.learner.right else ""
    epoch = f"epoch {state.epoch + 1}/{setup.strategy.schedule.epochs}, loss {loss / seen:.3f}{accuracy}"
    return f"{epoch}, best val {state.best.value:.3f}"


def evaluate(setup: Setup, store: SampleStore, labels: npt.NDArray[Any]) -> Scores:
    """Score the model on a split, each process a share of it; under the training precision."""
    fabric, network = setup.fabric, setup.network
    mine = range(fabric.global_rank, len(store), fabric.world_size)
    network.eval()
    outputs = torch.zeros(len(store), network.width)
    with torch.inference_mode(), fabric.autocast():
        for indices, batch in store.batches(EVAL_BATCH, mine):
            outputs[list(indices)] = network.fed(batch, fabric.device).float().cpu()
    if fabric.world_size > 1:
        outputs = fabric.all_reduce(outputs.to(fabric.device), reduce_op="sum").cpu()
    return scored(setup.task, {network.output: setup.scale.applied(outputs.numpy())}, labels)


def _close_epoch(setup: Setup, job: Job, state: State, scores: Scores) -> None:
    schedule = setup.strategy.schedule
    loss, right, seen = state.sums
    rate = schedule.rate((state.epoch + 1) * state.step - 1, state.step)
    _refuse_divergence(scores.loss, state, rate)
    row = {"epoch": state.epoch + 1, "train_loss": loss / seen, "learning_rate": rate, "val": scores.to_json()}
    state.history.append({**row, "train_accuracy": right / seen} if setup.learner.right else row)
    state.epoch, state.step, state.sums, state.stale = state.epoch + 1, 0, [0.0, 0.0, 0.0], state.stale + 1
    if scores.rank > state.best.rank:
        state.best, state.best_epoch, state.stale = scores, state.epoch, 0
        if setup.fabric.is_global_zero:
            file = epoch_file(job.checkpoints, state.best_epoch)
            checkpoint.write_weights(file, setup.network.backbone.state_dict())
    if setup.fabric.is_global_zero:
        checkpoint.save(job.checkpoints, state, setup.parts)
        write_history(job.folder, state.history)


def write_history(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write ``history.jsonl``: a line for each epoch, the start first."""
    write_bytes(folder / HISTORY, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode())
