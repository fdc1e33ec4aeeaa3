"""Checking an order for a run before any work is done."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgetl.base.errors import DataError, EdgetlError
from edgetl.base.storage import sha256_file
from edgetl.core.data import DIGITS, SHARES, SPLITS, Dataset, is_embedded, label_kind, read_rule
from edgetl.core.data.several import taken_apart
from edgetl.core.run import CHECKPOINT
from edgetl.inputs import INPUTS, input_of
from edgetl.inputs.base import Input
from edgetl.inputs.datasets import what
from edgetl.inputs.image import Preprocess
from edgetl.tasks import Task, find_task, fitting
from edgetl.tasks.several import NAME as MULTI_TASK
from edgetl.transfer import backbones, definitions, strategies, weights
from edgetl.transfer.assembly import Job
from edgetl.transfer.augment import Augmentation, check_augmentation, read_augmentation
from edgetl.transfer.domains import SOURCE
from edgetl.transfer.earlier import earlier_tasks
from edgetl.transfer.fitting import check_fit
from edgetl.transfer.options import Options, beside, check_numbers, going_on
from edgetl.transfer.placement import Placement, place
from edgetl.transfer.scores import Scores
from edgetl.transfer.settings import BATCH_SIZE, UNKNOWN, Settings
from edgetl.transfer.sources import Sources, check_needs, check_teacher, find_sources
from edgetl.transfer.strategies.base import Strategy
from edgetl.transfer.streams import Streams
from edgetl.transfer.tasks import Learner, learner_of
from edgetl.transfer.validators import VALIDATORS


@dataclass(frozen=True)
class Plan:
    """A checked order: everything resolved, nothing done yet.

    Attributes:
        data: a folder, a CSV file, or "digits".
        out: the run's folder.
        task: what the network is for.
        definition: how a file becomes its input; None of arrays until the data is read, see :meth:`for_data`.
        settings: all that the outcome depends on.
        workers, checkpoint_seconds, log: what it does not depend on.
        sources: what the strategy is given besides the data.
        classes: of the data, once it is read.
        kept: tasks, of several, that stay as an earlier run has them.
    """

    data: str | Path
    out: Path
    task: Task
    strategy: Strategy
    backbone: backbones.Backbone
    source: weights.WeightsSource
    definition: Input | None
    placement: Placement
    settings: Settings
    workers: int
    checkpoint_seconds: float
    sources: Sources = field(default_factory=Sources)
    log: str | None = None
    classes: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def checkpoints(self) -> Path:
        """The run's checkpoint folder."""
        return self.out / CHECKPOINT

    @property
    def learner(self) -> Learner:
        """How a network learns the task."""
        return learner_of(self.task, self.classes, self.kept)

    @property
    def input(self) -> Input:
        """How a file becomes the network's input."""
        assert self.definition is not None, "an order for arrays needs their shape first"
        return self.definition

    def job(self, dataset: Dataset, start: Scores, streams: Streams) -> Job:
        """What every process of training gets."""
        return Job(self.out, dataset, self.input, self.settings, start, self.workers, self.checkpoint_seconds, streams)

    def for_data(self, dataset: Dataset) -> Plan:
        """This order, once the data is read.

        Raises:
            DataError: arrays of different shapes, or a task that no sample to train on has a label of.
        """
        lacking = [name for name in dataset.unlearned if name not in self.kept]
        if lacking:
            raise DataError(f"no sample to train on has a label of the task '{lacking[0]}'", "add some to every split")
        known = replace(self, classes=dataset.classes)
        if self.task.parts:
            # Only now the tasks' places in the head are known.
            strategy = strategies.of_settings(self.settings, self.backbone, known.learner.terms)
            known = replace(known, strategy=strategy)
        if self.definition is not None:
            return known
        return replace(known, definition=definitions.of_arrays(self.backbone, dataset.paths("train")))


