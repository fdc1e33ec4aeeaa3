"""The samples on which the trained and the deployed model differ most, shown inside the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BundleError
from edgetl.base.wording import number
from edgetl.core.bundle import PREDICTIONS, Bundle
from edgetl.core.data import Part, parts_of
from edgetl.core.npz import read_npz
from edgetl.core.tensors import Arrays
from edgetl.reporting.samples import Card, Previews
from edgetl.reporting.views import Fact
from edgetl.tasks import Task, find_task

#: Samples of each kind in a page; the rest are counted, not shown, so that the page stays light.
SHOWN = 60
#: Samples whose error grew that are shown.
WORSENED = 24
_AGAIN = "verify the bundle again"
_MODELS = ("reference", "deployed")
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Group:
    """Samples that changed alike: ``kind`` is a class of the style sheet, ``total`` how many there are in all."""

    title: str
    kind: str
    cards: tuple[Card, ...]
    total: int


@dataclass(frozen=True)
class Changes:
    """Groups of samples; ``absent`` says why there are none."""

    title: str
    groups: tuple[Group, ...]
    absent: str = ""


@dataclass(frozen=True)
class Saved:
    """Predictions of a bundle: answers of each model, as its task decodes them, and what they are about."""

    paths: Sequence[str]
    labels: npt.NDArray[Any]
    answers: Mapping[str, Arrays]


def changes(bundle: Bundle, kind: str, noun: str, *, data_root: Path | None = None) -> Changes:
    """Find the samples that were lost and gained or, where answers are numbers, whose errors grew the most.

    Args:
        bundle: a bundle; without saved predictions the result is empty and says so.
        kind: of its input.
        noun: what one sample is called.
        data_root: where the samples lie now; by default where they lay when the run was made.

    Raises:
        BundleError: the predictions are damaged or of another version.
    """
    task = find_task(bundle.manifest.task)
    judged = bool(task.exact) or task.labels in EQUAL or bool(task.parts)
    title = f"{noun.capitalize()}s {'lost and gained' if judged else 'whose error grew'}"
    file = bundle.path / PREDICTIONS
    if not file.is_file():
        return Changes(title, (), "There are no saved predictions: verify the bundle to get them.")
    previews = Previews(bundle.dataset, kind, data_root)
    if not task.parts:
        return Changes(title, _groups(task, _saved(file, task, len(bundle.labels)), bundle.labels, previews))
    groups: list[Group] = []
    for part in parts_of(task.labels, bundle.labels):
        own = task.parts[part.name]
        found = _groups(own, _saved(file, own, len(part.classes), part), part.classes, previews)
        groups += [replace(group, title=f"{part.name}: {group.title[:1].lower()}{group.title[1:]}") for group in found]
    return Changes(title, tuple(groups))


def _groups(task: Task, saved: Saved, names: Sequence[str], previews: Previews) -> tuple[Group, ...]:
    answer = ANSWERS[task.labels]
    right = _right(task, saved)

    def card(row: int) -> Card:
        facts = [Fact("true", _truth(task, saved, names, row))]
        for model, word in zip(_MODELS, ("before", "after"), strict=True):
            style = "" if right is None else "right" if right[model][row] else "wrong"
            facts.append(Fact(word, answer(saved.answers[model], names, row), style))
        return Card(saved.paths[row], previews.of(saved.paths[row]), tuple(facts))

    if right is None:
        return (_worsened(saved, card),)

    def cards(rows: npt.NDArray[np.int64]) -> tuple[Card, ...]:
        return tuple(map(card, rows[:SHOWN].tolist()))

    before, after = (right[model] for model in _MODELS)
    lost, gained = np.flatnonzero(before & ~after), np.flatnonzero(~before & after)
    return (
        Group("Lost: right before, wrong after", "lost", cards(lost), len(lost)),
        Group("Gained: wrong before, right after", "gained", cards(gained), len(gained)),
    )


def _worsened(saved: Saved, card: Callable[[int], Card]) -> Group:
    before, after = (saved.answers[model]["values"].astype(np.float64).reshape(-1) for model in _MODELS)
    labels = saved.labels.reshape(-1)
    growth = np.abs(after - labels) - np.abs(before - labels)
    order = [int(row) for row in np.argsort(-growth, kind="stable") if growth[row] > 0]
    cards = []
    for row in order[:WORSENED]:
        plain = card(row)
        grown = Fact("error grew by", number(float(growth[row])), "wrong")
        cards.append(Card(plain.path, plain.preview, (*plain.facts, grown)))
    return Group("The largest growth first", "worsened", tuple(cards), len(order))


#: Kind of label → whether an answer is the label, for tasks none of whose metrics says which answers are right.
EQUAL: Mapping[str, Callable[[Arrays, npt.NDArray[Any]], Booleans]] = {
    "class": lambda answers, labels: np.asarray(answers["class"] == labels),
    "classes": lambda answers, labels: np.asarray((answers["present"] == labels.astype(bool)).all(axis=1)),
}


def _right(task: Task, saved: Saved) -> dict[str, Booleans] | None:
    """Whether each model is right, by model; None where no answer is right or wrong."""
    if (right := task.metrics[task.exact].right if task.exact else None) is not None:
        return {model: right(task.evidence(saved.answers[model], saved.labels)) for model in _MODELS}
    equal = EQUAL.get(task.labels)
    return equal and {model: equal(saved.answers[model], saved.labels) for model in _MODELS}


def _saved(file: Path, task: Task, classes: int, part: Part | None = None) -> Saved:
    """What a bundle keeps of a task, or of one of several: of the samples that have a label of it."""
    try:
        arrays = read_npz(file)
        paths, labels = [str(path) for path in arrays["paths"]], arrays["labels"]
        answers = {model: _answers(arrays, model, task, "" if part is None else part.name) for model in _MODELS}
        if part is not None:
            known = part.known(labels)
            paths = [path for path, has in zip(paths, known, strict=True) if has]
            answers = {model: {key: v[known] for key, v in own.items()} for model, own in answers.items()}
            labels = part.own(labels)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise BundleError(f"{file} is damaged or of another version", _AGAIN) from error
    given = [values for model in answers.values() for values in model.values()]
    shapes = SHAPES[task.labels](len(paths), classes)
    if any(values.shape not in shapes or values.dtype.kind not in "fiub" for values in (labels, *given)):
        raise BundleError(f"{file} holds no predictions of its {len(paths)} samples for {task.name}", _AGAIN)
    return Saved(paths, labels, answers)


#: Kind of label → the shapes that labels and answers may have, given how many samples and classes there are.
SHAPES: Mapping[str, Callable[[int, int], tuple[tuple[int, ...], ...]]] = {
    "class": lambda samples, classes: ((samples,),),
    "classes": lambda samples, classes: ((samples, classes),),
    "number": lambda samples, classes: ((samples,), (samples, 1)),
}


def _answers(arrays: Arrays, model: str, task: Task, part: str) -> dict[str, npt.NDArray[Any]]:
    """An answer of one array lies under its model's name, one of several under ``MODEL.NAME``.

    Those of one of several tasks lie under ``MODEL.TASK.NAME``.
    """
    single = {"class": "class", "number": "values"}
    of = f"{model}.{part}." if part else f"{model}."
    if task.labels in single:
        key = single[task.labels]
        return {key: arrays[f"{of}{key}" if part else model]}
    return {"logits": arrays[f"{of}logits"], "present": arrays[f"{of}present"].astype(bool)}


def _truth(task: Task, saved: Saved, names: Sequence[str], row: int) -> str:
    label = saved.labels[row]
    if task.labels == "number":
        return number(float(label))
    return _name(names, int(label)) if task.labels == "class" else _present(label.astype(bool), names)


def _of_class(answers: Arrays, names: Sequence[str], row: int) -> str:
    return _name(names, int(answers["class"][row]))


def _of_classes(answers: Arrays, names: Sequence[str], row: int) -> str:
    return _present(answers["present"][row], names)


def _of_number(answers: Arrays, names: Sequence[str], row: int) -> str:
    return number(float(answers["values"].reshape(-1)[row]))


#: Kind of label → an answer in words, given all answers, the classes' names and the row.
ANSWERS: Mapping[str, Callable[[Arrays, Sequence[str], int], str]] = {
    "class": _of_class,
    "classes": _of_classes,
    "number": _of_number,
}


def _present(present: Booleans, names: Sequence[str]) -> str:
    return ", ".join(_name(names, int(label)) for label in np.flatnonzero(present)) or "none"


def _name(names: Sequence[str], label: int) -> str:
    return names[label] if 0 <= label < len(names) else f"class {label}"
