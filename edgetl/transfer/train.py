"""The one training loop. A strategy acts on it by what it prepares, its loss terms, and what it finalizes.

Everything random is a function of seed, epoch, step, sample and rank, so that an interrupted run, taken up again from
its last checkpoint on the same machine with the same number of threads, ends with the very same weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgetl.base.errors import TrainingError
from edgetl.base.progress import Progress
from edgetl.base.storage import write_bytes
from edgetl.core.run import HISTORY
from edgetl.transfer import checkpoint, statistics
from edgetl.transfer.ahead import shortened
from edgetl.transfer.assembly import Job, Setup, assemble, enter_train_mode, forwarded
from edgetl.transfer.checkpoint import State, epoch_file
from edgetl.transfer.curves import recorder
from edgetl.transfer.feed import Feed, feed_of
from edgetl.transfer.mixing import mixed
from edgetl.transfer.model import eval_batch, gathered
from edgetl.transfer.placement import reproducible
from edgetl.transfer.samples import MEMORY_LIMIT, SampleStore
from edgetl.transfer.scores import Scores
from edgetl.transfer.stores import store_of
from edgetl.transfer.strategies.base import StepContext, StreamBatch
from edgetl.transfer.tasks import scored
from edgetl.transfer.validators import judged

NO_STREAMS: Mapping[str, StreamBatch] = {}
#: Steps after which the host reads how training goes, by the kind of device. It waits for a GPU to do so, which is at
#: work on later steps otherwise.
READ_EVERY = {"cpu": 1, "cuda": 16}

#: Samples that batch norms are measured on after an epoch.
SETTLED = 512
#: Epochs without a better score after which training ends where the start is right on all of a few validation samples.
SATURATED = 3


def fit(fabric: Fabric, job: Job, progress: Progress) -> tuple[str, str] | None:
    """Train to the end, from the last checkpoint if there is one; every process runs this.

    Returns:
        None, or what went wrong and the remedy of a :class:`TrainingError`: exceptions do not survive the way back
        from a spawned process.
    """
    with reproducible(fabric.device):
        return _fit(fabric, job, progress)


def _fit(fabric: Fabric, job: Job, progress: Progress) -> tuple[str, str] | None:
    setup = assemble(fabric, job)
    first = {"epoch": 0, "val": job.start.to_json()}
    state = checkpoint.restore(job.checkpoints, setup.parts) or State(best=job.start, history=[first])
    shown = progress if fabric.is_global_zero else _unseen
    setup, ahead = shortened(setup, job, shown)
    feed = feed_of(setup, job, shown, ahead.get("train"))
    limit = MEMORY_LIMIT // fabric.world_size
    val = ahead.get("val") or store_of(job.definition, job.dataset.paths("val"), limit, shown)
    apart = _judged_store(setup, job, limit, shown)
    schedule = setup.strategy.schedule
    patience = min(schedule.patience, SATURATED) if job.start.saturated else schedule.patience
    log = job.log if fabric.is_global_zero else None
    try:
        with recorder(log, job.folder, job.settings.to_json()) as record:
            record(state.history)
            while state.epoch < schedule.epochs and state.stale < patience:
                _train_epoch(setup, job, state, feed, shown)
                _settle(setup, feed)
                scores = evaluate(setup, val, job.dataset.labels("val"), apart)
                _close_epoch(setup, job, state, scores)
                record(state.history)
    except TrainingError as error:
        return error.what, error.remedy
    return None


def _settle(setup: Setup, feed: Feed) -> None:
    """Measure the statistics that batch norms end with on the weights as they are now.

    What training leaves is an average over weights that were other ones: with steps as large as a start from random
    weights takes, a network that had learned was right on 12 % of the validation samples at a loss of 2,953.
    """
    kind = setup.strategy.params.batch_norm
    if kind != "frozen" and statistics.norms_of(setup.network.backbone):
        store = (feed.beside["target"] if kind == "adapt" else feed.main).samples.store
        statistics.measure(setup.network, store, setup.fabric.device, most=SETTLED)


def _judged_store(setup: Setup, job: Job, limit: int, progress: Progress) -> SampleStore | None:
    """Target samples that the epoch is chosen on, where it is."""
    judged, validator = job.streams.judged, setup.validator
    if judged is None or validator is None or validator.value is None:
        return None
    return store_of(job.definition, judged.paths, limit, progress)


def _unseen(task: str, done: int, total: int, detail: str = "") -> None:
    """Only the first process reports."""


def _train_epoch(setup: Setup, job: Job, state: State, feed: Feed, progress: Progress) -> None:
    fabric, schedule = setup.fabric, setup.strategy.schedule
    batches = feed.batches(state.epoch)
    steps, before, every = len(batches), state.epoch * len(batches), READ_EVERY[fabric.device.type]
    enter_train_mode(setup)
    unread: list[Tensor] = []
    began = saved = time.monotonic()
    for inputs, targets, streams in feed.epoch(batches, state.epoch, state.step):
        step = state.step + len(unread)
        rate, done = schedule.rate(before + step, steps), (before + step) / (schedule.epochs * steps)
        reseed(setup.seed, state.epoch, step, fabric.global_rank)
        unread.append(accumulate(setup, inputs, targets, len(batches[step]), done, streams))
        if (step + 1) % every and step + 1 < steps:
            update(setup, rate, state.epoch)
            continue
        due = time.monotonic() - saved >= job.checkpoint_seconds
        vote = _read(setup, state, unread, steps, due)
        update(setup, rate, state.epoch)
        state.step, unread = step + 1, []
        now = time.monotonic()
        state.seconds, began = state.seconds + now - began, now
        if vote and fabric.is_global_zero:
            checkpoint.save(job.checkpoints, state, setup.parts)
        if vote:
            saved = time.monotonic()
        progress("training", before + state.step, schedule.epochs * steps, _detail(setup, state))


def accumulate(
    setup: Setup,
    inputs: Mapping[str, Tensor],
    targets: Tensor,
    global_count: int,
    done: float,
    streams: Mapping[str, StreamBatch] = NO_STREAMS,
) -> Tensor:
    """Forward and backward of this process's share of a global batch; the host does not wait for the device.

    The gradients left in the model are those of the mean loss over the global batch, however it is divided.

    Args:
        setup: from :func:`assemble`.
        inputs: the network's, by name; their first axis is n.
        targets: as :class:`Learner` gives them, first axis n.
        global_count: samples in the global batch.
        done: the share of training that is over.
        streams: this process's share of each stream's batch, as many samples as of the main one.

    Returns:
        loss times samples, samples right, samples: of this share, float64 (3,), on the device.
    """
    fabric, n = setup.fabric, len(targets)
    mix = mixed(inputs, setup.strategy.mix) if setup.strategy.mix else None
    inputs = inputs if mix is None else mix.inputs
    names = [spec.name for spec in setup.network.definition.tensors]

    def feed(module: nn.Module, given: Mapping[str, Tensor]) -> Tensor:
        with fabric.autocast():
            found: Tensor = module(*(given[name] for name in names))
        return found.float()

    def observe(given: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        found = feed(setup.network, given)
        assert setup.seen.last is not None
        return setup.seen.last, found

    context = StepContext(
        model=setup.network,
        inputs=inputs,
        targets=targets,
        outputs=forwarded(setup, inputs),
        class_counts=setup.class_counts,
        streams=streams,
        anchor=setup.anchor,
        done=done,
        labels=setup.task.labels,
        feed=feed,
        features=setup.seen.last,
        observe=observe,
        owned=setup.owned,
    )
    outputs = context.outputs
    loss = setup.strategy.loss(context)
    if mix is not None:
        partner = setup.strategy.loss(replace(context, targets=targets[mix.partners]))
        loss = mix.share * loss + (1 - mix.share) * partner
    # DDP averages over processes, whose shares of the batch may differ in size.
    fabric.backward(loss * (n * fabric.world_size / global_count))
    each = loss.detach().double()
    right = setup.learner.right(outputs.detach(), targets) if setup.learner.right else torch.zeros_like(each)
    return torch.stack([each * n, right.double(), torch.full_like(each, n)])


def _read(setup: Setup, state: State, unread: list[Tensor], steps: int, due: bool) -> bool:
    """Add up what the last steps came to, over all processes.

    Returns:
        whether the first process asks for a checkpoint, because it is due.

    Raises:
        TrainingError: the loss of one of them is not finite.
    """
    fabric, schedule = setup.fabric, setup.strategy.schedule
    told = torch.stack([*unread, torch.full_like(unread[0], float(due and fabric.is_global_zero))])
    if fabric.world_size > 1:
        told = fabric.all_reduce(told, reduce_op="sum")
    *rows, votes = told.tolist()
    for step, row in enumerate(rows, state.step):
        _refuse_divergence(row[0], state.epoch, step, schedule.rate(state.epoch * steps + step, steps))
        state.sums = [a + b for a, b in zip(state.sums, row, strict=True)]
    return bool(votes[0])


def update(setup: Setup, rate: float, epoch: int) -> None:
    """One step of the optimizer, at the head's learning rate; what does not train in that epoch stays."""
    for group in setup.optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
    _leave_frozen(setup, epoch)
    clip = setup.strategy.schedule.clip
    if clip:
        setup.fabric.clip_gradients(setup.model, setup.optimizer, max_norm=clip, error_if_nonfinite=False)
    setup.optimizer.step()
    setup.optimizer.zero_grad()
    if setup.average is not None:
        setup.average.update()


