"""Which backbone suits a data set: features of its samples to learn from, and what they are worth."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgetl.base.errors import EdgetlError
from edgetl.base.progress import Progress, silent
from edgetl.core.data import Dataset
from edgetl.core.data.samples import CLASS, Sample
from edgetl.inputs import load_dataset
from edgetl.tasks import Task
from edgetl.transfer import backbones
from edgetl.transfer.choosing.probe import Probe, probed
from edgetl.transfer.choosing.subject import Subject, subject
from edgetl.transfer.choosing.transferability import logme, nleep, one_hot
from edgetl.transfer.plan import Options, Plan, plan

#: Most samples that backbones are judged on.
MOST = 2000


@dataclass(frozen=True)
class Ranked:
    """One backbone, and what its features are worth for the samples.

    Attributes:
        backbone: its name.
        parameters: numbers in it, without a head.
        macs: multiply-accumulates for one sample; None of texts, whose length decides.
        features: how many its head sees.
        logme, nleep: see :mod:`edgetl.transfer.choosing.transferability`; NLEEP None where a sample is of no one class.
        metric: the task's default.
        probe: what a cross-validated linear head reaches.
        best: whether none is better beyond chance: the 95 % interval of the paired difference from the leader holds 0.
        seconds: that its features took.
    """

    backbone: str
    parameters: int
    macs: int | None
    features: int
    logme: float
    nleep: float | None
    metric: str
    probe: Probe
    best: bool
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As ``edgetl rank --json`` has it."""
        interval = {"value": self.probe.value, "low": self.probe.low, "high": self.probe.high}
        return {
            "backbone": self.backbone,
            "parameters": self.parameters,
            "macs": self.macs,
            "features": self.features,
            "logme": self.logme,
            "nleep": self.nleep,
            "probe": {"metric": self.metric, **{n: v if np.isfinite(v) else None for n, v in interval.items()}},
            "best": self.best,
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True)
class Ranking:
    """Backbones, the best first.

    Attributes:
        task: what they would be trained for.
        kind: of input.
        samples: they were judged on.
        held: held back to certify on.
        classes: of each, how many samples; empty where labels are numbers.
        rows: what each is worth.
        left_out: those that cannot be judged here, and why.
    """

    task: Task
    kind: str
    samples: int
    held: int
    classes: Mapping[str, int]
    rows: tuple[Ranked, ...]
    left_out: Mapping[str, str]


def rank(
    data: str | Path,
    *,
    task: str | None = None,
    names: Sequence[str] = (),
    image_size: int | None = None,
    seed: int = 0,
    accelerator: str = "auto",
    look: Callable[[Subject], None] | None = None,
    progress: Progress = silent,
) -> Ranking:
    """Judge backbones by the samples of a data set that are there to learn from; what is held back stays unread.

    Args:
        data, task, image_size, seed, accelerator: as for :func:`edgetl.finetune`.
        names: of backbones; all that lie on this machine for data of this kind, unless any are named.
        look: is shown each backbone once it is judged.
        progress: told of each sample.

    Raises:
        EdgetlError: as finetune, or none of the backbones can be judged.
    """
    orders, left_out = _orders(data, task, names, image_size, seed, accelerator)
    known = orders[0].task
    if known.parts:
        what = f"{data} is of several tasks, and a backbone is judged by one"
        raise EdgetlError(what, f"give a table with one of its columns ({', '.join(known.parts)})")
    with tempfile.TemporaryDirectory() as folder:
        kind, into = orders[0].backbone.input, Path(folder) / "samples"
        dataset = load_dataset(data, kind=kind, seed=seed, into=into, progress=progress)
        held = len(dataset.split("certify"))
        dataset = replace(dataset, samples=drawn(dataset, seed))
        judged = []
        for order in orders:
            chosen = subject_of(order)
            judged.append(_judged(chosen, order, dataset, progress))
            if look is not None:
                look(chosen)
    rows = sorted(judged, key=lambda row: row.probe.value, reverse=known.metrics[known.metric].better == "higher")
    rows = [replace(row, best=_as_good(known, row, rows[0])) for row in rows]
    return Ranking(known, kind, len(dataset.samples), held, _counts(dataset), tuple(rows), left_out)


