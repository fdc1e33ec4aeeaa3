"""The first stage: from labelled images to a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from edgetl.base.errors import TrainingError
from edgetl.base.progress import Progress, silent
from edgetl.base.storage import read_json, write_json
from edgetl.core.data import Dataset
from edgetl.core.run import Run
from edgetl.core.val_outputs import START_OUTPUTS, write_val_outputs
from edgetl.transfer import baseline as baselines
from edgetl.transfer import checkpoint, domains, earlier, folder, freezing, streams, train
from edgetl.transfer.assembly import Job
from edgetl.transfer.batch_size import sized
from edgetl.transfer.checkpoint import epoch_file
from edgetl.transfer.curves import check_log, recorder
from edgetl.transfer.finish import finish
from edgetl.transfer.freezing import Frozen
from edgetl.transfer.launch import launch
from edgetl.transfer.model import Deployable
from edgetl.transfer.placement import reproducible
from edgetl.transfer.plan import Options, Plan, plan
from edgetl.transfer.scores import Scores
from edgetl.transfer.settings import BATCH_SIZE, UNKNOWN
from edgetl.transfer.start import check_sizes, check_strategy, with_head
from edgetl.transfer.stores import store_of

START = "start.json"


def finetune(
    data: str | Path,
    out: str | Path,
    *,
    task: str | None = None,
    backbone: str | None = None,
    strategy: str = "fine-tune",
    epochs: int | None = None,
    seed: int = 0,
    batch_size: int | Literal["auto"] = BATCH_SIZE,
    learning_rate: float | None = None,
    image_size: int | None = None,
    weights: str | Path | None = None,
    devices: int = 1,
    accelerator: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    shares: Mapping[str, float] | None = None,
    baseline: str | None = None,
    set: Mapping[str, Any] | None = None,
    teacher: str | Path | None = None,
    target_data: str | Path | None = None,
    retain: str | Path | None = None,
    from_run: str | Path | None = None,
    augment: str | Path | None = None,
    group_by: str | None = None,
    checkpoint_seconds: float = 60.0,
    log: str | None = None,
    fresh: bool = False,
    progress: Progress = silent,
) -> Run:
    """Transfer a pretrained backbone to labelled samples: images, texts or arrays.

    Interrupted at any moment, the same call goes on from the last checkpoint and ends with the same weights (same
    machine, same number of threads). A finished run with the same settings is returned as it is, with the baseline
    added if that is asked for and missing.

    Args:
        data: a folder with a folder for each class, or with ``train``, ``val`` and ``test`` that hold those, a CSV file
            with ``path,label[,split]``, or ``"digits"``.
        out: the run's folder; new, empty, or of the same settings.
        task: as in ``edgetl tasks``; None for the one that the data's labels and samples are for.
        backbone: as in ``edgetl backbones``, or ``timm/NAME`` or ``torchvision/NAME``; None for efficientnet_lite0 of
            images, minilm of texts and mlp of arrays.
        strategy: as in ``edgetl strategies``.
        epochs: None for the strategy's or the backbone's own; means nothing to a strategy without gradient steps.
        seed: of splits, order, augmentation and everything else drawn at random.
        batch_size: samples in a gradient step, over all devices together; "auto" for as many as pay, found by trial
            before training starts (:mod:`edgetl.transfer.batch_size`) and kept in the run's settings: who goes on with
            it, or repeats it, has the same number. The learning rate stays.
        learning_rate: the head's highest; None for the strategy's or the backbone's own.
        image_size: height and width in pixels; None for the backbone's own. Only of images.
        weights: None for the backbone's pretrained ones, a ``.safetensors`` or ``.pth`` file, or ``"none"``.
        devices: processes, one for each GPU or, on the CPU, for a share of the cores.
        accelerator: "auto", "cpu" or "cuda".
        precision: "auto", "32-true", "bf16-mixed" or "16-mixed"; the finished weights are float32.
        workers: loading processes for each training process; None chooses; changes the speed only.
        shares: the part of each class that each split gets; None for :data:`edgetl.core.data.SHARES`.
        baseline: also train what the transfer is measured against, on the same samples: "scratch", the architecture
            from random weights with the same epochs and batches, or "probe", a linear head on the pretrained features.
            It takes the place of another one that the run has; None keeps what there is.
        set: options of the strategy by name, as ``edgetl strategies NAME`` lists them.
        teacher: folder of a finished run whose answers the strategy follows; its samples to train on may be none that
            this run holds back.
        target_data: samples without labels, a batch of them beside each main one: a folder, or a CSV file with the
            column path or text. What the data hold back is left out.
        retain: labelled samples of the same classes, a batch of them beside each main one, as for ``data``.
        from_run: folder of a finished run whose weights are the start; its backbone and image size hold.
        augment: how training images vary: "none", "light" (the default), "backbone", "strong", or a TOML file of
            torchvision's transforms; see :data:`edgetl.transfer.augment.PRESETS`.
        group_by: what belongs together, never straddles splits and counts once in tests: "parent", "exif-time",
            "duplicates" or a regular expression; see :func:`edgetl.load_dataset`.
        checkpoint_seconds: longest time without a checkpoint.
        log: where learning curves go besides ``history.jsonl``, after each epoch: "tensorboard", whose files lie in
            ``out/tensorboard``, or "mlflow", at ``MLFLOW_TRACKING_URI``. A run has one curve, however often it was
            interrupted.
        fresh: replace a run that stands in ``out``.
        progress: told of each step.

    Raises:
        UnknownNameError: no such task, backbone, strategy or option of it.
        DataError: samples or splits that cannot be used, or that changed while the run was unfinished.
        RunError: ``out`` holds a run with other settings, or a run that is given cannot serve.
        TrainingError: the loss is no longer finite.
        EdgetlError: any other bad argument, weights that are missing, or a folder that cannot be written.
    """
    ordered = plan(
        Options(
            data, out, task, backbone, strategy, epochs, seed, batch_size, learning_rate, image_size, weights,
            devices, accelerator, precision, workers, shares, checkpoint_seconds,
            set or {}, teacher, target_data, retain, from_run, None if augment is None else str(augment), group_by,
        )
    )  # fmt: skip
    check_log(log)
    ordered = replace(ordered, log=log)
    if baseline is not None:
        baselines.check(ordered, baseline)
    with folder.held(ordered.out, data), reproducible(ordered.placement.device):
        ordered, run = _run(ordered, fresh, progress)
        if baseline is not None:
            run = baselines.add(ordered, run, baseline, progress)
        folder.tidy(ordered.out)
    return run


def _run(order: Plan, fresh: bool, progress: Progress) -> tuple[Plan, Run]:
    """The finished run, trained unless it is there, and its order with the data's part in it."""
    if order.settings.batch_size == UNKNOWN and not fresh:
        order = _with_batch_size(order, folder.batch_size_of(order.out))
    run = folder.standing(order.out, order.settings, fresh)
    with folder.FirstSteps(order.out, fresh) as steps:
        dataset = read_samples(order, steps, progress)
        order = order.for_data(dataset)
        if run is not None:
            _told_again(order, run)
            return order, run
        job = begun(order, dataset, steps, progress)
        if order.settings.batch_size == UNKNOWN:
            job = sized(order.placement, job, progress)
            order = _with_batch_size(order, job.settings.batch_size)
            folder.keep_settings(order.out, order.settings)
        _train(order, job, progress)
    return order, finish(order, job, progress)


