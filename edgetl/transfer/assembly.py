"""What the training loop works with: the job as every process gets it, and model and optimizer made of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm.optim
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgetl.base.errors import EdgetlError
from edgetl.core.data import Dataset
from edgetl.core.run import CHECKPOINT
from edgetl.core.tensors import Arrays
from edgetl.inputs.base import Input
from edgetl.tasks import Task, find_task
from edgetl.transfer import backbones, checkpoint, depthwise, strategies
from edgetl.transfer.anchor import Teacher, frozen, held_start
from edgetl.transfer.averaging import Average, blended
from edgetl.transfer.checkpoint import epoch_file
from edgetl.transfer.classifier import head_of
from edgetl.transfer.features import HeadInput
from edgetl.transfer.freezing import Frozen
from edgetl.transfer.model import Deployable, filled, head_width, network_for
from edgetl.transfer.prefix import Cut
from edgetl.transfer.scores import Scores
from edgetl.transfer.settings import Settings
from edgetl.transfer.statistics import left_alone
from edgetl.transfer.strategies.base import LossTerm, Strategy
from edgetl.transfer.streams import Streams
from edgetl.transfer.tasks import Learner, Scale, learner_of
from edgetl.transfer.trainable import Trained, counts, depths_of, prepare
from edgetl.transfer.validators import VALIDATORS, Validator


@dataclass(frozen=True)
class Job:
    """One training run, as every process gets it.

    Attributes:
        folder: the run's folder; its checkpoint folder holds the start, ``epoch-0000.safetensors``.
        dataset: samples, classes, splits.
        definition: how a sample becomes the network's input.
        settings: task, backbone, strategy (or the name of a baseline), epochs, learning_rate, batch_size, seed.
        start: validation scores of the start.
        workers: loading processes for each training process.
        checkpoint_seconds: longest time without a checkpoint.
        streams: what the strategy was given besides the data.
        frozen: groups of layers in front that stay as they are.
        log: a program of :data:`edgetl.transfer.curves.PROGRAMS` that learning curves go to, or None.
    """

    folder: Path
    dataset: Dataset
    definition: Input
    settings: Settings
    start: Scores
    workers: int
    checkpoint_seconds: float
    streams: Streams = field(default_factory=Streams)
    log: str | None = None
    frozen: Frozen = field(default_factory=Frozen)

    @property
    def checkpoints(self) -> Path:
        """The checkpoint folder."""
        return self.folder / CHECKPOINT

    @property
    def task(self) -> Task:
        """What the network is for."""
        return find_task(self.settings.task)

    @property
    def strategy(self) -> Strategy:
        """The strategy with this run's schedule."""
        terms = learner_of(self.task, self.dataset.classes, self.dataset.unlearned).terms
        return strategies.of_settings(self.settings, backbones.find(self.settings.backbone), terms)


@dataclass(frozen=True)
class Setup:
    """What one process trains with; made by :func:`assemble`.

    Attributes:
        scale: from the head's outputs in training to the labels' unit.
        class_counts: training samples of each class, float32, shape (classes,).
        anchor: what the strategy holds still, on the device of training; None without one.
        average: of what trains, which is evaluated and kept in its place; None for the last values.
        seen: what the head saw last.
        validator: by what the epoch is chosen; None for the validation samples.
        cut: where the network begins to train, if what lies in front is computed ahead: samples are activations then.
        owned: by the name of a loss term the module that it owns.
        depths: layer groups between each parameter and the head, by its identity.
    """

    fabric: Fabric
    task: Task
    learner: Learner
    scale: Scale
    strategy: Strategy
    network: Deployable
    model: nn.Module
    optimizer: torch.optim.Optimizer
    class_counts: Tensor
    anchor: nn.Module | None
    average: Average | None
    seen: HeadInput
    owned: Mapping[str, nn.Module]
    depths: Mapping[int, int]
    seed: int
    validator: Validator | None = None
    cut: Cut | None = None

    @property
    def trained(self) -> Trained:
        """What of the backbone changes."""
        return Trained(self.network.backbone)

    def fed(self, arrays: Arrays) -> Tensor:
        """The output for a batch of samples, under the training precision, on the device."""
        if self.cut is None:
            return self.network.fed(arrays, self.fabric.device)
        return self.cut.behind({name: torch.from_numpy(arrays[name]).to(self.fabric.device) for name in arrays})

    @property
    def kept(self) -> dict[str, Tensor]:
        """The values of it that an epoch is judged by, and that are kept of the best."""
        return self.trained.state_dict() if self.average is None else dict(self.average.held)

    @property
    def parts(self) -> dict[str, Any]:
        """Everything with a state that a checkpoint must carry."""
        scaler = getattr(self.fabric._precision, "scaler", None)
        held = {"model": self.trained, "optimizer": self.optimizer}
        held |= {} if scaler is None else {"scaler": scaler}
        held |= {f"owned by {name}": module for name, module in self.owned.items()}
        return held if self.average is None else {**held, "average": self.average}


