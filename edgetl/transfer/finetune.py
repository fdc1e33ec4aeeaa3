"""The first stage: from labelled images to a finished run."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing

from edgetl.data import SHARES, SPLITS, Dataset
from edgetl.errors import DataError, EdgetlError, TrainingError
from edgetl.extras import version
from edgetl.preprocess import Preprocess
from edgetl.progress import Progress, silent
from edgetl.run import CHECKPOINT, WEIGHTS, Run, write_run
from edgetl.storage import read_json, sha256_file, write_json
from edgetl.transfer import backbones, checkpoint, features, folder, heads, strategies, train, weights
from edgetl.transfer.checkpoint import State, epoch_file
from edgetl.transfer.images import ImageStore
from edgetl.transfer.model import Deployable
from edgetl.transfer.placement import Placement, place
from edgetl.transfer.scores import Scores, score

START = "start.json"
VERSIONS = ("edgetl", "torch", "torchvision", "timm", "lightning_fabric", "sklearn", "numpy", "PIL")


@dataclass(frozen=True)
class Plan:
    """A checked order: everything resolved, nothing done yet."""

    data: str | Path
    out: Path
    strategy: strategies.Strategy
    backbone: backbones.Backbone
    source: weights.WeightsSource
    preprocess: Preprocess
    placement: Placement
    settings: Mapping[str, Any]
    workers: int
    checkpoint_seconds: float

    @property
    def checkpoints(self) -> Path:
        """The run's checkpoint folder."""
        return self.out / CHECKPOINT


def finetune(
    data: str | Path,
    out: str | Path,
    *,
    backbone: str = "efficientnet_lite0",
    strategy: str = "fine-tune",
    epochs: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    learning_rate: float | None = None,
    image_size: int | None = None,
    weights: str | Path | None = None,
    devices: int = 1,
    accelerator: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    shares: Mapping[str, float] | None = None,
    checkpoint_seconds: float = 60.0,
    fresh: bool = False,
    progress: Progress = silent,
) -> Run:
    """Transfer a pretrained backbone to labelled images.

    Interrupted at any moment, the same call goes on from the last checkpoint and ends with the same weights (same
    machine, same number of threads). A finished run with the same settings is returned as it is.

    Args:
        data: a folder with a folder for each class, a CSV file with ``path,label[,split]``, or ``"digits"``.
        out: the run's folder; new, empty, or of the same settings.
        backbone: as in ``edgetl backbones``, or ``timm/NAME`` or ``torchvision/NAME``.
        strategy: as in ``edgetl strategies``.
        epochs: None for the strategy's own; means nothing to a strategy without gradient steps.
        seed: of splits, order, augmentation and everything else drawn at random.
        batch_size: images in a gradient step, over all devices together.
        learning_rate: the head's highest; None for the strategy's own.
        image_size: height and width in pixels; None for the backbone's own.
        weights: None for the backbone's pretrained ones, a ``.safetensors`` or ``.pth`` file, or ``"none"``.
        devices: processes, one for each GPU or, on the CPU, for a share of the cores.
        accelerator: "auto", "cpu" or "cuda".
        precision: "auto", "32-true", "bf16-mixed" or "16-mixed"; the finished weights are float32.
        workers: image loading processes for each training process; None chooses; changes the speed only.
        shares: the part of each class that each split gets; None for :data:`edgetl.data.SHARES`.
        checkpoint_seconds: longest time without a checkpoint.
        fresh: replace a run that stands in ``out``.
        progress: told of each step.

    Raises:
        UnknownNameError: no such backbone or strategy.
        DataError: images or splits that cannot be used, or that changed while the run was unfinished.
        RunError: ``out`` holds a run with other settings.
        TrainingError: the loss is no longer finite.
        EdgetlError: any other bad argument, weights that are missing, or a folder that cannot be written.
    """
    _check_numbers(epochs, batch_size, learning_rate, devices, workers, checkpoint_seconds)
    plan = _plan(
        data, out, backbone, strategy, epochs, seed, batch_size, learning_rate, image_size, weights,
        place(accelerator, devices, precision), shares or SHARES, workers, checkpoint_seconds,
    )  # fmt: skip
    finished = folder.enter(plan.out, plan.settings, fresh)
    dataset = folder.dataset_of(plan.out, data, seed, plan.settings["shares"], progress)
    if finished is not None:
        folder.tidy(plan.out)
        return finished
    start = _start(plan, dataset, progress)
    _train(plan, dataset, start, progress)
    return _finish(plan, dataset, start)