def _orders(
    data: str | Path, task: str | None, names: Sequence[str], size: int | None, seed: int, accelerator: str
) -> tuple[list[Plan], dict[str, str]]:
    """A linear probe of each backbone; and why some cannot be."""

    def order(name: str | None) -> Plan:
        given = (data, "unused", task, name, "linear-probe", None, seed, 32, None, size, None, 1, accelerator)
        return plan(Options(*given, "auto", 0, None, 60.0))

    wanted, left_out = list(dict.fromkeys(names)), dict[str, str]()
    if not wanted:
        kind = order(None).backbone.input
        left_out = {row.name: why for row in backbones.EMBEDDED.values() if row.input == kind and (why := _absent(row))}
        wanted = [row.name for row in backbones.EMBEDDED.values() if row.input == kind and row.name not in left_out]
    for name in names:
        if why := _untrained(backbones.find(name)):
            raise EdgetlError(f"the backbone '{name}' cannot be ranked: {why}", "name a pretrained one")
    if not wanted:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise EdgetlError(f"no backbone for {data} can be ranked ({why})", "name one: --backbone NAME")
    return [order(name) for name in wanted], left_out


def _untrained(backbone: backbones.Backbone) -> str:
    return "" if backbone.pretrained else "it starts from random weights, whose features tell nothing"


def _absent(backbone: backbones.Backbone) -> str:
    return _untrained(backbone) or ("" if backbone.offline else f"its weights are not here ({backbone.weights})")


def drawn(dataset: Dataset, seed: int) -> tuple[Sample, ...]:
    """Samples to learn from, :data:`MOST` at most, drawn evenly."""
    held = [sample for sample in dataset.samples if sample.split in ("train", "val")]
    order = np.random.default_rng(seed).permutation(len(held))[:MOST]
    return tuple(held[row] for row in order)


def _counts(dataset: Dataset) -> dict[str, int]:
    if dataset.label_kind != CLASS:
        return {}
    found = np.bincount(dataset.labels_of(dataset.samples), minlength=len(dataset.classes))
    return {name: int(count) for name, count in zip(dataset.classes, found, strict=True)}


def subject_of(order: Plan) -> Subject:
    """The backbone of an order."""
    return subject(order.backbone, order.source, order.input, order.placement.device, order.settings.seed)


def _judged(chosen: Subject, order: Plan, dataset: Dataset, progress: Progress) -> Ranked:
    task, seed, began = order.task, order.settings.seed, time.perf_counter()
    files = [dataset.file(sample) for sample in dataset.samples]
    seen = chosen.features(files, f"features of {chosen.name}", progress)
    seconds, labels = time.perf_counter() - began, dataset.labels_of(dataset.samples)
    classes = task.labels == CLASS
    targets = one_hot(labels) if classes else np.asarray(labels, np.float64).reshape(len(labels), -1)
    # The offset and the unit of numbers are no merit of the features.
    targets = targets if classes or targets.shape[1] > 1 else (targets - targets.mean()) / (targets.std() or 1.0)
    return Ranked(
        backbone=chosen.name,
        parameters=chosen.parameters,
        macs=chosen.macs,
        features=seen.shape[1],
        logme=logme(seen, targets),
        nleep=nleep(seen, labels, seed) if classes else None,
        metric=task.metric,
        probe=probed(seen, labels, dataset.classes, task, seed),
        best=False,
        seconds=seconds,
    )


def _as_good(task: Task, row: Ranked, leader: Ranked) -> bool:
    """Whether the leader's lead over it may be chance: the samples of each replicate are the same for both."""
    ahead = task.metrics[task.metric].gain(row.probe.replicates, leader.probe.replicates)
    return bool(np.quantile(ahead, 0.025) <= 0) if np.isfinite(ahead).all() else True