def assemble(fabric: Fabric, job: Job) -> Setup:
    """Build the start of training in this process: model, what is held still, parameter groups, optimizer."""
    strategy, settings, task = job.strategy, job.settings, job.task
    classes, labels = job.dataset.classes, job.dataset.labels("train")
    learner = learner_of(task, classes, job.dataset.unlearned)
    scale = learner.scale(labels)
    start = started(job).to(memory_format=torch.channels_last)
    anchor = _anchor(strategy, job, start, scale)
    network = prepare(strategy, start, job.streams, settings.seed, job.frozen.groups).network
    network = _statistics_shared(fabric, network, strategy)
    if fabric.device.type == "cpu":
        depthwise.quicken(network)
    schedule = strategy.schedule
    optimizer = timm.optim.create_optimizer_v2(
        network.backbone,
        opt="adamw",
        lr=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        layer_decay=strategy.params.layer_decay,
    )
    owned = _owned(strategy, network, settings.seed)
    for module in owned.values():
        optimizer.add_param_group({"params": list(module.parameters()), "weight_decay": schedule.weight_decay})
    seen = HeadInput(network.backbone)
    model, optimizer = fabric.setup(network, optimizer)
    owned = {name: fabric.setup_module(module) for name, module in owned.items()}
    if anchor is not None:
        anchor = anchor.to(fabric.device)
    counts = torch.from_numpy(learner.counts(labels, len(classes))).to(fabric.device)
    average = Average(Trained(network.backbone), strategy.average) if strategy.average else None
    depths = depths_of(network.backbone) if strategy.params.unfreeze else {}
    return Setup(
        fabric, task, learner, scale, strategy, network, model, optimizer, counts, anchor, average, seen,
        owned, depths, settings.seed, VALIDATORS.get(strategy.validator),
    )  # fmt: skip


def started(job: Job) -> Deployable:
    """The model as training starts: the pretrained backbone with its fitted head."""
    classes = job.dataset.classes
    tensors = checkpoint.read_weights(epoch_file(job.checkpoints, 0))
    body, _ = filled(job.settings.backbone, head_width(job.task, classes), tensors, job.definition)
    return network_for(job.task, classes, body, job.definition)


def finished(job: Job, best_epoch: int) -> tuple[Deployable, dict[str, int]]:
    """The model of the best epoch, of the architecture it started with again, and how much of it was trained."""
    start = started(job)
    whole = sum(value.numel() for value in start.parameters())
    trainee = prepare(job.strategy, start, job.streams, job.settings.seed, job.frozen.groups)
    found = {**counts(trainee.network), "of": whole}
    if best_epoch:
        held = checkpoint.read_weights(epoch_file(job.checkpoints, best_epoch))
        Trained(trainee.network.backbone).load_state_dict(held)
    network, share = trainee.finalize(), job.strategy.start_share
    if share:
        states = [network.backbone.state_dict(), started(job).backbone.state_dict()]
        network.backbone.load_state_dict(blended(states, [1 - share, share]))
    return network, found


def _owned(strategy: Strategy, network: Deployable, seed: int) -> dict[str, nn.Module]:
    """The modules of loss terms, the same in every process."""
    features, found = int(head_of(network.backbone)[1].in_features), dict[str, nn.Module]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for term in strategy.terms:
            if isinstance(term, LossTerm) and term.owns is not None:
                found[term.name] = term.owns(features)
    return found


def _anchor(strategy: Strategy, job: Job, start: Deployable, scale: Scale) -> nn.Module | None:
    if strategy.anchor == "start":
        return held_start(start)
    if strategy.anchor == "teacher":
        assert job.streams.teacher is not None
        return frozen(Teacher(job.streams.teacher, job.definition, job.dataset.classes, scale))
    return None


def _statistics_shared(fabric: Fabric, network: Deployable, strategy: Strategy) -> Deployable:
    normalised = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.backbone.modules())
    if fabric.world_size == 1 or strategy.params.batch_norm == "frozen" or not normalised:
        return network
    if fabric.device.type == "cpu":
        raise EdgetlError("batch statistics over several CPU processes are not possible", "use --devices 1")
    shared: Deployable = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return shared


def forwarded(setup: Setup, inputs: Mapping[str, Tensor]) -> Tensor:
    """The model's answer to the main batch; the source's statistics are not kept where the target's are to be."""
    if setup.cut is not None:
        with setup.fabric.autocast():
            return setup.cut.behind(inputs)
    adapts = setup.strategy.params.batch_norm == "adapt"
    with left_alone(setup.network.backbone) if adapts else nullcontext():
        found: Tensor = setup.model(*(inputs[spec.name] for spec in setup.network.definition.tensors))
    return found


def enter_train_mode(setup: Setup) -> None:
    """Training mode, but for the batch statistics where the strategy keeps them."""
    setup.network.train()
    if setup.strategy.params.batch_norm == "frozen":
        for module in setup.network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) or _stays(module):
                module.eval()


def _stays(module: nn.Module) -> bool:
    """Whether a container has parameters, and none that train: it drops nothing at random, either."""
    parameters = list(module.parameters())
    return bool(parameters) and not any(value.requires_grad for value in parameters)
