"""``edgetl adopt``: a model that was trained elsewhere becomes a run, once it does here what its owner says it does."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.base.errors import EdgetlError
from edgetl.base.lock import exclusive
from edgetl.base.progress import Progress, silent, tracked
from edgetl.base.storage import new_folder
from edgetl.core.adoption import Adoption
from edgetl.core.data import Dataset, label_kind, read_rule, refuse_inside
from edgetl.core.run import Run, load_run, write_run
from edgetl.core.run_record import RunMetrics
from edgetl.core.val_outputs import write_val_outputs
from edgetl.inputs.base import Input
from edgetl.workflow.adoption.answers_check import check_answers
from edgetl.workflow.adoption.claim_check import check_claim, measured_on, read_claim, refuse_other_order
from edgetl.workflow.adoption.definition import define
from edgetl.workflow.adoption.given import Given
from edgetl.workflow.adoption.network import Network, Values, from_graph
from edgetl.workflow.adoption.order import Declared, lineage_of, settings_of, standing, task_for
from edgetl.workflow.adoption.readers import find_reader
from edgetl.workflow.adoption.samples import Sources, in_order, read_names, read_samples

if TYPE_CHECKING:
    from torch import nn

STRATEGY = "adopted"
#: Samples on which the model is compared with itself as it was given.
COMPARED = 16


def adopt(
    model: str | Path | nn.Module,
    data: str | Path,
    out: str | Path,
    *,
    task: str | None = None,
    preprocess: str | Path | Input | None = None,
    classes: str | Path | Sequence[str] | None = None,
    answers: str | Path | None = None,
    claim: str | None = None,
    unseen: str | Path | None = None,
    output: str | None = None,
    group_by: str | None = None,
    seed: int = 0,
    fresh: bool = False,
    progress: Progress = silent,
) -> Run:
    """Make a run of a model that was trained elsewhere: what takes runs then compresses, certifies and deploys it.

    How a sample becomes its input is declared or told by the model, and never guessed. That it does here what it did
    elsewhere is checked by what its owner knows; where that is nothing, every certificate says so.

    Args:
        model: an ONNX file, or what else :data:`edgetl.workflow.adoption.readers.READERS` take.
        data: labelled samples, as :func:`edgetl.finetune` takes them; a column or folders ``split`` say which of them
            it was trained on.
        out: the run's folder; new, empty, or of the same model.
        task: as in ``edgetl tasks``; None for the one that the data's labels and samples are for.
        preprocess: how a sample becomes its input: JSON or TOML with the fields of ``preprocess.json``, or the
            definition; what stands there overrules what the model says of itself.
        classes: names in the order of its outputs, or a file with one a line; None for those that the model tells, or
            else those of the data, sorted.
        answers: an ``.npz`` with outputs of its owner's own program: ``logits`` (n, classes) and ``sha256`` (n) of
            24 files or more. They have to agree within 2 % of their spread.
        claim: ``METRIC=VALUE``, which has to lie in the 99 % interval of what is measured.
        unseen: labelled samples that the model was not trained on, which it is certified on.
        output: name of the output that the task reads, where the model has several.
        group_by: what belongs together and so never straddles splits; see :func:`edgetl.load_dataset`.
        seed: of the splits.
        fresh: replace a run that stands in ``out``.
        progress: told of each step.

    Raises:
        NotReproducedError: the model does not do here what its owner says; the message names why, if that is known.
        CompressionError: a graph that edgetl cannot change, or that gives or takes something else.
        DataError: nothing tells the preprocessing, or samples that cannot be used.
        EdgetlError: any other bad argument.
    """
    folder = Path(out)
    asked = {"model": model, "preprocess": preprocess, "classes": classes, "answers": answers, "claim": claim}
    refuse_inside(folder, data)
    if group_by is not None:
        read_rule(group_by)
    given = find_reader(model).read(model)
    definition, told_by = define(given, preprocess)
    found = task_for(data, task, definition)
    declared = Declared(
        task=found,
        output=output,
        classes=read_names(Path(classes)) if isinstance(classes, (str, Path)) else tuple(classes or ()),
        names_told_by="the names given" if classes and not isinstance(classes, (str, Path)) else "--classes",
        answers=None if answers is None else Path(answers),
        claim=None if claim is None else read_claim(claim, found),
    )
    sources = Sources(data, unseen, definition.kind, seed, group_by)
    settings = settings_of(given, definition, sources, declared)
    with exclusive(folder, "adoption"):
        if (there := standing(folder, settings, fresh)) is not None:
            return there
        # What a killed adoption left: the folder is held, so nobody is at work there.
        for leftover in folder.resolve().parent.glob(f".{folder.name}.*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)
        with new_folder(folder) as partial:
            dataset, told = read_samples(sources, partial, progress)
            adoption = Adoption(
                source=given.source, model=given.model, sha256=given.sha256, told_by=told_by, unseen=told
            )
            lineage = lineage_of(given, sources, declared, folder, {**asked, "output": output})
            _fill(partial, Subject(given, definition, dataset, declared), adoption, settings, lineage, progress)
    return load_run(folder)


@dataclass(frozen=True)
class Subject:
    """Everything that an adoption is about."""

    given: Given
    definition: Input
    dataset: Dataset
    declared: Declared

    def ordered(self) -> tuple[Subject, str]:
        """The same with the model's classes, in its order, and where that order was told."""
        if not label_kind(self.dataset.label_kind).fewest:
            return self, ""
        names, told_by = self.declared.classes, self.declared.names_told_by
        if not names:
            names, told_by = self.given.classes, self.given.names_told_by
        if not names:
            names, told_by = self.dataset.classes, "the names in the data, sorted"
        return replace(self, dataset=in_order(self.dataset, names, told_by)), told_by


