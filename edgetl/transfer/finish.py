"""The last step of training: from the best epoch to a finished run, and what its record says of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import torch

from edgetl.base.extras import version
from edgetl.base.progress import Progress
from edgetl.base.storage import write_bytes
from edgetl.base.wording import counted
from edgetl.core.adaptation import Adaptation
from edgetl.core.data import Dataset
from edgetl.core.licences import licences_beside
from edgetl.core.run import WEIGHTS, Run, write_run
from edgetl.core.run_record import RunMetrics
from edgetl.core.val_outputs import START_OUTPUTS, write_val_outputs
from edgetl.transfer import checkpoint, domains
from edgetl.transfer.assembly import Job, finished, started
from edgetl.transfer.augment import LIGHT, PRESETS
from edgetl.transfer.batch_size import recorded
from edgetl.transfer.checkpoint import State
from edgetl.transfer.classifier import head_of
from edgetl.transfer.columns import LATERAL, columns_of
from edgetl.transfer.model import Deployable, val_outputs
from edgetl.transfer.model import outputs as model_outputs
from edgetl.transfer.plan import Plan
from edgetl.transfer.scores import CALIBRATED, Scores, key
from edgetl.transfer.stores import store_of
from edgetl.transfer.strategies.base import GIVEN_BY
from edgetl.transfer.tasks import scored
from edgetl.transfer.train import SATURATED
from edgetl.transfer.validators import VALIDATORS
from edgetl.transfer.weights import architecture
from edgetl.transfer.widths import digest

VERSIONS = ("edgetl", "torch", "torchvision", "timm", "lightning_fabric", "peft", "modelopt", "sklearn", "numpy", "PIL")
#: Said of a run between two domains, by what its batch norms do.
STATISTICS = {
    "frozen": "",
    "train": "Batch norms end with the source's statistics.",
    "adapt": "The head was fitted under the source's own batch statistics; the network ends with the target's.",
}


def finish(order: Plan, job: Job, progress: Progress) -> Run:
    """Finalize the best epoch, score it in float32, and write the run, its manifest last."""
    state = checkpoint.restore(order.checkpoints, {}) or State(best=job.start)
    dataset, device = job.dataset, order.placement.device
    network, trained = finished(job, state.best_epoch)
    order.learner.scale(dataset.labels("train")).fold(head_of(network.backbone)[1])
    network.eval().to(device, memory_format=torch.channels_last)
    outputs = val_outputs(network, dataset, device)
    dataset, adaptation = _adapted(order, job, network, progress)
    metrics = RunMetrics(
        val=scored(order.task, outputs, dataset.labels("val")).to_json(),
        start=job.start.to_json(),
        metric=key(order.task.metric),
        better=order.task.metrics[order.task.metric].better,
        best_epoch=state.best_epoch,
        epochs_run=state.epoch,
    )
    checkpoint.write_weights(order.out / WEIGHTS, network.backbone.state_dict())
    write_val_outputs(order.out, outputs)
    if state.epoch and (order.checkpoints / START_OUTPUTS).is_file():
        write_bytes(order.out / START_OUTPUTS, (order.checkpoints / START_OUTPUTS).read_bytes())
    return write_run(
        order.out,
        task=order.task.name,
        backbone=order.backbone.name,
        strategy=order.settings.strategy,
        dataset=dataset,
        input_record=order.input.to_json(),
        input_files=order.input.files,
        settings=order.settings.to_json(),
        metrics=metrics,
        lineage=_lineage(order, job, state, trained),
        adaptation=adaptation,
    )


def _adapted(order: Plan, job: Job, network: Deployable, progress: Progress) -> tuple[Dataset, Adaptation | None]:
    """What is told of two domains; the data set with the network's answers where the target has no labels."""
    dataset, strategy, target = job.dataset, order.strategy, order.sources.target
    if strategy.certifies == "data" or target is None:
        return dataset, None
    device, labelled = order.placement.device, domains.has_labels(target, dataset.label_kind)
    nobody = domains.HELD[:1] if labelled else domains.HELD
    dataset = domains.answered(dataset, nobody, network, order.learner.answers, device, progress)
    search = {}
    if labelled:
        store = store_of(network.definition, dataset.paths("search"))
        found = model_outputs(network, store, device, "scoring on the target", progress)
        search = scored(order.task, found, dataset.labels("search")).to_json()
    validator = VALIDATORS[strategy.validator] if strategy.schedule.epochs else None
    judged = job.streams.judged
    return dataset, Adaptation(
        target=target.name,
        labelled=labelled,
        samples=len(job.streams.samples["target"].paths) if "target" in job.streams.samples else 0,
        validator=validator.about if validator else "",
        judged=len(judged.paths) if validator and validator.value and judged else 0,
        statistics=STATISTICS[strategy.params.batch_norm],
        search=search,
    )


def _origin(run: Run) -> dict[str, Any]:
    """The run that this one starts from, and what that one started from: a chain, the last link first."""
    earlier = run.lineage.get("from")
    return {
        "digest": run.digest,
        "strategy": run.strategy,
        "classes": len(run.classes),
        "val": dict(run.metrics.val),
        **{name: run.lineage[name] for name in ("weights", "weights_sha256", "licence") if name in run.lineage},
        **({"from": earlier} if isinstance(earlier, dict) else {}),
    }