def plan(options: Options) -> Plan:
    """Resolve names, sizes and devices.

    Raises:
        EdgetlError: whatever can be seen to be wrong without reading a sample; see ``finetune``.
    """
    check_numbers(options)
    sources = find_sources(options.teacher, options.from_run, options.target_data, options.retain)
    values = strategies.options_for(options.strategy, options.set)
    column = strategies.find(options.strategy, values).column
    options = going_on(options, sources.previous, column)
    task, backbone = _matched(options, column is not None)
    earlier = None if column is None else sources.previous
    kept = () if earlier is None else tuple(earlier_tasks(earlier))
    if column is not None and earlier is not None:
        task = beside(options, task, earlier, column)
    given = (options.epochs, options.learning_rate)
    strategy = strategies.resolve(options.strategy, backbone, learner_of(task, kept=kept).terms, *given, values)
    check_needs(options.strategy, strategy, sources)
    _check_groups(options, strategy, sources)
    _check_serves(strategy, task, backbone)
    if sources.teacher is not None:
        check_teacher(sources.teacher, task, backbone.input)
    placement = place(options.accelerator, options.devices, options.precision)
    of_run = sources.previous is not None and (column is None or column.start == "previous")
    source = replace(weights.locate(backbone, options.weights), of_run=of_run)
    definition = _definition(backbone, source, options.image_size) if earlier is None else input_of(earlier)
    return Plan(
        data=options.data,
        out=Path(options.out),
        task=task,
        strategy=strategy,
        backbone=backbone,
        source=source,
        definition=definition,
        placement=placement,
        settings=_settings(
            replace(options, set=values), task, backbone, strategy, source, definition, placement, sources
        ),
        workers=_default_workers(placement, backbone) if options.workers is None else options.workers,
        checkpoint_seconds=options.checkpoint_seconds,
        sources=sources,
        kept=kept,
    )


def _check_groups(options: Options, strategy: Strategy, sources: Sources) -> None:
    """Refuse what says of no sample that certifies where it belongs."""
    if options.group_by is None:
        return
    read_rule(options.group_by)
    if strategy.certifies == "target" and sources.target is not None:
        what = "--group-by is of the data, and of this strategy the target's samples certify"
        raise EdgetlError(what, "leave it out")


def _check_serves(strategy: Strategy, task: Task, backbone: backbones.Backbone) -> None:
    """Refuse options that mean nothing to these labels or samples."""
    if task.parts and (strategy.certifies == "target" or strategy.anchor == "teacher"):
        raise EdgetlError("the strategy does not serve several tasks at once", "use --strategy multi-task or fine-tune")
    if strategy.labels and task.labels not in strategy.labels:
        told = "smoothing, balance, focal and head are of samples of one class each"
        raise EdgetlError(f"{told}, and the task is {task.name}", "leave out those --set")
    validator = VALIDATORS.get(strategy.validator)
    if validator is not None and validator.value is not None and task.labels != "class":
        what = f"{validator.about} is of samples of one class each, and the task is {task.name}"
        raise EdgetlError(what, "use --set validator=source")
    nouns = f"{INPUTS[backbone.input].noun}s"
    if strategy.mix.cutmix and backbone.input != "image":
        raise EdgetlError(f"{nouns} cannot be mixed by cutmix", "leave out --set cutmix")
    if strategy.mix and backbone.input == "text":
        raise EdgetlError(f"{nouns} cannot be mixed", "leave out --set mixup")


def _settings(
    options: Options,
    task: Task,
    backbone: backbones.Backbone,
    strategy: Strategy,
    source: weights.WeightsSource,
    definition: Input | None,
    placement: Placement,
    sources: Sources,
) -> Settings:
    return Settings(
        data=DIGITS if is_embedded(options.data) else str(Path(options.data).resolve()),
        data_sha256=sha256_file(Path(options.data)) if Path(options.data).is_file() else None,
        task=task.name,
        backbone=backbone.name,
        strategy=options.strategy,
        epochs=strategy.schedule.epochs,
        learning_rate=strategy.schedule.learning_rate,
        batch_size=_batch_size(options.batch_size, strategy),
        seed=options.seed,
        weights="pretrained" if options.weights is None else str(options.weights),
        weights_sha256=sha256_file(source.file) if source.file else None,
        preprocess=definition.to_json() if definition else None,
        accelerator=placement.accelerator,
        devices=placement.devices,
        precision=placement.precision,
        shares={name: float((options.shares or _shares(strategy)).get(name, 0.0)) for name in SPLITS},
        details=strategy.to_json(),
        options=dict(options.set),
        given=sources.to_json(),
        augment=_augmentation(options.augment, definition).to_json(),
        group_by=options.group_by,
    )


