"""Several tasks at once: their labels in one table, their metrics, and the certificates of each and of all."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgetl.base.errors import CertifyError, DataError, UnknownNameError
from edgetl.base.storage import DIGEST_FIELD, sealed
from edgetl.certify import certify_answers
from edgetl.core.certificate import Certificate
from edgetl.core.data import Dataset, label_kind, parts_of
from edgetl.core.data.several import taken_apart
from edgetl.inputs.datasets import load_dataset, what
from edgetl.tasks import Task, find_task, fitting, list_tasks

NAME = "colour:classification+tags:multi-label+age:regression"
CLASSES = ("colour: blue", "colour: green", "colour: red", "tags: big", "tags: old")
MODELS = ("reference", "deployed")


def table(folder: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]], pixels: bool = True) -> Path:
    """A CSV file beside an image for each path in its first column, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "data.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *rows])
    draw = np.random.default_rng(0)
    for name in dict.fromkeys(row[0] for row in rows):
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / name)
    return folder / "data.csv"


def drawn(seed: int, n: int = 60) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.float64]]:
    """Outputs of the three tasks for n samples, and labels of which a third are missing."""
    rng = np.random.default_rng(seed)
    labels = np.full((n, 4), np.nan)
    colour, tags, age = rng.integers(0, 3, n), rng.integers(0, 2, (n, 2)), rng.normal(40, 10, n)
    for columns, own in ((slice(0, 1), colour[:, None]), (slice(1, 3), tags), (slice(3, 4), age[:, None])):
        known = rng.random(n) < 2 / 3
        known[:4] = True
        labels[known, columns] = own[known]
    logits = rng.normal(0, 1, (n, 3)).astype(np.float32)
    logits[np.arange(n), colour] += 2
    outputs = {
        "colour": logits,
        "tags": (rng.normal(0, 1, (n, 2)) + 3 * tags - 1.5).astype(np.float32),
        "age": (age + rng.normal(0, 3, n)).astype(np.float32)[:, None],
    }
    return outputs, labels


def alone(task: Task, name: str, outputs: Mapping[str, Any], labels: Any) -> tuple[Task, dict[str, Any], Any]:
    """One of the tasks on the samples that have a label of it: answers and labels, without the code under test."""
    columns = {"colour": slice(0, 1), "tags": slice(1, 3), "age": slice(3, 4)}[name]
    own, rows = task.parts[name], ~np.isnan(labels[:, columns]).any(1)
    truth = labels[rows, columns]
    output = {"colour": "logits", "tags": "logits", "age": "values"}[name]
    kept = (
        {"colour": truth[:, 0].astype(int), "tags": truth.astype(np.uint8), "age": truth[:, 0]}[name]
        if len(truth)
        else truth
    )
    return own, own.decode({output: outputs[name][rows]}, own.options), kept


def test_a_table_with_a_column_for_each_task_is_read(tmp_path: Path) -> None:
    rows = [[f"{i}.png", ("red", "green", "blue")[i % 3], ("big", "", "big|old")[i % 3], 20 + i] for i in range(60)]
    rows[0][1] = rows[1][3] = ""
    file = table(tmp_path / "data", ("path", "label:colour", "labels:tags", "target:age"), rows)
    assert what(file) == ("image", "colour:class+tags:classes+age:number")
    found = load_dataset(file)
    assert found.classes == CLASSES
    assert [(part.name, part.kind, part.classes) for part in found.parts] == [
        ("colour", "class", ("blue", "green", "red")), ("tags", "classes", ("big", "old")), ("age", "number", ())
    ]  # fmt: skip
    told = {sample.path: sample.label for sample in found.samples}
    # An empty cell is no label, also of a task whose samples may have none of its classes.
    assert told["0.png"] == (None, (0,), 20.0)
    assert told["1.png"] == (1, None, None)
    assert told["5.png"] == (0, (0, 1), 25.0)
    again = Dataset.from_json(found.to_json())
    assert (again.samples, again.digest) == (found.samples, found.digest)
    packed = found.labels_of([sample for sample in found.samples if sample.path in ("0.png", "1.png")])
    assert np.array_equal(packed, [[np.nan, 1, 0, 20], [1, np.nan, np.nan, np.nan]], equal_nan=True)


