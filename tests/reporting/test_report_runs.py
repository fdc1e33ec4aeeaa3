"""The page of a run: curves, answers on val, the data, mistakes; every task and every kind of input."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl.base.errors import RunError
from edgetl.base.storage import sha256_file
from edgetl.core.bundle import Bundle
from edgetl.core.data import SPLITS, Skipped
from edgetl.core.run import HISTORY, Run, load_run
from edgetl.core.run_record import RunMetrics
from edgetl.core.val_outputs import VAL_OUTPUTS, write_val_outputs
from edgetl.tasks import find_task

from .page import CHROMIUM, Page, in_chromium, picture
from .samples import INPUTS, WORDS, write_image, write_samples

pytest.importorskip("jinja2", reason="the page needs jinja2 (pip install 'edgetl[report]')")
from edgetl.reporting.html import render, write_report

N = 60
MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes the files of a run that a report reads: samples, history and outputs on val, but no weights."""

    def make(
        task: str,
        labels: list[Any],
        outputs: dict[str, np.ndarray] | None,
        *,
        kind: str = "image",
        classes: tuple[str, ...] = ("cat", "dog", "<b>owl</b>"),
        history: list[dict[str, Any]] | None = None,
        skipped: tuple[Skipped, ...] = (),
    ) -> Run:
        folder = tmp_path / f"{task}-{kind}"
        data = write_samples(folder / "files", kind, labels, classes, find_task(task).labels)
        rows = history or [{"epoch": 0, "val": {"loss": 1.0, "n": N // 5}}]
        (folder / HISTORY).write_text("".join(json.dumps(row) + "\n" for row in rows))
        if outputs is not None:
            write_val_outputs(folder, outputs)
        sealed = [name for name in (HISTORY, VAL_OUTPUTS) if (folder / name).is_file()]
        return Run(
            path=folder,
            backbone="some-backbone",
            strategy="linear-probe" if len(rows) == 1 else "fine-tune",
            dataset=replace(data, skipped=skipped),
            input_record=INPUTS[kind],
            settings={"seed": 0},
            metrics=RunMetrics(val=rows[-1]["val"], best_epoch=max(len(rows) - 2, 0)),
            lineage={"command": "edgetl finetune files --out run"},
            weights_sha256="0" * 64,
            task=task,
            hashes={name: sha256_file(folder / name) for name in sealed},
        )

    return make


def of_classes(rng: np.random.Generator, wrong: int = 4) -> tuple[list[int], np.ndarray]:
    """Labels of all samples, and logits of those of val, of which the first ``wrong`` are wrong, more and more sure."""
    labels = rng.integers(0, 3, N)
    truth = labels[1 :: len(SPLITS)]
    answer = truth.copy()
    answer[:wrong] = (truth[:wrong] + 1) % 3
    logits = np.zeros((len(truth), 3), np.float32)
    logits[np.arange(len(truth)), answer] = np.arange(len(truth)) + 1
    return labels.tolist(), logits


def epochs(*values: float) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "val": {"accuracy": value, "balanced_accuracy": value - 0.01, "loss": 1 - value, "n": N // 5},
            **({"train_loss": 2 - value, "train_accuracy": value - 0.1, "learning_rate": 0.001} if epoch else {}),
        }
        for epoch, value in enumerate(values)
    ]


def test_a_finished_run_becomes_one_page(tiny_run: Path, tiny_bundle: Path, tmp_path: Path, edgetl: Any) -> None:
    done = edgetl("report", tiny_run, tiny_bundle, "--out", tmp_path / "a.html", "--json")
    assert done.returncode == 0, done.stderr
    page = Page((tmp_path / "a.html").read_text())
    assert (len(page.all("section", "run")), len(page.all("section", "bundle"))) == (1, 1)
    run = load_run(tiny_run)
    right = round(run.metrics.val["accuracy"] * run.metrics.val["n"])
    assert f"{right} of {run.metrics.val['n']} images are right" in page.text
    assert f"epoch {run.metrics.best_epoch} " in page.text
    assert f"{len(run.dataset.samples)} images of 3 classes" in page.text
    other = edgetl("report", tiny_run.parent / "photos", "--out", tmp_path / "b.html")
    assert other.returncode == 2
    assert "is neither a run (it has no run.json) nor a bundle (it has no manifest.json)" in other.stderr
    assert len(other.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "b.html").exists()


def test_curves_mark_the_best_epoch(make_run: MakeRun) -> None:
    labels, logits = of_classes(np.random.default_rng(0))
    run = make_run("classification", labels, {"logits": logits}, history=epochs(0.5, 0.7, 0.9, 0.8))
    page = Page(render([run]))
    assert (
        "Trained for 3 epochs. The best on val was epoch 2 (accuracy 90.00 %, balanced accuracy 89.00 %)" in page.text
    )
    assert len(page.all("line", "best")) == 2
    assert len(page.all("path", "train")) == 2
    assert len(page.all("path", "val-1")) == 2
    assert len(page.all("path", "val-2")) == 1
    assert "train: 1.3 to 1.2; val: 0.5 to 0.2; best epoch 2" in page.text
    assert "Loss and scores by epoch" in page.text


def test_a_history_of_another_shape_is_refused(make_run: MakeRun) -> None:
    labels, logits = of_classes(np.random.default_rng(0))
    run = make_run("classification", labels, {"logits": logits}, history=[{**epochs(0.5)[0], "train_loss": "<b>"}])
    with pytest.raises(RunError, match=r"history\.jsonl: \[0\]\.train_loss is"):
        render([run])


def test_a_probe_has_one_point_and_says_so(make_run: MakeRun) -> None:
    labels, logits = of_classes(np.random.default_rng(0))
    page = Page(render([make_run("classification", labels, {"logits": logits}, history=epochs(0.5))]))
    assert "'linear-probe' fits in one step, without epochs: there is one point and no curve." in page.text
    assert not page.all("path", "curve")


def test_confusions_and_confident_mistakes_are_the_ones_predicted(make_run: MakeRun) -> None:
    labels, logits = of_classes(np.random.default_rng(1))
    run = make_run("classification", labels, {"logits": logits})
    page = Page(render([run]))
    truth, answer = np.array(labels[1 :: len(SPLITS)]), logits.argmax(1)
    counted = [
        str(n) for n in np.histogram2d(truth, answer, bins=3, range=((0, 3), (0, 3)))[0].astype(int).ravel() if n
    ]
    assert len(page.all("text", "figure")) == len(counted)
    assert "8 of 12 images are right (66.67 %)." in page.text
    assert "Most confident mistakes (4)" in page.text
    sure = np.exp(logits.max(1)) / np.exp(logits).sum(1)
    expected = [f"{i}.png" for i in (5 * np.argsort(-sure[:4]) + 1)]
    alts = [(a["alt"] or "") for a in page.all("img")]
    assert [alt.split(":")[0] for alt in alts] == [f"mistake {path}" for path in expected]
    names = run.classes
    assert f"true {names[truth[3]]}; answered {names[answer[3]]}; confidence {100 * sure[3]:.1f}\u00a0%" in alts[0]
    assert picture(page.all("img")[0]["src"]).size == (40, 30)


def test_many_classes_show_those_with_the_most_errors(make_run: MakeRun) -> None:
    classes = tuple(f"class {i:03d}" for i in range(40))
    labels = [i % 40 for i in range(400)]
    truth = np.array(labels[1 :: len(SPLITS)])
    logits = np.eye(40, dtype=np.float32)[(truth + (truth == 36)) % 40]
    page = Page(render([make_run("classification", labels, {"logits": logits}, classes=classes)]))
    assert "The 30 classes with the most errors, of 40." in page.text
    assert "class 036 taken for class 037: 10" in page.text
    assert "The 30 largest of 40." in page.text
    assert all(name in page.text for name in classes)


def test_multi_label_has_precision_and_recall_of_each_label(make_run: MakeRun) -> None:
    rng = np.random.default_rng(2)
    truth = rng.random((N, 3)) < 0.5
    labels = [tuple(np.flatnonzero(row).tolist()) for row in truth]
    val = truth[1 :: len(SPLITS)]
    logits = np.where(val, 3.0, -3.0).astype(np.float32)
    logits[0] *= -1
    logits[3, 1] *= -2
    page = Page(render([make_run("multi-label", labels, {"logits": logits})]))
    assert f"All labels are right on {len(val) - 2} of {len(val)} images" in page.text
    assert f"of {val.size} single labels 4 are wrong" in page.text
    assert [(a["alt"] or "").split(":")[0] for a in page.all("img")] == ["mistake 16.png", "mistake 1.png"]
    answered = logits >= 0
    for column, name in enumerate(("cat", "dog", "<b>owl</b>")):
        hits = int((val & answered)[:, column].sum())
        precision, recall = hits / answered[:, column].sum(), hits / val[:, column].sum()
        assert (
            f"{name} {val[:, column].sum()} {answered[:, column].sum()} {100 * precision:.1f} % {100 * recall:.1f} %"
            in page.text
        )


def test_regression_has_a_scatter_plot_and_residuals(make_run: MakeRun) -> None:
    rng = np.random.default_rng(3)
    labels = rng.normal(11, 4, N)
    val = labels[1 :: len(SPLITS)]
    values = (val + rng.normal(0, 0.5, len(val))).astype(np.float32)
    values[4] += 7
    run = make_run("regression", labels.tolist(), {"values": values[:, None]}, kind="tensor", classes=())
    page = Page(render([run]))
    assert len(page.all("circle", "sample")) == len(val)
    assert "Residuals" in page.text
    assert f"The predictions for {len(val)} arrays are off by {np.abs(values - val).mean():.3g}" in page.text
    assert (page.all("img")[0]["alt"] or "").startswith("mistake 21.npy: ")
    assert "float32 6x8" in page.text
    assert "x (6 x any)" in page.text
    assert picture(page.all("img")[0]["src"]).size == (8, 6)
    assert f"all arrays {N} {labels.mean():.1f} {labels.std():.2f}" in page.text


def test_texts_are_shown_as_text(make_run: MakeRun) -> None:
    labels, logits = of_classes(np.random.default_rng(4))
    html = render([make_run("text-classification", labels, {"logits": logits}, kind="text")])
    page = Page(html)
    assert "8 of 12 texts are right" in page.text
    assert "Texts by split" in page.text
    assert len(page.all("p", "words")) == 4
    assert f"{WORDS} 16" in page.text
    assert "<script" not in html
    assert "\x1b" not in html
    assert "images" not in page.text.lower()
    assert "At most 16 tokens of a text" in page.text


def test_what_was_left_out_is_counted_and_named(make_run: MakeRun) -> None:
    labels, logits = of_classes(np.random.default_rng(5))
    skipped = (
        *(Skipped(f"dup/{i}.png", f"a copy of {i}.png, which is certified on once") for i in range(3)),
        Skipped("<i>.png", "the file is a damaged image (broken data stream)"),
    )
    page = Page(render([make_run("classification", labels, {"logits": logits}, skipped=skipped)]))
    assert "4 files were left out." in page.text
    assert "a copy of another, which is certified on once dup/0.png 3" in page.text
    assert "the file is a damaged image <i>.png 1" in page.text
    assert "the file is a damaged image (broken data stream)" in page.text


def test_runs_that_kept_less_say_what_is_missing(make_run: MakeRun) -> None:
    labels, _ = of_classes(np.random.default_rng(6))
    run = make_run("classification", labels, None)
    page = Page(render([replace(run, hashes={})]))
    assert "The run holds no val.npz: it was made before runs kept it." in page.text
    assert "Make it again with: edgetl finetune files --out run --fresh" in page.text
    assert "there are no curves" in page.text
    assert "Samples by class" in page.text


def test_samples_that_moved_or_changed_are_not_shown(make_run: MakeRun, tmp_path: Path) -> None:
    labels, logits = of_classes(np.random.default_rng(7))
    run = make_run("classification", labels, {"logits": logits})
    shutil.move(run.dataset.root, tmp_path / "moved")
    assert Page(render([run])).text.count("the file is not there any more") == 4
    write_image(tmp_path / "moved", 30)
    shutil.copy(tmp_path / "moved" / "30.png", tmp_path / "moved" / "16.png")
    page = Page(render([run], data_root=tmp_path / "moved"))
    assert len(page.all("img")) == 3
    assert page.text.count("the file has changed since") == 1


@pytest.mark.parametrize(
    "outputs",
    [
        {"logits": np.zeros((3, 3), np.float32)},
        {"logits": np.zeros((12, 3), np.int64)},
        {},
    ],
    ids=["too few", "integers", "nothing"],
)
def test_outputs_of_something_else_are_refused(make_run: MakeRun, outputs: dict[str, np.ndarray]) -> None:
    labels, _ = of_classes(np.random.default_rng(8))
    with pytest.raises(RunError, match="holds no outputs of the 12 samples"):
        render([make_run("classification", labels, outputs)])


def test_outputs_of_another_task_are_refused(make_run: MakeRun) -> None:
    labels, _ = of_classes(np.random.default_rng(8))
    wrong = (
        {"values": np.zeros((12, 1), np.float32)},
        {"logits": np.zeros((12, 4), np.float32)},
        {"logits": np.full((12, 3), np.nan, np.float32)},
    )
    for number, outputs in enumerate(wrong):
        run = make_run("classification", labels, outputs, kind=("image", "text", "tensor")[number])
        with pytest.raises(RunError, match="holds no finite logits: float32 nx3"):
            render([run])
    kept = make_run("text-classification", labels, {"logits": np.zeros((12, 3), np.float32)})
    with pytest.raises(RunError, match="labels of the kind 'number' for text-classification"):
        render([replace(kept, dataset=replace(kept.dataset, label_kind="number"))])


def test_a_run_and_a_bundle_share_a_page(make_run: MakeRun, make_bundle: Callable[..., Bundle]) -> None:
    labels, logits = of_classes(np.random.default_rng(9))
    page = Page(render([make_bundle(), make_run("classification", labels, {"logits": logits})]))
    assert "1 run." in page.text
    assert "1 bundle: 1 underpowered." in page.text
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for chart in page.all("svg", "chart"):
        assert set((chart["aria-labelledby"] or "").split()) <= set(ids)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the page is not rendered")
def test_runs_of_three_tasks_render_in_chromium(make_run: MakeRun, tmp_path: Path) -> None:
    labels, logits = of_classes(np.random.default_rng(10))
    values = np.random.default_rng(10).normal(0, 1, (12, 1)).astype(np.float32)
    runs = [
        make_run("classification", labels, {"logits": logits}, history=epochs(0.5, 0.7, 0.9)),
        make_run("text-classification", labels, {"logits": logits}, kind="text"),
        make_run("regression", [float(label) for label in labels], {"values": values}, kind="tensor", classes=()),
    ]
    page = write_report(runs, tmp_path / "report.html")
    rendered = Page(in_chromium(page, tmp_path / "profile"))
    assert len(rendered.all("section", "run")) == 3
    assert len(rendered.all("svg", "chart")) == 4 + 2 + 3
    assert len(rendered.all("figure", "mistake")) == 4 + 4 + 12
    assert WORDS in rendered.text