def _batch_size(given: int | str, strategy: Strategy) -> int:
    """As given; :data:`UNKNOWN` until one is found, which a strategy without gradient steps has no use for."""
    if isinstance(given, int):
        return given
    return UNKNOWN if strategy.schedule.epochs else BATCH_SIZE


def _shares(strategy: Strategy) -> Mapping[str, float]:
    """Of a source whose target certifies, all is to train on and to validate with."""
    return SOURCE if strategy.certifies == "target" else SHARES


def _augmentation(given: str | None, definition: Input | None) -> Augmentation:
    """How training images vary, tried on one.

    Raises:
        EdgetlError: there is no such variation, or the samples are no images.
    """
    found = Augmentation() if given is None else read_augmentation(given)
    if given is not None and not isinstance(definition, Preprocess):
        raise EdgetlError("only images vary in training", "leave --augment out")
    if isinstance(definition, Preprocess) and given is not None:
        check_augmentation(found, definition)
    return found


def _definition(backbone: backbones.Backbone, source: weights.WeightsSource, size: int | None) -> Input | None:
    """How a file becomes the network's input, which the network takes; None of arrays."""
    found = definitions.before_data(backbone, size)
    # Of the embedded ones at their own size it is known.
    if isinstance(found, Preprocess) and (size is not None or backbone.name not in backbones.EMBEDDED):
        check_fit(backbone, source, found)
    return found


def _matched(options: Options, beside: bool) -> tuple[Task, backbones.Backbone]:
    """The task of the data and the backbone, which must fit each other and what the data holds."""
    kind, labels = what(options.data)
    named = fitting(labels, kind)
    if beside and options.task is not None and taken_apart(options.task):
        # All tasks of the run, as its record has them; the data's is the last.
        options = replace(options, task=None)
    column, held = label_kind(labels).column, f"{options.data} holds {INPUTS[kind].noun}s"
    others = f"use --task {' or '.join(named)}"
    if options.task is None and not named:
        raise DataError(f"no task reads the column '{column}', and {held}", "see: edgetl tasks")
    several = options.task == MULTI_TASK and len(named) == 1 and bool(find_task(named[0]).parts)
    task = find_task(named[0] if several else options.task or named[0])
    if task.labels != labels:
        wanted = label_kind(task.labels).column
        raise DataError(f"the task {task.name} reads the column '{wanted}', and {options.data} has '{column}'", others)
    if kind not in task.inputs:
        nouns = " or ".join(f"{INPUTS[name].noun}s" for name in task.inputs)
        raise DataError(f"the task {task.name} reads {nouns}, and {held}", others)
    backbone = backbones.find(options.backbone or backbones.DEFAULTS[kind])
    if backbone.input != kind:
        taken = f"the backbone '{backbone.name}' takes {INPUTS[backbone.input].noun}s"
        raise EdgetlError(f"{taken}, and {held}", f"use --backbone {backbones.DEFAULTS[kind]}")
    return task, backbone


def _default_workers(placement: Placement, backbone: backbones.Backbone) -> int:
    # Texts and arrays lie in memory as they are fed. On the CPU the model takes all cores, and one loader is enough to
    # overlap with it.
    if backbone.input != "image":
        return 0
    share = (os.cpu_count() or 1) // placement.devices
    return min(8, max(share - 1, 1)) if placement.accelerator == "cuda" else int(share > 1)


__all__ = ["Options", "Plan", "plan"]