def _leave_frozen(setup: Setup, epoch: int) -> None:
    """Drop the gradients of layers that do not train yet: a function of the epoch, however often it was interrupted."""
    unfreeze = setup.strategy.params.unfreeze
    if not unfreeze:
        return
    reached = int(epoch / unfreeze)
    for value in setup.network.backbone.parameters():
        if setup.depths.get(id(value), 0) > reached:
            value.grad = None


def reseed(seed: int, epoch: int, step: int, rank: int) -> None:
    """Make whatever a step draws at random a function of these."""
    key = hashlib.sha256(f"step:{seed}:{epoch}:{step}:{rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(key[:8], "big"))


def _refuse_divergence(loss: float, epoch: int, step: int, rate: float) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss became {loss} in epoch {epoch + 1}, step {step + 1}, at learning rate {rate:.3g}",
            "lower --learning-rate or use --precision 32-true",
        )


def _detail(setup: Setup, state: State) -> str:
    loss, right, seen = state.sums
    accuracy = f", accuracy {right / seen:.3f}" if setup.learner.right else ""
    epoch = f"epoch {state.epoch + 1}/{setup.strategy.schedule.epochs}, loss {loss / seen:.3f}{accuracy}"
    return f"{epoch}, best val {state.best.value:.3f}"


