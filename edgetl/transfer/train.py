"""The one training loop. A strategy acts on it through four hooks: fit start, loss, epoch end, finalize.

Everything random is a function of seed, epoch, step, image and rank, so that an interrupted run, taken up again from
its last checkpoint on the same machine with the same number of threads, ends with the very same weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm.optim
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgetl.base.errors import EdgetlError, TrainingError
from edgetl.base.progress import Progress
from edgetl.base.storage import write_bytes
from edgetl.core.data import Dataset
from edgetl.core.run import CHECKPOINT, HISTORY
from edgetl.inputs.image import Preprocess
from edgetl.transfer import checkpoint, strategies
from edgetl.transfer.augment import transform_for
from edgetl.transfer.checkpoint import State, epoch_file
from edgetl.transfer.images import MEMORY_LIMIT, ImageStore
from edgetl.transfer.loader import Varied, batch_indices, load
from edgetl.transfer.model import EVAL_BATCH, Deployable
from edgetl.transfer.placement import keep_depthwise_wide
from edgetl.transfer.scores import Scores, score
from edgetl.transfer.strategies import Schedule, StepContext, Strategy
from edgetl.transfer.weights import build


@dataclass(frozen=True)
class Job:
    """One training run, as every process gets it.

    Attributes:
        folder: the run's folder; its checkpoint folder holds the start, ``epoch-0000.safetensors``.
        dataset: images, classes, splits.
        preprocess: the evaluation transform.
        settings: backbone, strategy (or the name of a baseline), epochs, learning_rate, batch_size, seed.
        start: validation scores of the start.
        workers: loading processes for each training process.
        checkpoint_seconds: longest time without a checkpoint.
    """

    folder: Path
    dataset: Dataset
    preprocess: Preprocess
    settings: Mapping[str, Any]
    start: Scores
    workers: int
    checkpoint_seconds: float

    @property
    def checkpoints(self) -> Path:
        """The checkpoint folder."""
        return self.folder / CHECKPOINT

    @property
    def strategy(self) -> Strategy:
        """The strategy with this run's schedule."""
        name = self.settings["strategy"]
        found = strategies.find_baseline(name) if name in strategies.BASELINES else strategies.find(name)
        return found.scheduled(self.settings["epochs"], self.settings["learning_rate"])


@dataclass(frozen=True)
class Setup:
    """What one process trains with; made by :func:`assemble`."""

    fabric: Fabric
    strategy: Strategy
    network: Deployable
    model: nn.Module
    optimizer: torch.optim.Optimizer
    class_counts: Tensor
    seed: int

    @property
    def parts(self) -> dict[str, Any]:
        """Everything with a state that a checkpoint must carry."""
        scaler = getattr(self.fabric._precision, "scaler", None)
        held = {"model": self.network.backbone, "optimizer": self.optimizer}
        return held if scaler is None else {**held, "scaler": scaler}


def assemble(fabric: Fabric, job: Job) -> Setup:
    """Build the start of training in this process: model, parameter groups, optimizer."""
    strategy, settings = job.strategy, job.settings
    labels = job.dataset.labels("train")
    backbone = build(settings["backbone"], len(job.dataset.classes), weights="none", preprocess=job.preprocess)
    checkpoint.load_weights(epoch_file(job.checkpoints, 0), backbone)
    network = Deployable(backbone, job.preprocess).to(memory_format=torch.channels_last)
    strategy.hooks.fit_start(network)
    if fabric.world_size > 1 and strategy.params.batch_norm == "train":
        if fabric.device.type == "cpu":
            raise EdgetlError("batch statistics over several CPU processes are not possible", "use --devices 1")
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if fabric.device.type == "cpu":
        keep_depthwise_wide(network)
    schedule = strategy.schedule
    optimizer = timm.optim.create_optimizer_v2(
        network.backbone,
        opt="adamw",
        lr=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        layer_decay=strategy.params.layer_decay,
    )
    model, optimizer = fabric.setup(network, optimizer)
    counts = np.bincount(labels, minlength=len(job.dataset.classes))
    on_device = torch.tensor(counts, dtype=torch.float32, device=fabric.device)
    return Setup(fabric, strategy, network, model, optimizer, on_device, settings["seed"])


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
    stores = {name: ImageStore(job.dataset.paths(name), job.preprocess, limit, shown) for name in ("train", "val")}
    transform = transform_for(job.preprocess, job.dataset.mirror_safe)
    images = Varied(stores["train"], job.dataset.labels("train"), transform, setup.seed)
    schedule = setup.strategy.schedule
    try:
        while state.epoch < schedule.epochs and state.stale < schedule.patience:
            _train_epoch(setup, job, state, images, shown)
            scores = evaluate(setup, stores["val"], job.dataset.labels("val"))
            setup.strategy.hooks.epoch_end(setup.network)
            _close_epoch(setup, job, state, scores)
    except TrainingError as error:
        return error.what, error.remedy
    return None