def test_each_tasks_classes_keep_their_shares_in_every_split(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    rows = [[f"{i}.png", "ab"[draw.integers(2)], "xyz"[draw.integers(3)] if i % 2 else ""] for i in range(240)]
    found = load_dataset(table(tmp_path / "data", ("path", "label:one", "label:two"), rows))
    whole = found.labels_of(found.samples)
    for column, classes in ((0, 2), (1, 3)):
        shares = np.bincount(whole[~np.isnan(whole[:, column]), column].astype(int), minlength=classes) / len(whole)
        for split in ("train", "val", "certify"):
            own = found.labels(split)
            counted = np.bincount(own[~np.isnan(own[:, column]), column].astype(int), minlength=classes)
            assert np.abs(counted - shares * len(own)).max() <= 3


def test_what_one_row_leaves_open_another_may_say(tmp_path: Path) -> None:
    rows = [[f"{i}.png", "ab"[i % 2], ""] for i in range(40)] + [[f"{i}.png", "", "xy"[i % 2]] for i in range(20)]
    rows.append(["3.png", "a", ""])  # and row 3 says b
    found = load_dataset(table(tmp_path / "data", ("path", "label:one", "label:two"), rows))
    told = {sample.path: sample.label for sample in found.samples}
    assert len(told) == len(found.samples) == 39
    assert (told["0.png"], told["21.png"]) == ((0, 0), (1, None))
    assert {skipped.path: skipped.reason for skipped in found.skipped} == {
        "3.png": "the same image is labelled one a and one b and two y"
    }


@pytest.mark.parametrize(
    ("columns", "row", "said"),
    [
        (("path", "label:a b", "label:c"), ["0.png", "x", "y"], "a column for a task 'a b'"),
        (("path", "label:a", "target:a"), ["0.png", "x", "1"], "two columns for one task"),
        (("path", "label:a", "target:b"), ["0.png", "x", "much"], "'much' in the column target:b is bad"),
        (("path", "label:a", "label:b"), ["0.png", "x", ""], "names 0 classes in the column label:b"),
    ],
)
def test_a_table_of_several_tasks_that_cannot_be_read(
    tmp_path: Path, columns: tuple[str, ...], row: list[str], said: str
) -> None:
    file = table(tmp_path / "data", columns, [row, ["1.png", "z", ""]])
    with pytest.raises(DataError) as caught:
        load_dataset(file)
    assert said in str(caught.value)


def test_the_name_says_what_the_tasks_are() -> None:
    task = find_task(NAME)
    assert (task.name, task.labels) == (NAME, "colour:class+tags:classes+age:number")
    assert task.inputs == ("image", "tensor")
    assert [(spec.name, spec.shape) for spec in task.outputs(CLASSES)] == [
        ("colour", (None, 3)), ("tags", (None, 2)), ("age", (None, 1))
    ]  # fmt: skip
    assert fitting(task.labels, "image") == [NAME]
    assert fitting("a:class+b:number", "text") == ["a:text-classification+b:regression"]
    assert "multi-task" in [listed["name"] for listed in list_tasks()]
    assert [metric["name"] for metric in list_tasks(NAME)[0]["metrics"]] == [
        "mean", "colour.accuracy", "tags.macro-AP", "age.mae"
    ]  # fmt: skip
    for wrong in ("colour:nothing", "colour", "Colour:classification+age:regression", "a:regression+a:regression"):
        with pytest.raises(UnknownNameError):
            find_task(wrong)
    assert taken_apart("classification") == {}
    with pytest.raises(KeyError):
        label_kind("colour:nothing")


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_each_metric_is_that_of_the_task_on_the_samples_with_a_label(seed: int) -> None:
    task = find_task(NAME)
    outputs, labels = drawn(seed)
    evidence = task.evidence(task.decode(outputs, {}), labels)
    scores = []
    for name, metric in (("colour", "accuracy"), ("tags", "macro-AP"), ("age", "mae")):
        own, answers, truth = alone(task, name, outputs, labels)
        theirs = own.metrics[metric].of(own.evidence(answers, truth))
        assert task.metrics[f"{name}.{metric}"].of(evidence) == pytest.approx(theirs, rel=1e-9)
        scores.append(-theirs / truth.std() if metric == "mae" else theirs)
    assert task.metrics["mean"].of(evidence) == pytest.approx(np.mean(scores), rel=1e-9)
    assert task.divergence(outputs, outputs) == pytest.approx(0, abs=1e-6)


def judged(seed: int, noise: float, margin: float | None = None, n: int = 300, **more: Any) -> tuple[Certificate, Any]:
    """A certificate of all tasks, where the deployed model's outputs are the reference's with noise."""
    task, rng = find_task(NAME), np.random.default_rng(seed)
    outputs, labels = drawn(seed, n)
    other = {name: (x + noise * rng.normal(0, 1, x.shape)).astype(np.float32) for name, x in outputs.items()}
    models = {name: task.decode(given, {}) for name, given in zip(MODELS, (outputs, other), strict=True)}
    return certify_answers(task, labels, models, CLASSES, margin=margin, **more), (task, outputs, other, labels)


def test_each_part_is_certified_as_if_it_were_alone() -> None:
    found, (task, outputs, other, labels) = judged(3, 0.3, margin=0.05)
    for name in task.parts:
        own, before, truth = alone(task, name, outputs, labels)
        _, after, _ = alone(task, name, other, labels)
        names = {"colour": ("blue", "green", "red"), "tags": ("big", "old"), "age": None}[name]
        margin = 0.05 * (float(np.std(truth)) if name == "age" else 1.0)
        models = {"reference": before, "deployed": after}
        theirs = certify_answers(own, truth, models, names, margin=margin)
        part = found.parts[name]
        assert (part.n, part.verdict, part.ci_low, part.margin) == (
            theirs.n, theirs.verdict, pytest.approx(theirs.ci_low), pytest.approx(theirs.margin)
        )  # fmt: skip


@pytest.mark.parametrize(("noise", "n", "verdict"), [(0.3, 600, "pass"), (8.0, 600, "fail"), (0.0, 60, "underpowered")])
def test_the_whole_passes_only_if_every_task_does(noise: float, n: int, verdict: str) -> None:
    found, _ = judged(1, noise, margin=0.1, n=n)
    verdicts = {part.verdict for part in found.parts.values()}
    worst = next(each for each in ("fail", "underpowered", "pass") if each in verdicts)
    assert found.verdict == worst == verdict
    decides, metric = found.metric.split(".")
    part = found.parts[decides]
    assert (part.verdict, part.metric, part.difference) == (found.verdict, metric, found.difference)
    assert set(found.scores) == {f"{name}.{key}" for name, own in found.parts.items() for key in own.scores}
    again = Certificate.from_json(found.to_json())
    assert again == found
    assert again.sentence().startswith(f"Of 3 tasks '{decides}' decides.")


def test_one_lost_task_fails_all_and_is_named() -> None:
    task = find_task(NAME)
    outputs, labels = drawn(5, 300)
    other = {**outputs, "age": outputs["age"] + 25}
    models = {name: task.decode(given, {}) for name, given in zip(MODELS, (outputs, other), strict=True)}
    found = certify_answers(task, labels, models, CLASSES)
    assert {name: part.verdict for name, part in found.parts.items()}["age"] == "fail"
    assert (found.verdict, found.metric) == ("fail", "age.mae")
    assert found.reasons[0].startswith("age: ")
    assert found.reference_accuracy is None


def test_a_metric_of_one_task_replaces_its_default_alone() -> None:
    found, _ = judged(2, 0.1, metric="tags.micro-F1")
    assert {name: part.metric for name, part in found.parts.items()} == {
        "colour": "accuracy", "tags": "micro-F1", "age": "mae"
    }  # fmt: skip
    with pytest.raises(UnknownNameError):
        judged(2, 0.1, metric="tags.accuracy")


def test_a_task_without_any_certified_label_is_refused() -> None:
    task = find_task(NAME)
    outputs, labels = drawn(5, 100)
    labels[:, 0] = np.nan
    models = {name: task.decode(outputs, {}) for name in MODELS}
    with pytest.raises(CertifyError, match="has a label of the task 'colour'"):
        certify_answers(task, labels, models, CLASSES)
    with pytest.raises(CertifyError, match="give 4 columns"):
        certify_answers(task, drawn(5, 100)[1][:, :3], models, CLASSES)


def test_parts_know_their_columns() -> None:
    parts = parts_of(find_task(NAME).labels, CLASSES)
    assert [(part.labels, part.outputs) for part in parts] == [
        (slice(0, 1), slice(0, 3)), (slice(1, 3), slice(3, 5)), (slice(3, 4), slice(5, 6))
    ]  # fmt: skip


def test_a_certificate_whose_tasks_have_tasks_is_refused() -> None:
    found, _ = judged(1, 0.1)
    record = found.to_json()
    record["parts"]["colour"]["parts"] = {"again": record["parts"]["age"]}
    with pytest.raises(CertifyError, match="a task has tasks of its own"):
        Certificate.from_json(sealed({key: value for key, value in record.items() if key != DIGEST_FIELD}))