def _pruned(order: Plan, job: Job) -> dict[str, Any]:
    """How much of the backbone is left, and which channels, by the weights that were left of them at the start.

    Handed down to runs that start from this one: whoever takes the mean of two runs must know that theirs are the same.
    """
    if order.strategy.column is not None:
        return {}
    if order.strategy.rebuild is None:
        previous = order.sources.previous
        return {} if previous is None else {k: v for k, v in previous.lineage.items() if k == "pruned"}
    start = started(job).backbone
    whole = architecture(order.backbone, head_of(start)[1].out_features, order.source, order.input)
    left, of = (sum(value.numel() for value in each.parameters()) for each in (start, whole))
    return {"pruned": {"parameters": left, "of": of, "start_sha256": digest(start)}}


def _columns(order: Plan, job: Job) -> dict[str, Any]:
    """Of several columns the tasks that each answers, its parameters, and those of the adapters that read for it."""
    if order.strategy.column is None:
        return {}
    network, parts = started(job).backbone, iter(job.dataset.parts)
    told: list[dict[str, Any]] = []
    for number, column in enumerate(columns_of(network)):
        tasks, left = list[str](), head_of(column)[1].out_features
        while left > 0:
            part = next(parts)
            tasks, left = [*tasks, part.name], left - part.width
        own = sum(value.numel() for value in column.parameters())
        lateral = sum(
            value.numel() for name, value in network.named_parameters() if name.startswith(f"{LATERAL}.{number}.")
        )
        told.append({"tasks": tasks, "parameters": own, "lateral": lateral})
    before = sum(each["parameters"] + each["lateral"] for each in told[:-1])
    grown = (told[-1]["parameters"] + told[-1]["lateral"]) / before
    return {"columns": told, "grown_by": round(grown, 4)}


def _choice(start: Scores, best: Scores) -> str:
    """By what the epoch was chosen, in a sentence, where it is not the task's own metric; "" elsewhere."""
    if best.ranked != CALIBRATED or best.n == 0:
        return ""
    samples = counted(best.n, "validation sample")
    told = f"{samples} are too few to tell epochs apart by their answers: their calibrated log loss chose the epoch."
    if start.saturated:
        told += f" The start is right on all of them: training ends after {SATURATED} epochs that do not lower it."
    return told


def _data_licences(order: Plan) -> dict[str, str]:
    """What is stated beside the data, this run's and those of the run that it goes on from."""
    previous = order.sources.previous
    earlier = None if previous is None else previous.lineage.get("data_licences")
    given = [str(source["data"]) for source in order.settings.given.values() if source.get("data")]
    return {**(earlier if isinstance(earlier, Mapping) else {}), **licences_beside([order.data, *given])}


def _unmoved(order: Plan, state: State) -> str:
    """That a new column is what it started as, in a sentence; "" elsewhere."""
    if order.strategy.column is None or state.best_epoch:
        return ""
    return "No epoch is better than the start: the new column is what it started as, and its adapters add nothing."


def _lineage(order: Plan, job: Job, state: State, trained: Mapping[str, int]) -> dict[str, Any]:
    """Where the run came from; clocks belong here, because they differ between equal runs."""
    speed = state.epoch * len(job.dataset.split("train")) / state.seconds if state.seconds else None
    command = ["edgetl", "finetune", str(order.data), "--out", str(order.out), "--task", order.task.name]
    command += ["--backbone", order.backbone.name, "--strategy", order.settings.strategy]
    command += [word for name, value in order.settings.options.items() for word in ("--set", f"{name}={value}")]
    for name, given in order.settings.given.items():
        command += [GIVEN_BY[name], given.get("run") or given["data"]]
    command += ["--seed", str(order.settings.seed)]
    if (augment := order.settings.augment["name"]) in PRESETS and augment != LIGHT.name:
        command += ["--augment", augment]
    return {
        "backbone": order.backbone.name,
        "architecture": f"{order.backbone.source}: {order.backbone.architecture}",
        **order.source.to_json(order.backbone),
        "citation": order.backbone.citation,
        "versions": {name: version(name) for name in VERSIONS},
        "seed": order.settings.seed,
        "trained": dict(trained),
        **({"batch_size": searched} if (searched := recorded(job.checkpoints)) else {}),
        **_pruned(order, job),
        **_columns(order, job),
        **({"frozen": job.frozen.to_json()} if job.frozen.of else {}),
        **({"from": _origin(order.sources.previous)} if order.sources.previous else {}),
        **({"data_licences": stated} if (stated := _data_licences(order)) else {}),
        "streams": {name: stream.to_json() for name, stream in job.streams.samples.items()},
        "command": shlex.join(command),
        "threads": torch.get_num_threads(),
        "choice": (_choice(job.start, state.best) or _unmoved(order, state)) if state.epoch else "",
        "timing": {"train_seconds": round(state.seconds, 1), "samples_per_second": speed and round(speed, 1)},
    }
