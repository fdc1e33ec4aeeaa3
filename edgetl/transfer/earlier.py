"""The tasks of an earlier run beside a new one: one data set, of which the earlier tasks' samples train nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgetl.base.errors import DataError, EdgetlError, RunError
from edgetl.base.progress import Progress
from edgetl.base.wording import counted
from edgetl.core.data import SPLITS, Dataset, Label, Sample, located
from edgetl.core.data.several import CLASS_OF, joined
from edgetl.core.run import Run, load_run
from edgetl.inputs import kind_of
from edgetl.tasks import Task, find_task
from edgetl.transfer.domains import joined_with
from edgetl.transfer.strategies.base import NewColumn

#: What tasks are called that have no name, by their number.
_NUMBERED = "task{}"
#: Splits of the earlier run that its tasks are measured by again; what it learned from is not learned again.
HELD = ("val", "calibration", "search", "certify")


def with_new(run: Run, task: Task, column: NewColumn) -> Task:
    """The tasks of a run, and the one (or those) of new data.

    Raises:
        EdgetlError: two of one name.
        RunError: the run's samples have no labels of their own.
    """
    if run.adaptation is not None:
        what = f"{run.path} was adapted to a target domain, whose samples its own answers may be the labels of"
        raise RunError(what, "give --from a run of labelled data")
    earlier, name = earlier_tasks(run), column.name
    number = len(earlier) + 1
    while not name and (found := _NUMBERED.format(number)):
        name, number = "" if found in earlier else found, number + 1
    new = {each: part.name for each, part in task.parts.items()} or {name: task.name}
    if twice := sorted(set(earlier) & set(new)):
        remedy = f"its tasks are {', '.join(earlier)}: give the new one another name, --set name=NAME"
        raise EdgetlError(f"{run.path} has a task '{twice[0]}'", remedy)
    return find_task(joined({**earlier, **new}))


def earlier_tasks(run: Run) -> dict[str, str]:
    """The tasks of a run by name, the first one's number where it has none."""
    task = find_task(run.task)
    return {name: part.name for name, part in task.parts.items()} or {_NUMBERED.format(1): task.name}


def with_earlier(dataset: Dataset, run: Run, task: Task, own: Path, progress: Progress) -> Dataset:
    """New data with what an earlier run holds back, each sample with its labels of its own tasks.

    A sample that the run knows already keeps the split that it had there, and what a run before it learned from trains
    again: nothing that is to be measured on was learned from, then or now.

    Args:
        dataset: the new data.
        run: the earlier run, whose samples lie where they lay.
        task: of :func:`with_new`.
        own: the folder that holds what readers write for the new run.
        progress: told of each file.

    Raises:
        DataError: samples of the run are gone or changed, or a split has none of the new ones.
    """
    names = list(earlier_tasks(run))
    new = [name for name in task.parts if name not in names]
    old = located(run.dataset, None, HELD, kind_of(run).noun, progress)
    learned, gone = _learned(run)
    known = {pixels: Sample("", (), "", pixels, "train") for pixels in learned}
    known |= {sample.pixels: sample for sample in run.dataset.samples}
    samples = [_known(sample, known.get(sample.pixels), dataset, old, len(names)) for sample in dataset.samples]
    again = {sample.pixels for sample in samples}
    held = [
        (old.file(sample), replace(sample, label=(*_entries(old, sample.label), *[None] * len(new))))
        for sample in old.samples
        if sample.split in HELD and sample.pixels not in again
    ]
    moved = sum(one.split != other.split for one, other in zip(dataset.samples, samples, strict=True))
    whole = replace(
        dataset,
        samples=tuple(samples),
        classes=(*_named(old, names[0]), *_named(dataset, new[0])),
        label_kind=task.labels,
        notes=(*dataset.notes, *_notes(run, names, len(held), moved), *gone),
    )
    _refuse_unmeasured(whole, new, run)
    return joined_with(whole, held, own, "earlier")


def _learned(run: Run) -> tuple[set[str], list[str]]:
    """Contents of what a run and those before it learned from; and what to say of one that is not there any more."""
    found, seen = set[str](), set[str]()
    while run.digest not in seen:
        seen.add(run.digest)
        found |= {sample.pixels for sample in run.dataset.split("train")}
        given = run.settings.get("given")
        before = given.get("previous") if isinstance(given, Mapping) else None
        if not isinstance(before, Mapping):
            break
        try:
            run = load_run(str(before.get("run")))
            there = run.digest == before.get("digest")
        except EdgetlError:
            there = False
        if not there:
            return found, [f"{before.get('run')} is gone: of what it learned from, some may be measured on"]
    return found, []


def _known(sample: Sample, before: Sample | None, dataset: Dataset, old: Dataset, tasks: int) -> Sample:
    """A sample of the new data, in the split and with the labels that the run knows of it."""
    told = _entries(old, before.label) if before is not None and before.split in HELD else (None,) * tasks
    split = sample.split if before is None else before.split
    return replace(sample, label=(*told, *_entries(dataset, sample.label)), split=split)


def _entries(dataset: Dataset, label: Label) -> tuple[Any, ...]:
    """A label of several tasks as it is, of one as the only entry."""
    return label if dataset.parts and isinstance(label, tuple) else (label,)


def _named(dataset: Dataset, name: str) -> tuple[str, ...]:
    """Classes by the names that they have among several tasks."""
    return dataset.classes if dataset.parts else tuple(f"{name}{CLASS_OF}{each}" for each in dataset.classes)


def _notes(run: Run, names: Sequence[str], held: int, moved: int) -> list[str]:
    """What the owner of the data should know of what became of them."""
    noun, told = kind_of(run).noun, " and ".join(names)
    notes = [f"{told} stays as in {run.path.name}: {counted(held, noun)} that it held back are measured on again"]
    return notes + ([f"{counted(moved, noun)} got the split that {run.path.name} has them in"] if moved else [])


def _refuse_unmeasured(dataset: Dataset, new: Sequence[str], run: Run) -> None:
    """Every split has to have labels of the new tasks, whatever the run knew of the samples already."""
    for split in SPLITS:
        labels = dataset.labels(split)
        lacking = [part.name for part in dataset.parts if part.name in new and not part.known(labels).any()]
        if lacking:
            what = f"no sample of the new data is left for {split}: {run.path} has most of them in other splits"
            raise DataError(what, f"give samples that it does not know, with labels of '{lacking[0]}'")