def _with_batch_size(order: Plan, size: int) -> Plan:
    return replace(order, settings=replace(order.settings, batch_size=size))


def read_samples(order: Plan, steps: folder.FirstSteps, progress: Progress) -> Dataset:
    """The samples with their splits; of a strategy for two domains those of both, and beside an earlier run its own."""
    settings, kind, target = order.settings, order.backbone.input, order.sources.target
    asked = (order.data, kind, settings.seed, settings.shares, progress, settings.group_by)
    if order.strategy.column is not None and order.sources.previous is not None:
        dataset = steps.read(*asked)
        if steps.goes_on:
            return dataset
        return earlier.with_earlier(dataset, order.sources.previous, order.task, steps.own, progress)
    if order.strategy.certifies == "data" or target is None:
        return steps.read(*asked)
    dataset = steps.read(*asked, needed=("train", "val"))
    if steps.goes_on:
        return dataset
    beside = steps.streams / "target"
    return domains.with_target(dataset, target, kind, settings.seed, beside, steps.own, progress)


def begun(order: Plan, dataset: Dataset, steps: folder.FirstSteps, progress: Progress) -> Job:
    """What every process of training gets, once all is checked and the start is written."""
    network = check_sizes(order, dataset)
    beside = streams.read(order.sources, dataset, order.backbone.input, steps.streams, progress)
    if order.strategy.certifies == "target":
        beside = beside.with_judged(order.settings.seed)
        unseen = {need.name for need in order.strategy.needs if not need.trains}
        beside = replace(beside, samples={name: each for name, each in beside.samples.items() if name not in unseen})
    check_strategy(order, dataset, network, beside)
    beside = beside.moved(steps.streams, order.checkpoints / folder.STREAMS)
    dataset = steps.begin(order.settings, dataset)
    start, frozen = _start(order, dataset, beside, progress)
    return replace(order.job(dataset, start, beside), frozen=frozen)