def _unseen(task: str, done: int, total: int, detail: str = "") -> None:
    """Only the first process reports."""


def _train_epoch(setup: Setup, job: Job, state: State, images: Varied, progress: Progress) -> None:
    fabric, schedule = setup.fabric, setup.strategy.schedule
    batches = batch_indices(len(images), job.settings["batch_size"], setup.seed, state.epoch)
    steps = len(batches)
    enter_train_mode(setup)
    todo = load(images, batches[state.step :], state.epoch, fabric.global_rank, fabric.world_size, job.workers)
    began = saved = time.monotonic()
    for picture, label in todo:
        rate = schedule.rate(state.epoch * steps + state.step, steps)
        _reseed(setup.seed, state.epoch, state.step, fabric.global_rank)
        done = (state.epoch * steps + state.step) / (schedule.epochs * steps)
        count = len(batches[state.step])
        totals = accumulate(setup, fabric.to_device(picture), fabric.to_device(label), count, done)
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
        progress("training", state.epoch * steps + state.step, schedule.epochs * steps, _detail(state, schedule))


def accumulate(setup: Setup, images: Tensor, labels: Tensor, global_count: int, done: float) -> list[float]:
    """Forward and backward of this process's share of a global batch.

    The gradients left in the model are those of the mean loss over the global batch, however it is divided.

    Args:
        setup: from :func:`assemble`.
        images: uint8, shape (n, height, width, 3).
        labels: int64, shape (n,).
        global_count: images in the global batch.
        done: the share of training that is over.

    Returns:
        loss times images, images right, images: of this share.
    """
    fabric = setup.fabric
    logits = setup.model(images)
    context = StepContext(setup.network, images, labels, logits, setup.class_counts, {}, setup.strategy.anchor, done)
    loss = setup.strategy.loss(context)
    # DDP averages over processes, whose shares of the batch may differ in size.
    fabric.backward(loss * (len(labels) * fabric.world_size / global_count))
    right = (logits.detach().argmax(1) == labels).sum()
    return [float(loss.detach()) * len(labels), float(right), float(len(labels))]


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


def enter_train_mode(setup: Setup) -> None:
    """Training mode, but for the batch statistics where the strategy keeps them."""
    setup.network.train()
    if setup.strategy.params.batch_norm == "frozen":
        for module in setup.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _reseed(seed: int, epoch: int, step: int, rank: int) -> None:
    key = hashlib.sha256(f"step:{seed}:{epoch}:{step}:{rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(key[:8], "big"))


def _refuse_divergence(loss: float, state: State, rate: float) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss became {loss} in epoch {state.epoch + 1}, step {state.step + 1}, at learning rate {rate:.3g}",
            "lower --learning-rate or use --precision 32-true",
        )


def _detail(state: State, schedule: Schedule) -> str:
    loss, right, seen = state.sums
    epoch = f"epoch {state.epoch + 1}/{schedule.epochs}, loss {loss / seen:.3f}, accuracy {right / seen:.3f}"
    return f"{epoch}, best val {state.best.balanced_accuracy:.3f}"


def evaluate(setup: Setup, store: ImageStore, labels: np.ndarray[Any, np.dtype[np.int64]]) -> Scores:
    """Score the model on a split, each process a share of it; under the training precision."""
    fabric = setup.fabric
    mine = range(fabric.global_rank, len(store), fabric.world_size)
    setup.network.eval()
    logits = torch.zeros(len(store), len(setup.class_counts))
    rows = torch.tensor(list(mine), dtype=torch.int64)
    with torch.inference_mode(), fabric.autocast():
        parts = [setup.network(fabric.to_device(torch.from_numpy(b))) for b in store.batches(EVAL_BATCH, mine)]
    if parts:
        logits[rows] = torch.cat(parts).float().cpu()
    if fabric.world_size > 1:
        logits = fabric.all_reduce(logits.to(fabric.device), reduce_op="sum").cpu()
    return score(logits.numpy(), labels)


def _close_epoch(setup: Setup, job: Job, state: State, scores: Scores) -> None:
    schedule = setup.strategy.schedule
    loss, right, seen = state.sums
    rate = schedule.rate((state.epoch + 1) * state.step - 1, state.step)
    _refuse_divergence(scores.loss, state, rate)
    row = {"epoch": state.epoch + 1, "train_loss": loss / seen, "train_accuracy": right / seen, "learning_rate": rate}
    state.history.append({**row, "val": scores.to_json()})
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
