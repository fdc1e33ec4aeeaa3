"""Learning several tasks at once: one head, losses of what is labelled, and a run that becomes one artifact."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import edgetl
from edgetl.base.errors import DataError, EdgetlError
from edgetl.core.data import parts_of
from edgetl.core.run import Run
from edgetl.core.tensors import packed
from edgetl.tasks import find_task
from edgetl.transfer import heads
from edgetl.transfer.finetune import finetune
from edgetl.transfer.model import load_model
from edgetl.transfer.strategies import find
from edgetl.transfer.strategies.base import HeadSpec, StepContext
from edgetl.transfer.strategies.multi_task import PACE, by_uncertainty
from edgetl.transfer.tasks import LEARNERS, learner_of
from edgetl.workflow.reference import TorchReference

from .conftest import TINY

TASK = find_task("digit:classification+strokes:multi-label+ink:regression")
CLASSES = ("digit: 0", "digit: 1", "digit: 2", "strokes: line", "strokes: loop")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """210 of the digits 0 to 2, of each of three tasks a third without a label."""
    folder, draw = tmp_path_factory.mktemp("several"), np.random.default_rng(0)
    bunch, rows = load_digits(), [["path", "label:digit", "labels:strokes", "target:ink"]]
    for index in np.flatnonzero(bunch.target < 3)[:210]:
        grey = np.clip(bunch.images[index] * 16, 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"{index:04d}.png")
        digit = int(bunch.target[index])
        told = [str(digit), ("loop", "line", "line|loop")[digit], f"{bunch.images[index].mean():.3f}"]
        rows.append([f"{index:04d}.png", *(cell if draw.random() < 2 / 3 else "" for cell in told)])
    with (folder / "data.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "data.csv"


@pytest.fixture(scope="module")
def run(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finetune(
        table,
        tmp_path_factory.mktemp("run") / "run",
        **TINY,
        strategy="multi-task",
        epochs=2,
        set={"weighting": "uncertainty"},
    )


def labelled(n: int = 90) -> npt.NDArray[np.float64]:
    """Labels of the three tasks, a third of each missing."""
    rng = np.random.default_rng(0)
    values = np.column_stack([rng.integers(0, 3, n), rng.integers(0, 2, (n, 2)), rng.normal(5, 2, n)])
    for columns in (slice(0, 1), slice(1, 3), slice(3, 4)):
        values[rng.random(n) < 1 / 3, columns] = np.nan
    return values


def context(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    counts: tuple[float, ...] = (30, 20, 10, 25, 25, 0),
    labels: str = TASK.labels,
    **more: Any,
) -> StepContext:
    model, each = torch.nn.Identity(), torch.tensor(counts)
    return StepContext(model, {}, targets, outputs, each, {}, None, 0.0, labels, lambda m, i: m(i), **more)


def test_each_tasks_head_is_fitted_as_if_it_were_alone() -> None:
    learner, labels = learner_of(TASK, CLASSES), labelled()
    features = np.random.default_rng(1).normal(0, 1, (90, 8)).astype(np.float32)
    scale = learner.scale(labels)
    targets = learner.targets(labels, scale)
    train, val = (features[:60], targets[:60]), (features[60:], targets[60:])
    head = learner.fit(train, val, len(CLASSES), HeadSpec())
    first = np.arange(90) < 60
    digit, ink = ~np.isnan(labels[:, 0]), ~np.isnan(labels[:, 3])
    centre, spread = np.nanmean(labels[:, 3]), np.nanstd(labels[:, 3])
    standard = ((labels[:, 3:] - centre) / spread).astype(np.float32)
    own = [rows & digit for rows in (first, ~first)]
    one = heads.logistic(*((features[rows], labels[rows, 0].astype(int)) for rows in own), 3)
    three = heads.ridge(*((features[rows & ink], standard[rows & ink]) for rows in (first, ~first)))
    assert head.weight.shape == (6, 8)
    assert np.allclose(head.weight[:3], one.weight, atol=1e-5)
    assert np.allclose(head.weight[5:], three.weight, atol=1e-5)
    # In the labels' unit the numbers are what they were, and logits stay.
    plain = head.outputs(features)
    told = scale.applied(plain)
    assert np.allclose(told[:, :5], plain[:, :5])
    assert np.allclose(told[:, 5], plain[:, 5] * spread + centre, atol=1e-5)


def test_the_loss_is_of_what_is_labelled() -> None:
    learner, labels = learner_of(TASK, CLASSES), labelled()
    scale = learner.scale(labels)
    targets = torch.from_numpy(learner.targets(labels, scale))
    outputs = torch.randn(90, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    whole = find("multi-task", {"weighting": "equal"}).resolved(learner.terms)
    loss = whole.loss(context(outputs, targets))
    loss.backward()
    assert outputs.grad is not None
    for part in parts_of(TASK.labels, CLASSES):
        moved = (outputs.grad[:, part.outputs] != 0).any(1).numpy()
        assert np.array_equal(moved, part.known(labels))
    own = ~np.isnan(labels[:, 0])
    digits = torch.from_numpy(labels[own, 0].astype(int))
    alone = LEARNERS["class"].terms[0].loss(context(outputs[own][:, :3], digits, (30, 20, 10), "class"))
    told = learner.terms[0].loss(context(outputs, targets)).item()
    assert told == pytest.approx(alone.item(), rel=1e-6)
    # A batch that nobody labelled for a task teaches nothing of it.
    nothing = context(outputs, torch.full_like(targets, float("nan")))
    assert whole.loss(nothing).item() == 0


def test_a_task_counts_by_what_it_leaves_uncertain() -> None:
    learner, labels = learner_of(TASK, CLASSES), labelled()
    targets = torch.from_numpy(learner.targets(labels, learner.scale(labels)))
    outputs = torch.randn(90, 6, generator=torch.Generator().manual_seed(0))
    for term in map(by_uncertainty, learner.terms):
        assert term.owns is not None
        owned = {term.name: term.owns(8)}
        weight = owned[term.name].weight
        plain = next(t for t in learner.terms if term.name.startswith(t.name)).loss(context(outputs, targets))
        assert term.loss(context(outputs, targets, owned=owned)).item() == pytest.approx(float(plain), rel=1e-6)
        # Kendall, Gal and Cipolla 2018: the best log variance of a loss L is log 2L, where the gradient is zero.
        with torch.no_grad():
            weight.fill_(float(torch.log(2 * plain)) / PACE)
        term.loss(context(outputs, targets, owned=owned)).backward()
        assert float(weight.grad) == pytest.approx(0, abs=1e-3)
        weight.grad = None
        unlabelled = torch.full_like(targets, float("nan"))
        term.loss(context(outputs, unlabelled, owned=owned)).backward()
        assert float(weight.grad) == 0


def test_a_run_of_several_tasks(run: Run) -> None:
    assert run.task == TASK.name
    assert run.metrics.metric == "mean"
    assert {"mean", "digit.accuracy", "strokes.macro_AP", "ink.mae", "loss"} <= set(run.metrics.val)
    assert run.metrics.val["digit.accuracy"] > 0.8
    terms = run.settings["details"]["terms"]
    assert [name.partition(":")[0] for name in terms] == ["digit", "strokes", "ink"]
    assert all(name.endswith("by its uncertainty") for name in terms)
    outputs = run.val_outputs
    assert outputs is not None
    assert {name: values.shape[1] for name, values in outputs.items()} == {"digit": 3, "strokes": 2, "ink": 1}
    model = load_model(run)
    assert model.width == packed(outputs).shape[1] == 6
    # What trained beside the network stays at home.
    assert not [name for name in model.state_dict() if "uncertainty" in name]


def test_an_interrupted_run_ends_with_the_same_weights(table: Path, run: Run, tmp_path: Path) -> None:
    def stop(step: str, done: int, total: int, detail: str = "") -> None:
        if step == "training" and done > total * 0.6:
            raise KeyboardInterrupt

    options: dict[str, Any] = {**TINY, "strategy": "multi-task", "epochs": 2, "checkpoint_seconds": 0.0}
    options["set"] = {"weighting": "uncertainty"}
    with pytest.raises(KeyboardInterrupt):
        finetune(table, tmp_path / "run", **options, progress=stop)
    again = finetune(table, tmp_path / "run", **options)
    theirs, own = (load_model(each).state_dict() for each in (run, again))
    assert all(torch.equal(theirs[name], own[name]) for name in theirs)


def test_one_artifact_with_named_outputs_and_a_certificate_for_each(run: Run, tmp_path: Path) -> None:
    (done,) = edgetl.export(run, targets="x86-generic", out=tmp_path / "out", bench=False, repair=False)
    graph = onnx.load(done.bundle.artifact().path).graph
    assert [value.name for value in graph.output] == ["digit", "strokes", "ink"]
    certificate = done.certificate
    assert set(certificate.parts) == {"digit", "strokes", "ink"}
    # Each on the samples that have a label of it.
    labels = run.dataset.labels("certify")
    known = {part.name: int(part.known(labels).sum()) for part in run.dataset.parts}
    assert {name: part.n for name, part in certificate.parts.items()} == known
    assert min(known.values()) < len(labels)
    reference = packed(TorchReference(run).outputs("certify", lambda *told: None))
    right = reference[:, :3].argmax(1) == labels[:, 0]
    accuracy = certificate.parts["digit"].reference_accuracy
    assert accuracy == pytest.approx(right[~np.isnan(labels[:, 0])].mean())
    file = run.dataset.paths("certify")[0]
    answer = edgetl.predict(done.bundle, [file])[0]
    assert set(answer.tasks) == {"digit", "strokes", "ink"}
    assert answer.tasks["digit"].label in ("0", "1", "2")
    assert isinstance(answer.tasks["ink"].value, float)
    written = json.loads(json.dumps(answer.to_json()))
    assert written["tasks"]["digit"]["labels"][0]["label"] == answer.tasks["digit"].label
    page = edgetl.report([run, done.bundle], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "strokes: " in page
    assert "accuracy of digit" in page.casefold()
    for name in known:
        assert re.search(rf">{name}( \(decides\))?</th>\s*<td[^>]*>{certificate.parts[name].verdict}</td>", page)
    # Judged again without inference, on another margin: of numbers in standard deviations of the training labels.
    again = edgetl.verify(done.bundle, margin=0.5)
    assert {name: part.n for name, part in again.parts.items()} == known
    spread = float(np.nanstd(run.dataset.labels("train")[:, 3]))
    one = edgetl.verify(done.bundle, metric="ink.rmse").parts
    assert (one["ink"].metric, one["ink"].margin) == ("rmse", pytest.approx(0.01 * spread))
    assert (one["digit"].metric, one["digit"].margin) == ("accuracy", 0.01)
    assert {name: part.margin for name, part in again.parts.items()} == {
        "digit": 0.5, "strokes": 0.5, "ink": pytest.approx(0.5 * spread)
    }  # fmt: skip


def test_what_does_not_serve_several_tasks_is_refused(table: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match="does not serve several tasks"):
        finetune(table, tmp_path / "run", **TINY, strategy="coral", target_data=table.parent)
    with pytest.raises(EdgetlError, match="of samples of one class each"):
        finetune(table, tmp_path / "run", **TINY, strategy="fine-tune", set={"focal": 2})
    with pytest.raises(DataError, match="reads the column 'label'"):
        finetune(table, tmp_path / "run", **TINY, task="classification")
    assert not (tmp_path / "run").exists()


def test_a_task_that_nobody_labelled_in_a_split_is_named(tmp_path: Path, table: Path) -> None:
    rows = list(csv.DictReader(table.open(newline="", encoding="utf-8")))
    splits = ("train", "val", "calibration", "search", "certify")
    file = table.parent / "split.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*rows[0], "split"])
        writer.writeheader()
        for number, row in enumerate(rows):
            split = splits[number % 5]
            writer.writerow({**row, "split": split, "target:ink": "" if split == "val" else row["target:ink"]})
    with pytest.raises(DataError, match="any label of the task 'ink'"):
        finetune(file, tmp_path / "run", **TINY, strategy="linear-probe", task="multi-task")