def evaluate(setup: Setup, store: SampleStore, labels: npt.NDArray[Any], apart: SampleStore | None = None) -> Scores:
    """Score the model on a split, and by what its validator finds on samples apart; under the training precision."""
    told = setup.scale.applied(_answers(setup, store))
    scores = scored(setup.task, setup.network.named(told), labels)
    return scores if apart is None else judged(scores, setup.validator, _answers(setup, apart), (told, labels))


def _answers(setup: Setup, store: SampleStore) -> npt.NDArray[np.float32]:
    """What the model's head gives for samples, each process asked for a share of them; all processes get all."""
    fabric, network = setup.fabric, setup.network
    mine = range(fabric.global_rank, len(store), fabric.world_size)
    network.eval()
    outputs = torch.zeros(len(store), network.width)
    batches = store.batches(eval_batch(network.definition, fabric.device), mine)
    averaged = nullcontext() if setup.average is None else setup.average.applied()
    with averaged, torch.inference_mode(), fabric.autocast():
        for order, values in gathered((rows, setup.fed(batch).float()) for rows, batch in batches):
            outputs[order] = values
    if fabric.world_size > 1:
        outputs = fabric.all_reduce(outputs.to(fabric.device), reduce_op="sum").cpu()
    found: npt.NDArray[np.float32] = outputs.numpy()
    return found


def _close_epoch(setup: Setup, job: Job, state: State, scores: Scores) -> None:
    schedule = setup.strategy.schedule
    loss, right, seen = state.sums
    rate = schedule.rate((state.epoch + 1) * state.step - 1, state.step)
    _refuse_divergence(scores.loss, state.epoch, state.step, rate)
    row = {"epoch": state.epoch + 1, "train_loss": loss / seen, "learning_rate": rate, "val": scores.to_json()}
    state.history.append({**row, "train_accuracy": right / seen} if setup.learner.right else row)
    state.epoch, state.step, state.sums, state.stale = state.epoch + 1, 0, [0.0, 0.0, 0.0], state.stale + 1
    if scores.rank > state.best.rank or setup.strategy.keep == "last":
        state.best, state.best_epoch, state.stale = scores, state.epoch, 0
        if setup.fabric.is_global_zero:
            file = epoch_file(job.checkpoints, state.best_epoch)
            checkpoint.write_weights(file, setup.kept)
    if setup.fabric.is_global_zero:
        checkpoint.save(job.checkpoints, state, setup.parts)
        write_history(job.folder, state.history)


def write_history(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Write ``history.jsonl``: a line for each epoch, the start first."""
    write_bytes(folder / HISTORY, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode())