def _told_again(order: Plan, run: Run) -> None:
    """The curves of a run that was finished without them."""
    with recorder(order.log, order.out, order.settings.to_json()) as record:
        record(run.history)


def _start(order: Plan, dataset: Dataset, beside: streams.Streams, progress: Progress) -> tuple[Scores, Frozen]:
    """Build the backbone with its head fitted and leave it as epoch 0; done once. How good it is, and what stays."""
    record = order.checkpoints / START
    if record.is_file():
        held = read_json(record)
        return Scores(**held["val"]), Frozen.from_json(held["frozen"]) if "frozen" in held else Frozen()
    model, start, answers = with_head(order, dataset, order.strategy.head, progress, beside)
    if order.strategy.head.start == "fitted" and order.source.kind != "none":
        write_val_outputs(order.checkpoints, answers, START_OUTPUTS)
    checkpoint.write_weights(epoch_file(order.checkpoints, 0), model.backbone.state_dict())
    frozen = _frozen(order, dataset, model)
    write_json(record, {"val": start.record(), "frozen": frozen.to_json()})
    return start, frozen


def _frozen(order: Plan, dataset: Dataset, model: Deployable) -> Frozen:
    """The groups of layers in front that stay, as the strategy asks."""
    asked = order.strategy.params.freeze
    if not order.strategy.schedule.epochs or asked == 0:
        return Frozen()
    if asked != freezing.AUTO:
        return freezing.share(model, float(asked))
    labels = dataset.labels("train")
    samples = (store_of(order.input, dataset.paths("train")), labels)
    scale = order.learner.scale(labels)
    found = freezing.gradients(model, order.strategy, order.learner, samples, len(dataset.classes), scale)
    return freezing.chosen(found)


def _train(order: Plan, job: Job, progress: Progress) -> None:
    if not order.strategy.schedule.epochs:
        rows = [{"epoch": 0, "val": job.start.to_json()}]
        train.write_history(order.out, rows)
        with recorder(order.log, order.out, order.settings.to_json()) as record:
            record(rows)
        return
    failure = launch(order.placement, replace(job, log=order.log), progress)
    if failure is not None:
        # Taking it up again would diverge again: other settings may start here.
        folder.tidy(order.out)
        raise TrainingError(*failure)