def _check_numbers(
    epochs: int | None,
    batch_size: int,
    learning_rate: float | None,
    devices: int,
    workers: int | None,
    checkpoint_seconds: float,
) -> None:
    checks = {
        "epochs must be at least 1": epochs is None or epochs >= 1,
        "batch size must be at least 1": batch_size >= 1,
        "learning rate must be a positive number": learning_rate is None or 0 < learning_rate < float("inf"),
        "devices must be at least 1": devices >= 1,
        "batch size must be at least the number of devices": batch_size >= devices,
        "workers must be at least 0": workers is None or workers >= 0,
        "checkpoint seconds must be at least 0": checkpoint_seconds >= 0,
    }
    for problem, fine in checks.items():
        if not fine:
            given = f"epochs {epochs}, batch size {batch_size}, learning rate {learning_rate}, devices {devices}"
            raise EdgetlError(f"the {problem} ({given})", "correct the option")


def _plan(
    data: str | Path,
    out: str | Path,
    backbone: str,
    strategy: str,
    epochs: int | None,
    seed: int,
    batch_size: int,
    learning_rate: float | None,
    image_size: int | None,
    wanted: str | Path | None,
    placement: Placement,
    shares: Mapping[str, float],
    workers: int | None,
    checkpoint_seconds: float,
) -> Plan:
    chosen = strategies.find(strategy).scheduled(epochs, learning_rate)
    found = backbones.find(backbone)
    preprocess = backbones.preprocess_for(backbone, image_size)
    source = weights.locate(found, wanted)
    if str(data) != "digits" and not Path(data).exists():
        raise DataError(
            f"there is no {data}", "give a folder with a folder for each class, a CSV file (path,label), or 'digits'"
        )
    settings = {
        "data": str(data) if str(data) == "digits" else str(Path(data).resolve()),
        "data_sha256": sha256_file(Path(data)) if Path(data).is_file() else None,
        "backbone": found.name,
        "strategy": strategy,
        "epochs": chosen.schedule.epochs,
        "learning_rate": chosen.schedule.learning_rate,
        "batch_size": batch_size,
        "seed": seed,
        "weights": "pretrained" if wanted is None else str(wanted),
        "weights_sha256": sha256_file(source.file) if source.file else None,
        "preprocess": preprocess.to_json(),
        "accelerator": placement.accelerator,
        "devices": placement.devices,
        "precision": placement.precision,
        "shares": {name: float(shares.get(name, 0.0)) for name in SPLITS},
        "details": chosen.to_json(),
    }
    loaders = _default_workers(placement) if workers is None else workers
    return Plan(
        data, Path(out), chosen, found, source, preprocess, placement, settings, loaders, checkpoint_seconds
    )


def _default_workers(placement: Placement) -> int:
    # On the CPU the model takes all cores, and one loader is enough to overlap with it.
    share = (os.cpu_count() or 1) // placement.devices
    return min(8, max(share - 1, 1)) if placement.accelerator == "cuda" else int(share > 1)


def _start(plan: Plan, dataset: Dataset, progress: Progress) -> Scores:
    """Build the backbone with its head fitted and leave it as epoch 0; done once."""
    record = plan.checkpoints / START
    if record.is_file():
        return Scores(**read_json(record)["val"])
    torch.manual_seed(plan.settings["seed"])
    body = weights.load(plan.backbone, len(dataset.classes), plan.source, plan.preprocess)
    model = Deployable(body, plan.preprocess).eval().to(memory_format=torch.channels_last)
    stores = [(name, ImageStore(dataset.paths(name), plan.preprocess)) for name in ("train", "val")]
    key = [plan.settings["backbone"], plan.settings["weights_sha256"], plan.settings["weights"], dataset.digest]
    key += [plan.preprocess.digest, plan.settings["seed"], plan.placement.accelerator]
    held = features.cached(plan.checkpoints, key, model, stores, plan.placement.device, progress)
    model.cpu()
    labels = {name: dataset.labels(name) for name in ("train", "val")}
    _, layer = weights.head_of(body, plan.backbone.name)
    if plan.strategy.head.start == "fitted":
        progress("fitting the head", 0, 0)
        fitted = heads.fit_head(
            (held["train"], labels["train"]), (held["val"], labels["val"]),
            len(dataset.classes), plan.strategy.head.class_balance,
        )  # fmt: skip
        _set_head(layer, fitted.weight, fitted.bias)
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy() if layer.bias is not None else 0.0
    start = score(np.asarray(held["val"] @ weight.T + bias, dtype=np.float32), labels["val"])
    checkpoint.write_weights(epoch_file(plan.checkpoints, 0), body.state_dict())
    write_json(record, {"val": start.to_json()})
    return start


