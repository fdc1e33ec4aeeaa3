"""Progressive networks: what was learned stays bit for bit, what is new reads it, and one artifact answers both."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
from PIL import Image
from sklearn.datasets import load_digits

import edgetl
from edgetl.base.errors import DataError, EdgetlError, RunError
from edgetl.cli.journey.repeat import written as repeated
from edgetl.core.run import WEIGHTS, Run, load_run
from edgetl.transfer.columns import Columns
from edgetl.transfer.finetune import finetune
from edgetl.transfer.model import load_model, outputs
from edgetl.transfer.soup import soup
from edgetl.transfer.stores import store_of
from edgetl.transfer.trainable import depths_of
from edgetl.workflow.reference import TorchReference, exported
from tests.records import put_into_run

from .conftest import TINY

HOST = torch.device("cpu")
#: What a run that goes on has from the one before.
GROWN: dict[str, Any] = {key: TINY[key] for key in ("weights", "precision", "accelerator", "workers", "batch_size")}
GROWN |= {"strategy": "progressive", "epochs": 1, "learning_rate": 0.003}


def pictures(folder: Path, digits: range, first: int = 0) -> Path:
    """40 images of each of some digits, from the first one on, a folder a class."""
    bunch = load_digits()
    for label in digits:
        (folder / str(label)).mkdir(parents=True)
        for index in np.flatnonzero(bunch.target == label)[first : first + 40]:
            grey = np.clip(bunch.images[index] * 16, 0, 255).astype(np.uint8)
            Image.fromarray(grey).save(folder / str(label) / f"{index:04d}.png")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("progressive")
    pictures(folder / "new", range(4, 7))
    return folder


@pytest.fixture(scope="module")
def first(few_digits: Path, home: Path) -> Run:
    return finetune(few_digits, home / "first", **TINY, epochs=1, learning_rate=0.003)


@pytest.fixture(scope="module")
def second(first: Run, home: Path) -> Run:
    return finetune(home / "new", home / "second", **GROWN, from_run=first.path, set={"name": "later"})


def answers(run: Run, of: Run) -> dict[str, Any]:
    """A run's outputs for the certify samples of another one."""
    model = load_model(run)
    return outputs(model, store_of(model.definition, of.dataset.paths("certify")), HOST)


def test_the_earlier_tasks_answers_are_the_same_bits(first: Run, second: Run) -> None:
    assert second.task == "task1:classification+later:classification"
    assert second.classes == (*(f"task1: {c}" for c in first.classes), "later: 4", "later: 5", "later: 6")
    assert np.array_equal(answers(first, first)["logits"], answers(second, first)["task1"])
    assert second.metrics.val["task1.accuracy"] == first.metrics.val["accuracy"]
    assert second.metrics.val["later.accuracy"] > 0.8
    # Nobody learned from what the earlier run held back, and it certifies again.
    held = {sample.pixels for sample in first.dataset.samples if sample.split != "train"}
    assert not held & {sample.pixels for sample in second.dataset.split("train")}
    assert {s.pixels for s in first.dataset.split("certify")} <= {s.pixels for s in second.dataset.split("certify")}
    # No term of the loss, and no epoch's choice, was the earlier task's.
    assert [term.partition(":")[0] for term in second.settings["details"]["terms"]] == ["later"]
    outcome = edgetl.transfer_outcome(second)
    assert outcome.earlier == ""