def _fill(
    folder: Path,
    subject: Subject,
    adoption: Adoption,
    settings: Mapping[str, Any],
    lineage: Mapping[str, Any],
    progress: Progress,
) -> None:
    subject, names_told_by = subject.ordered()
    dataset, task, definition = subject.dataset, subject.declared.task, subject.definition
    network = _network(subject, progress)
    measured = measured_on(task, network, dataset)
    paths = tracked(measured.paths, "running the adopted model", progress)
    own = np.concatenate([network.answer(definition.feeds(path)) for path in paths])
    adoption = replace(
        adoption, names_told_by=names_told_by, changes=network.changes, parity=network.parity,
        **_verified(subject, network, own, progress),
    )  # fmt: skip
    network.write(folder)
    write_val_outputs(folder, {network.output: own.astype(np.float32)})
    metric = task.metrics[task.metric]
    evidence = measured.evidence(own)
    scores = {name.replace("-", "_"): m.of(evidence) for name, m in task.metrics.items()}
    write_run(
        folder,
        task=task.name,
        backbone=subject.given.backbone or subject.given.model,
        strategy=STRATEGY,
        dataset=dataset,
        input_record=definition.to_json(),
        input_files=definition.files,
        settings=settings,
        metrics=RunMetrics(
            val={**{name: value for name, value in scores.items() if np.isfinite(value)}, "n": len(own)},
            metric=task.metric.replace("-", "_"),
            better=metric.better,
        ),
        lineage=lineage,
        adoption=adoption,
    )


def _network(subject: Subject, progress: Progress) -> Network:
    given, task, dataset = subject.given, subject.declared.task, subject.dataset
    progress(f"preparing {given.model}", 0, 1)
    (spec,) = task.outputs(dataset.classes)
    samples = subject.definition.batch(dataset.paths(dataset.measured)[:COMPARED])
    if given.backbone and given.module is not None:
        made: Network = _torch().from_module(given.module, subject.definition, task, dataset.classes)
        progress(f"preparing {given.model}", 1, 1)
        return made
    foreign = given.foreign
    if foreign is None and subject.declared.output is not None:
        raise EdgetlError(f"{given.model} has one output, without a name", "leave --output out")
    if foreign is None:
        assert given.module is not None
        foreign = _torch().exported(given.module, given.model, subject.definition, samples)
    made = from_graph(foreign, subject.definition, spec, dataset.label_kind, subject.declared.output, samples)
    progress(f"preparing {given.model}", 1, 1)
    return made


def _torch() -> ModuleType:
    """What knows torch models, imported for these alone: an ONNX file takes no torch."""
    return importlib.import_module("edgetl.workflow.adoption.torch_network")


def _verified(subject: Subject, network: Network, own: Values, progress: Progress) -> dict[str, Any]:
    """By what it was checked that the model does here what it did elsewhere, and the evidence.

    Raises:
        NotReproducedError: it does something else.
    """
    declared, dataset, definition = subject.declared, subject.dataset, subject.definition
    evidence: dict[str, Any] = {}
    verified = ""
    if declared.answers is not None:
        evidence["answers"] = check_answers(declared.answers, dataset, network, definition, progress)
        verified = "answers"
    measured = measured_on(declared.task, network, dataset)
    refuse_other_order(own, measured, dataset.classes, network, definition, progress)
    if declared.claim is not None:
        evidence["claim"] = check_claim(declared.claim, own, measured, network, definition, progress)
        verified = verified or "claim"
    return {"verified": verified, "evidence": evidence}