def _set_head(layer: torch.nn.Linear, weight: features.Floats, bias: features.Floats) -> None:
    if layer.bias is None:
        layer.bias = torch.nn.Parameter(torch.zeros(len(bias)))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))


def _train(plan: Plan, dataset: Dataset, start: Scores, progress: Progress) -> None:
    if not plan.strategy.schedule.epochs:
        train.write_history(plan.out, [{"epoch": 0, "val": start.to_json()}])
        return
    job = train.Job(
        plan.out, dataset, plan.preprocess, plan.settings, start, plan.workers, plan.checkpoint_seconds
    )
    with _across_processes(progress, plan.placement.devices) as reachable:
        failure = plan.placement.fabric().launch(train.fit, job, reachable)
    if failure is not None:
        # Taking it up again would diverge again: other settings may start here.
        folder.clear_checkpoint(plan.out)
        raise TrainingError(*failure)


@dataclass(frozen=True)
class _Sent:
    """A progress callback that reaches the parent process through a queue."""

    queue: Any

    def __call__(self, task: str, done: int, total: int, detail: str = "") -> None:
        self.queue.put((task, done, total, detail))


@contextmanager
def _across_processes(progress: Progress, devices: int) -> Iterator[Progress]:
    """The callback itself for one process; for several, one that can be sent to them."""
    if devices == 1:
        yield progress
        return
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()

    def deliver() -> None:
        while (message := queue.get()) is not None:
            progress(*message)

    thread = threading.Thread(target=deliver, daemon=True)
    thread.start()
    try:
        yield _Sent(queue)
    finally:
        queue.put(None)
        thread.join()


def _finish(plan: Plan, dataset: Dataset, start: Scores) -> Run:
    """Finalize the best epoch, score it in float32, and write the run, its manifest last."""
    state = checkpoint.peek(plan.checkpoints) or State(best=start)
    body = weights.build(plan.backbone.name, len(dataset.classes), weights="none", preprocess=plan.preprocess)
    _, layer = weights.head_of(body, plan.backbone.name)
    tensors = checkpoint.read_weights(epoch_file(plan.checkpoints, state.best_epoch))
    model = plan.strategy.hooks.finalize(checkpoint.fill(body, tensors))
    network = Deployable(model, plan.preprocess).eval().to(plan.placement.device, memory_format=torch.channels_last)
    store = ImageStore(dataset.paths("val"), plan.preprocess)
    with torch.inference_mode():
        parts = [network(torch.from_numpy(b).to(plan.placement.device)).cpu() for b in store.batches(train.EVAL_BATCH)]
    metrics = {
        "val": score(torch.cat(parts).numpy(), dataset.labels("val")).to_json(),
        "start": start.to_json(),
        "best_epoch": state.best_epoch,
        "epochs_run": state.epoch,
    }
    checkpoint.write_weights(plan.out / WEIGHTS, network.backbone.state_dict())
    run = write_run(
        plan.out,
        backbone=plan.backbone.name,
        strategy=plan.settings["strategy"],
        dataset=dataset,
        preprocess=plan.preprocess,
        settings=plan.settings,
        metrics=metrics,
        lineage=_lineage(plan, state, len(dataset.split("train"))),
    )
    folder.tidy(plan.out)
    return run


def _lineage(plan: Plan, state: State, images: int) -> dict[str, Any]:
    """Where the run came from; clocks belong here, because they differ between equal runs."""
    speed = state.epoch * images / state.seconds if state.seconds else None
    command = ["edgetl", "finetune", str(plan.data), "--out", str(plan.out), "--backbone", plan.backbone.name]
    command += ["--strategy", plan.settings["strategy"], "--seed", str(plan.settings["seed"])]
    return {
        "backbone": plan.backbone.name,
        "architecture": f"{plan.backbone.source}: {plan.backbone.architecture}",
        **plan.source.to_json(plan.backbone),
        "citation": plan.backbone.citation,
        "versions": {name: version(name) for name in VERSIONS},
        "seed": plan.settings["seed"],
        "command": shlex.join(command),
        "threads": torch.get_num_threads(),
        "timing": {"train_seconds": round(state.seconds, 1), "images_per_second": speed and round(speed, 1)},
    }
