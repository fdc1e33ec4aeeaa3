"""The first stage: from labelled images to a finished run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edgetl.base.errors import TrainingError
from edgetl.base.extras import version
from edgetl.base.progress import Progress, silent
from edgetl.base.storage import read_json, write_json
from edgetl.core.data import Dataset
from edgetl.core.run import WEIGHTS, Run, write_run, write_val_outputs
from edgetl.transfer import baseline as baselines
from edgetl.transfer import checkpoint, folder, train
from edgetl.transfer import weights as sources
from edgetl.transfer.checkpoint import State, epoch_file
from edgetl.transfer.launch import launch
from edgetl.transfer.model import Deployable, val_outputs
from edgetl.transfer.plan import Options, Plan, plan
from edgetl.transfer.scores import Scores, score
from edgetl.transfer.start import with_head

START = "start.json"
VERSIONS = ("edgetl", "torch", "torchvision", "timm", "lightning_fabric", "sklearn", "numpy", "PIL")


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
    baseline: str | None = None,
    checkpoint_seconds: float = 60.0,
    fresh: bool = False,
    progress: Progress = silent,
) -> Run:
    """Transfer a pretrained backbone to labelled images.

    Interrupted at any moment, the same call goes on from the last checkpoint and ends with the same weights (same
    machine, same number of threads). A finished run with the same settings is returned as it is, with the baseline
    added if that is asked for and missing.

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
        shares: the part of each class that each split gets; None for :data:`edgetl.core.data.SHARES`.
        baseline: also train what the transfer is measured against, on the same images: "scratch", the architecture
            from random weights with the same epochs and batches, or "probe", a linear head on the pretrained features.
            It takes the place of another one that the run has; None keeps what there is.
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
    ordered = plan(
        Options(
            data, out, backbone, strategy, epochs, seed, batch_size, learning_rate, image_size, weights,
            devices, accelerator, precision, workers, shares, checkpoint_seconds,
        )
    )  # fmt: skip
    if baseline is not None:
        baselines.check(ordered, baseline)
    run = folder.enter(ordered.out, ordered.settings, fresh)
    dataset = folder.dataset_of(ordered.out, data, seed, ordered.settings["shares"], progress)
    if run is None:
        start = _start(ordered, dataset, progress)
        _train(ordered, dataset, start, progress)
        run = _finish(ordered, dataset, start)
    if baseline is not None:
        run = baselines.add(ordered, run, baseline, progress)
    folder.tidy(ordered.out)
    return run


def _start(order: Plan, dataset: Dataset, progress: Progress) -> Scores:
    """Build the backbone with its head fitted and leave it as epoch 0; done once."""
    record = order.checkpoints / START
    if record.is_file():
        return Scores(**read_json(record)["val"])
    model, start = with_head(order, dataset, order.strategy.head, progress)
    checkpoint.write_weights(epoch_file(order.checkpoints, 0), model.backbone.state_dict())
    write_json(record, {"val": start.to_json()})
    return start


def _train(order: Plan, dataset: Dataset, start: Scores, progress: Progress) -> None:
    if not order.strategy.schedule.epochs:
        train.write_history(order.out, [{"epoch": 0, "val": start.to_json()}])
        return
    job = train.Job(
        order.out, dataset, order.preprocess, order.settings, start, order.workers, order.checkpoint_seconds
    )
    failure = launch(order.placement, job, progress)
    if failure is not None:
        # Taking it up again would diverge again: other settings may start here.
        folder.tidy(order.out)
        raise TrainingError(*failure)


def _finish(order: Plan, dataset: Dataset, start: Scores) -> Run:
    """Finalize the best epoch, score it in float32, and write the run, its manifest last."""
    state = checkpoint.restore(order.checkpoints, {}) or State(best=start)
    body = sources.build(order.backbone.name, len(dataset.classes), weights="none", preprocess=order.preprocess)
    checkpoint.load_weights(epoch_file(order.checkpoints, state.best_epoch), body)
    model = order.strategy.hooks.finalize(body)
    network = Deployable(model, order.preprocess).eval().to(order.placement.device, memory_format=torch.channels_last)
    outputs = val_outputs(network, dataset, order.placement.device)
    metrics = {
        "val": score(outputs["logits"], dataset.labels("val")).to_json(),
        "start": start.to_json(),
        "best_epoch": state.best_epoch,
        "epochs_run": state.epoch,
    }
    checkpoint.write_weights(order.out / WEIGHTS, network.backbone.state_dict())
    write_val_outputs(order.out, outputs)
    return write_run(
        order.out,
        backbone=order.backbone.name,
        strategy=order.settings["strategy"],
        dataset=dataset,
        input_record=order.preprocess.to_json(),
        input_files=order.preprocess.files,
        settings=order.settings,
        metrics=metrics,
        lineage=_lineage(order, state, len(dataset.split("train"))),
    )


def _lineage(order: Plan, state: State, images: int) -> dict[str, Any]:
    """Where the run came from; clocks belong here, because they differ between equal runs."""
    speed = state.epoch * images / state.seconds if state.seconds else None
    command = ["edgetl", "finetune", str(order.data), "--out", str(order.out), "--backbone", order.backbone.name]
    command += ["--strategy", order.settings["strategy"], "--seed", str(order.settings["seed"])]
    return {
        "backbone": order.backbone.name,
        "architecture": f"{order.backbone.source}: {order.backbone.architecture}",
        **order.source.to_json(order.backbone),
        "citation": order.backbone.citation,
        "versions": {name: version(name) for name in VERSIONS},
        "seed": order.settings["seed"],
        "command": shlex.join(command),
        "threads": torch.get_num_threads(),
        "timing": {"train_seconds": round(state.seconds, 1), "images_per_second": speed and round(speed, 1)},
    }