def test_the_new_column_reads_the_earlier_one(second: Run) -> None:
    backbone = load_model(second).backbone
    assert isinstance(backbone, Columns)
    assert {(to, source) for to, source, _ in backbone.places} == {(1, 0)}
    assert "classifier" in {layer for _, _, layer in backbone.places}
    held = second.lineage["columns"]
    assert [column["tasks"] for column in held] == [["task1"], ["later"]]
    assert sum(c["parameters"] + c["lateral"] for c in held) == sum(v.numel() for v in backbone.parameters())
    assert second.lineage["trained"]["parameters"] == held[1]["parameters"] + held[1]["lateral"]
    assert second.lineage["grown_by"] == pytest.approx(
        (held[1]["parameters"] + held[1]["lateral"]) / held[0]["parameters"], abs=1e-4
    )
    # Rates by layer: the new column's as the backbone has them, adapters as its head.
    depths, named = depths_of(backbone), dict(backbone.named_parameters())
    assert depths[id(named["newest.classifier.weight"])] == 0
    assert depths[id(named["newest.conv_stem.weight"])] == max(depths.values()) > 2
    assert {depths[id(value)] for name, value in named.items() if name.startswith("lateral.")} == {0}


def test_adapters_learn_and_their_part_counts(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(0, 1, (300, 4)).astype(np.float32)
    # Neither is anything that a linear head could tell.
    np.savez(tmp_path / "a.npz", x=x, y=(x[:, 0] * x[:, 1] > 0).astype(np.int64))
    np.savez(tmp_path / "b.npz", x=x[::-1] * 0.9, y=(x[::-1, 0] * x[::-1, 1] > 0.3).astype(np.int64))
    plain = {key: TINY[key] for key in ("precision", "accelerator", "workers", "batch_size")}
    one = finetune(tmp_path / "a.npz", tmp_path / "one", **plain, backbone="mlp", epochs=12)
    two = finetune(tmp_path / "b.npz", tmp_path / "two", **plain, strategy="progressive", from_run=one.path, epochs=6)
    assert two.metrics.best_epoch > 0
    assert np.array_equal(answers(one, one)["logits"], answers(two, one)["task1"])
    model = load_model(two)
    assert isinstance(model.backbone, Columns)
    before = answers(two, two)
    for place in model.backbone.places:
        weight = model.backbone.adapter(place).get_submodule("spread").weight
        assert isinstance(weight, torch.Tensor)
        assert weight.abs().max() > 0
        torch.nn.init.zeros_(weight)
    after = outputs(model, store_of(model.definition, two.dataset.paths("certify")), HOST)
    assert np.array_equal(before["task1"], after["task1"])
    assert not np.allclose(before["task2"], after["task2"], atol=1e-3)


def test_a_third_column(first: Run, second: Run, home: Path) -> None:
    pictures(home / "third", range(4, 6), 40)
    learned = first.dataset.split("train")[:6]
    for sample in learned:
        shutil.copyfile(first.dataset.file(sample), home / "third" / "5" / Path(sample.path).name)
    options = {key: value for key, value in GROWN.items() if key != "weights"}
    third = finetune(home / "third", home / "third-run", **options, from_run=second.path, set={"start": "previous"})
    assert third.task == "task1:classification+later:classification+task3:classification"
    before, after = answers(second, first), answers(third, first)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    theirs, own = (safetensors.torch.load_file(run.weights) for run in (second, third))
    kept = {name for name in theirs if name.startswith(("earlier.", "lateral."))}
    assert all(torch.equal(theirs[name], own[name]) for name in kept)
    # What the first run learned from, and the second one never saw, is not measured on.
    splits = {sample.pixels: sample.split for sample in third.dataset.samples}
    assert {splits[sample.pixels] for sample in learned} == {"train"}
    backbone = load_model(third).backbone
    assert isinstance(backbone, Columns)
    assert {(to, source) for to, source, _ in backbone.places} == {(1, 0), (2, 0), (2, 1)}


def test_an_interrupted_run_ends_with_the_same_weights(first: Run, second: Run, home: Path, tmp_path: Path) -> None:
    def stop(task: str, done: int, total: int, detail: str = "") -> None:
        if task == "training" and done > total * 0.6:
            raise KeyboardInterrupt

    options: dict[str, Any] = {**GROWN, "from_run": first.path, "set": {"name": "later"}, "checkpoint_seconds": 0.0}
    with pytest.raises(KeyboardInterrupt):
        finetune(home / "new", tmp_path / "run", **options, progress=stop)
    again = finetune(home / "new", tmp_path / "run", **options)
    theirs, own = (load_model(each).state_dict() for each in (second, again))
    assert all(torch.equal(theirs[name], own[name]) for name in theirs)


def test_one_artifact_and_a_certificate_for_each_task(first: Run, second: Run, home: Path, tmp_path: Path) -> None:
    (done,) = edgetl.export(second, targets="x86-generic", out=tmp_path / "out", bench=False, repair=False)
    assert set(done.certificate.parts) == {"task1", "later"}
    labels = second.dataset.labels("certify")
    known = {part.name: int(part.known(labels).sum()) for part in second.dataset.parts}
    assert {name: part.n for name, part in done.certificate.parts.items()} == known
    answer = edgetl.predict(done.bundle, [home / "new" / "5" / "0005.png"])[0]
    assert set(answer.tasks) == {"task1", "later"}
    page = edgetl.report([second, done.bundle], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "accuracy of later" in page.casefold()
    batch = load_model(first).definition.batch(first.dataset.paths("certify")[:1])
    alone = exported(TorchReference(first), None, tmp_path / "first", lambda *told: None) / "model.onnx"
    floats = [
        onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, batch)
        for file in (alone, done.bundle.exported)
    ]
    assert np.array_equal(floats[0][0], floats[1][0])


def test_what_the_run_knows_of_a_file_stays(few_digits: Path, first: Run, tmp_path: Path) -> None:
    rows = [["path", "label"]]
    rows += [[str(few_digits / sample.path), sample.path.split("/")[0]] for sample in first.dataset.samples]
    table = tmp_path / "again.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([*rows[:1], *([path, "odd" if int(c) % 2 else "even"] for path, c in rows[1:])])
    run = finetune(table, tmp_path / "run", **{**GROWN, "epochs": 1}, from_run=first.path)
    split = {sample.pixels: sample.split for sample in first.dataset.samples}
    assert all(split[sample.pixels] == sample.split for sample in run.dataset.samples)
    # Its samples have both labels where they are measured on, and the new one alone where they are learned from.
    for sample in run.dataset.samples:
        assert isinstance(sample.label, tuple)
        assert (sample.label[0] is None) == (sample.split == "train")
        assert sample.label[1] is not None
    assert any("got the split" in note for note in run.dataset.notes)


def test_batch_statistics_of_earlier_columns_stay(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (120, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=(x[:, :4].mean((1, 2)) > 0).astype(np.int64))
    np.savez(tmp_path / "b.npz", x=3 * x[::-1] + 1, target=40 + 9 * x[::-1, :2].mean((1, 2)))
    plain = {key: TINY[key] for key in ("precision", "accelerator", "workers", "batch_size")}
    one = finetune(tmp_path / "a.npz", tmp_path / "one", **plain, backbone="cnn", epochs=2)
    two = finetune(tmp_path / "b.npz", tmp_path / "two", **plain, strategy="progressive", from_run=one.path, epochs=8)
    assert two.task == "task1:classification+task2:regression"
    assert two.input_record == one.input_record
    assert np.array_equal(answers(one, one)["logits"], answers(two, one)["task1"])
    # The number's scale is the new column's alone.
    spread = float(np.nanstd(two.dataset.labels("val")[:, 1]))
    assert two.metrics.val["task2.mae"] < spread


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("lateral.1.0.blocks-0-0.squeeze.weight", lambda value: value[:0]),
        ("lateral.1.0.blocks-0-0.squeeze.weight", lambda value: value[:, :1]),
        ("lateral.1.0.blocks-0-0.spread.weight", lambda value: value.flatten()),
        ("lateral.1.0.classifier.squeeze.weight", lambda value: value[None, None, None]),
        ("earlier.0.classifier.bias", lambda value: value[:1]),
        ("earlier.0.classifier.bias", lambda value: value[0]),
        ("newest.conv_stem.weight", lambda value: value[:, :, :1, :1]),
        ("newest.conv_stem.weight", lambda value: torch.cat([value, value])),
    ],
)
def test_tensors_of_a_file_that_fit_nothing_are_refused(second: Run, tmp_path: Path, name: str, change: Any) -> None:
    held = safetensors.torch.load_file(second.weights)
    held[name] = change(held[name]).contiguous()
    refused(second, held, tmp_path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("lateral.1.0.", "lateral.0.1."),
        ("lateral.1.0.", "lateral.1.7."),
        ("lateral.1.0.blocks-0-0.", "lateral.1.0.nothing."),
        ("lateral.1.0.blocks-0-0.", "lateral.1.0.blocks-4-0."),
        ("earlier.0.", "earlier.x."),
        ("earlier.0.conv_stem.", "earlier.1.conv_stem."),
        ("newest.", "lateral."),
    ],
)
def test_names_of_a_file_that_fit_nothing_are_refused(second: Run, tmp_path: Path, before: str, after: str) -> None:
    held = safetensors.torch.load_file(second.weights)
    refused(second, {name.replace(before, after): value for name, value in held.items()}, tmp_path)


