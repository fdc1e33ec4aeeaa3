"""What a run still knows of what its start knew: the old head on the new backbone, on samples of the old task.

The linear head of the run before reads the features of the one that followed: no label of the new task, and no head of
it, has a say. Of a bundle, the features are those of its compressed backbone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgetl.base.errors import DataError, EdgetlError, RunError
from edgetl.base.progress import Progress, silent, tracked
from edgetl.base.wording import counted
from edgetl.certify import verify_arrays
from edgetl.core.bundle import Bundle
from edgetl.core.certificate import Certificate
from edgetl.core.data import Dataset, Sample, group_numbers, located, renumbered
from edgetl.core.run import Run, load_run
from edgetl.core.transfer_outcome import Retained, RetentionRecord, write_retention
from edgetl.inputs import input_of, kind_of, load_dataset
from edgetl.tasks import find_task
from edgetl.workflow.sources import open_source

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[Any]
#: The split of the old run's own samples that is asked: its certify split stays for its own certificates.
SPLIT = "search"


def retention(
    source: str | Path | Run | Bundle,
    of: str | Path | Run,
    *,
    data: str | Path | None = None,
    progress: Progress = silent,
) -> Retained:
    """How much of an earlier run's skill a later one has, which started from its weights.

    Of a run it is written next to it, ``retention.json``, where its report finds it.

    Args:
        source: the later run; or a bundle of it, whose compressed backbone is asked.
        of: the earlier run.
        data: labelled samples of the earlier task; None for the earlier run's own, its search split.
        progress: told of each sample.

    Raises:
        RunError: the runs do not belong together, or were adopted as graphs.
        DataError: no sample is left that neither was trained on.
    """
    from edgetl.transfer.classifier import head_of
    from edgetl.transfer.model import load_model, outputs
    from edgetl.transfer.stores import store_of

    old, opened = of if isinstance(of, Run) else load_run(of), open_source(source)
    learned = _checked(opened, old)
    dataset, samples, left_out = _samples(old, learned, data)
    labels, task = dataset.labels_of(samples), find_task(old.task)
    model, host = load_model(old).eval(), torch.device("cpu")
    store = store_of(model.definition, [dataset.file(sample) for sample in samples])
    (before,) = outputs(model, store, host, "the earlier model", progress).values()
    seen = (
        _seen_by_bundle(opened, dataset, samples, progress)
        if isinstance(opened, Bundle)
        else _seen_by_run(opened, dataset, samples, progress)
    )
    head = head_of(model.backbone)[1]
    after = seen @ head.weight.detach().numpy().reshape(head.out_features, -1).T + head.bias.detach().numpy()
    reference, deployed = (_answers(task.labels, values) for values in (before, after))
    groups = group_numbers(samples)
    judged = verify_arrays(reference=reference, deployed=deployed, labels=labels, task=task.name, groups=groups)
    found = _told(judged, left_out)
    if isinstance(opened, Run):
        # Where nobody can write, what was measured is told all the same.
        with contextlib.suppress(EdgetlError):
            write_retention(opened.path, RetentionRecord(opened.digest, old.digest, old.path.resolve().name, found))
    return found


def _checked(source: Run | Bundle, old: Run) -> set[str]:
    """Contents of the samples that either was trained on."""
    backbone = (
        source.backbone if isinstance(source, Run) else source.manifest.run.backbone if source.manifest.run else ""
    )
    if not backbone or not old.backbone or old.network is not None:
        raise RunError(
            "one of the models was adopted as a graph, whose head nobody can exchange", "name runs of finetune"
        )
    if find_task(old.task).parts:
        raise RunError(
            f"{old.path} is of several tasks, and retention is told of one", "name an earlier run of one task"
        )
    if backbone != old.backbone:
        what = f"the later model has the backbone '{backbone}', and {old.path} has '{old.backbone}'"
        raise RunError(what, "name the run that it started from")
    lineage = source.lineage if isinstance(source, Run) else source.manifest.lineage
    if "columns" in lineage:
        what = "earlier tasks have columns of their own in the later model, whose answers stay bit for bit"
        raise RunError(what, "name a run of another strategy; a bundle's certificate tells of each task")
    if lineage.get("pruned") != old.lineage.get("pruned"):
        what = f"channels were pruned that the head of {old.path} reads"
        raise RunError(what, "name an earlier run with the same channels")
    both = (source.dataset, old.dataset)
    return {sample.pixels for dataset in both for sample in dataset.split("train")}


def _samples(old: Run, learned: set[str], data: str | Path | None) -> tuple[Dataset, tuple[Sample, ...], int]:
    """Samples of the earlier task, with the earlier run's classes, and how many are left out."""
    if data is None:
        dataset, asked = located(old.dataset, None, [SPLIT]), old.dataset.split(SPLIT)
    else:
        dataset = load_dataset(data, kind=kind_of(old).name)
        unknown = [name for name in dataset.classes if name not in old.classes]
        if unknown or dataset.label_kind != old.dataset.label_kind:
            shown = f"the class '{unknown[0]}', which {old.path} has not" if unknown else "labels of another kind"
            raise DataError(f"{data} has {shown}", "give samples of the earlier run's task")
        names = dataset.classes
        asked = tuple(replace(s, label=renumbered(s.label, names, old.classes)) for s in dataset.samples)
        dataset = replace(dataset, classes=old.classes)
    kept = tuple(sample for sample in asked if sample.pixels not in learned)
    if not kept:
        what = f"both models were trained on all {counted(len(asked), 'sample')} of the earlier task"
        raise DataError(what, "give others: --data")
    return dataset, kept, len(asked) - len(kept)


def _seen_by_run(run: Run, dataset: Dataset, samples: Sequence[Sample], progress: Progress) -> Floats:
    """What reaches the head of a run, which sees the samples as it was trained to: (n, features)."""
    from edgetl.transfer.features import compute
    from edgetl.transfer.model import load_model
    from edgetl.transfer.stores import store_of

    model = load_model(run)
    store = store_of(model.definition, [dataset.file(sample) for sample in samples])
    return compute(model, store, torch.device("cpu"), "the later model", progress)


def _seen_by_bundle(bundle: Bundle, dataset: Dataset, samples: Sequence[Sample], progress: Progress) -> Floats:
    """The same of the compressed backbone of a bundle."""
    from edgetl.compress.head import features

    definition, artifact = input_of(bundle), bundle.artifact()
    feeds = (definition.feeds(dataset.file(sample)) for sample in samples)
    told = tracked(feeds, "the compressed model", progress, len(samples))
    simulated = bundle.manifest.target.executes_on_host() == "simulated"
    return features(artifact.path, bundle.exported, told, simulated=simulated)


def _answers(labels: str, outputs: Floats) -> Labels:
    """As :func:`verify_arrays` takes them."""
    found: Labels = outputs.argmax(1) if labels == "class" else outputs if labels == "classes" else outputs[:, 0]
    return found


def _told(found: Certificate, left_out: int) -> Retained:
    before, after, difference = found.figures
    return Retained(
        n=found.n,
        left_out=left_out,
        metric=found.metric,
        before=before,
        after=after,
        difference=difference,
        ci_low=found.ci_low,
        ci_high=found.ci_high,
        unit=found.unit,
    )