def refused(run: Run, tensors: dict[str, torch.Tensor], folder: Path) -> None:
    shutil.copytree(run.path, folder / "run")
    put_into_run(folder / "run", WEIGHTS, safetensors.torch.save(tensors))
    with pytest.raises(RunError, match="does not fit the backbone 'timm/test_efficientnet': train the run again"):
        load_model(load_run(folder / "run"))


def test_what_cannot_be_is_refused_before_any_work(first: Run, second: Run, home: Path, tmp_path: Path) -> None:
    for options, words in (
        ({"from_run": None}, "the strategy 'progressive' needs a finished run whose tasks stay as they are"),
        ({"image_size": 64}, "read images of 32 pixels"),
        ({"set": {"name": "task1"}}, "has a task 'task1'"),
        ({"set": {"name": "Two Words"}}, "give small letters"),
        ({"set": {"start": "previous"}}, "--from and --weights both say what to start from"),
        ({"backbone": "timm/resnet10t"}, "is a run of the backbone 'timm/test_efficientnet'"),
        ({"baseline": "probe"}, "no baseline learns the earlier run's tasks"),
        ({"task": "a:regression+b:classification"}, "the tasks are task1:classification"),
        ({"strategy": "fine-tune", "from_run": second.path, "weights": None}, "trains one network"),
    ):
        with pytest.raises(EdgetlError, match=words):
            finetune(home / "new", tmp_path / "run", **{**GROWN, "from_run": first.path, **options})
        assert not (tmp_path / "run").exists()
    with pytest.raises(RunError, match="have columns of their own"):
        edgetl.retention(second, of=first)
    with pytest.raises(RunError, match="has a column for each of its tasks"):
        soup([second.path, second.path], tmp_path / "soup")
    with pytest.raises(DataError, match="no sample of the new data is left for"):
        finetune(few(first, "train", tmp_path), tmp_path / "run", **GROWN, from_run=first.path)


def few(run: Run, split: str, folder: Path) -> Path:
    """A table of the samples of one split."""
    with (folder / "few.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label"])
        writer.writerows([str(file), file.parent.name] for file in run.dataset.paths(split))
    return folder / "few.csv"


def test_the_run_can_be_repeated(first: Run, second: Run) -> None:
    text = repeated(second.path)
    for words in ('strategy = "progressive"', 'weights = "none"', f'from = "{first.path}"', 'name = "later"'):
        assert words in text
    task = second.task
    assert f'task = "{task}"' in text
    options: dict[str, Any] = {**GROWN, "from_run": first.path, "set": {"name": "later"}, "task": task}
    assert finetune(second.settings["data"], second.path, **options).digest == second.digest
