"""Learning each kind of label: heads against scikit-learn, scales, and runs from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score, log_loss, mean_absolute_error

from edgetl.base.errors import DataError, EdgetlError
from edgetl.base.progress import silent
from edgetl.inputs import input_of
from edgetl.tasks import find_task
from edgetl.transfer import heads
from edgetl.transfer.finetune import finetune
from edgetl.transfer.head_search import GRID
from edgetl.transfer.model import load_baseline, load_model
from edgetl.transfer.scores import CALIBRATED, FEW
from edgetl.transfer.strategies import STRATEGIES
from edgetl.transfer.strategies.base import HeadSpec, TaskLoss
from edgetl.transfer.tasks import LEARNERS, Scale, scored
from edgetl.workflow.reference import TorchReference, reproduced

from .conftest import TINY


def features(n: int, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).normal(0, 1, (n, 6)) * 3 + 50).astype(np.float32)


def test_one_vs_rest_is_a_logistic_regression_for_each_class() -> None:
    x, vx = features(200, 0), features(80, 1)
    rule = np.random.default_rng(2).normal(0, 1, (6, 3))
    y, vy = (((f - 50) @ rule + 1 > 0).astype(np.float32) for f in (x, vx))
    head = heads.one_vs_rest((x, y), (vx, vy), 3)
    spread = np.sqrt(x.var(0, dtype=np.float64).mean())
    standard, values = (x - x.mean(0)) / spread, (vx - x.mean(0)) / spread
    for c in range(3):
        theirs = LogisticRegression(C=head.inverse_penalty, max_iter=500).fit(standard, y[:, c])
        assert head.outputs(vx)[:, c] == pytest.approx(theirs.decision_function(values), rel=0.01, abs=0.05)


def test_a_class_that_every_sample_has_is_always_said_to_be_present() -> None:
    x, vx = features(60, 0), features(30, 1)
    y, vy = (np.stack([np.ones(len(f)), f[:, 0] > 50], 1).astype(np.float32) for f in (x, vx))
    head = heads.one_vs_rest((x, y), (vx, vy), 2)
    assert np.all(head.weight[0] == 0)
    assert np.all(head.outputs(vx)[:, 0] > 2)
    with pytest.raises(DataError, match="class 1 has no training sample"):
        heads.one_vs_rest((x, y * [1, 0]), (vx, vy), 2)


def test_ridge_is_scikit_learns_and_its_penalty_the_best_on_val() -> None:
    x, vx = features(40, 0), features(40, 1)
    noise = np.random.default_rng(3).normal(0, 1, 80)
    labels = (x @ np.arange(6) + noise[:40]) * 1000
    scale = LEARNERS["number"].scale(labels)
    y = LEARNERS["number"].targets(labels, scale)
    vy = LEARNERS["number"].targets((vx @ np.arange(6) + noise[40:]) * 1000, scale)
    head = heads.ridge((x, y), (vx, vy))
    spread = np.sqrt(x.var(0, dtype=np.float64).mean())
    standard, values = (x - x.mean(0)) / spread, (vx - x.mean(0)) / spread
    errors = {c: np.mean((Ridge(alpha=1 / c).fit(standard, y).predict(values) - vy[:, 0]) ** 2) for c in GRID}
    assert head.inverse_penalty == min(errors, key=errors.__getitem__)
    assert head.loss == pytest.approx(errors[head.inverse_penalty], rel=1e-3)


def test_a_head_that_was_trained_on_standardised_numbers_gives_their_unit_once_folded() -> None:
    labels = np.array([1000.0, 1200.0, 1700.0])
    learner = LEARNERS["number"]
    scale = learner.scale(labels)
    assert scale.applied(learner.targets(labels, scale))[:, 0] == pytest.approx(labels)
    layer, x = torch.nn.Linear(4, 1), torch.randn(5, 4)
    with torch.no_grad():
        before = scale.applied(layer(x).numpy())
        scale.fold(layer)
        assert layer(x).numpy() == pytest.approx(before, rel=1e-5)
    assert learner.scale(np.array([2.0, 2.0])) == Scale(2.0, 1.0)


def test_scores_are_the_tasks_metrics() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((FEW, 4)) < 0.4).astype(np.uint8)
    logits = rng.normal(0, 1, (FEW, 4)).astype(np.float32) + labels
    found = scored(find_task("multi-label"), {"logits": logits}, labels)
    assert found.metrics["macro_AP"] == pytest.approx(average_precision_score(labels, logits))
    assert (found.ranked, found.better, found.value) == ("macro_AP", "higher", found.metrics["macro_AP"])
    few = scored(find_task("multi-label"), {"logits": logits[:50]}, labels[:50])
    times = np.geomspace(0.05, 20, 400)
    best = min(log_loss(labels[:50].ravel(), expit(t * logits[:50].ravel().astype(np.float64))) for t in times)
    assert (few.ranked, few.better, few.value) == (CALIBRATED, "lower", pytest.approx(best, rel=1e-3))
    numbers = rng.normal(5, 2, 50)
    values = (numbers + rng.normal(0, 1, 50)).astype(np.float32)[:, None]
    found = scored(find_task("regression"), {"values": values}, numbers)
    assert found.metrics["mae"] == pytest.approx(mean_absolute_error(numbers, values))
    worse = scored(find_task("regression"), {"values": values + 3}, numbers)
    assert found.rank > worse.rank


def test_no_strategy_names_a_loss_that_the_task_should_choose() -> None:
    """A probe has none; the others take the task's, alone or beside terms of their own, but for what reads no label."""
    terms = {name: recipe().terms for name, recipe in STRATEGIES.items()}
    assert terms.pop("linear-probe") == terms.pop("adabn") == ()
    assert all(not terms.pop(name) for name in ("prototype", "nearest-mean", "slda", "cosine", "ridge"))
    assert STRATEGIES["shot"]().labels == ("class",)
    assert len(terms.pop("shot")) == 1
    assert all(any(isinstance(term, TaskLoss) for term in own) for own in terms.values())


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory, few_digits: Path) -> dict[str, Path]:
    """The digits 0 to 3 as CSV files: which of ``round`` and ``low`` they are, and a number in thousands."""
    folder = tmp_path_factory.mktemp("marked")
    names = {"0": "low|round", "1": "low", "2": "round", "3": ""}
    files = sorted(few_digits.rglob("*.png"))
    several = [f"{file},{names[file.parent.name]}" for file in files]
    numbers = [f"{file},{1000 * int(file.parent.name)}" for file in files]
    (folder / "several.csv").write_text("\n".join(["path,labels", *several]))
    (folder / "numbers.csv").write_text("\n".join(["path,target", *numbers]))
    return {name: folder / f"{name}.csv" for name in ("several", "numbers")}


@pytest.mark.parametrize(
    ("data", "task", "output", "metric"),
    [("several", "multi-label", "logits", "macro_AP"), ("numbers", "regression", "values", "mae")],
)
def test_images_with_other_labels(
    data: str, task: str, output: str, metric: str, marked: dict[str, Path], tmp_path: Path
) -> None:
    options: dict[str, Any] = {**TINY, "epochs": 2, "learning_rate": 0.003, "baseline": "probe"}
    run = finetune(marked[data], tmp_path / "run", **options)
    assert (run.task, run.metrics.metric, run.settings["task"]) == (task, metric, task)
    outputs, labels = run.val_outputs, run.dataset.labels("val")
    assert outputs is not None
    assert list(outputs) == [output]
    assert scored(find_task(task), outputs, labels).to_json() == run.metrics.val
    with torch.inference_mode():
        image = torch.from_numpy(input_of(run).batch(run.dataset.paths("val"))["image"])
        assert load_model(run)(image).numpy() == pytest.approx(outputs[output], rel=1e-4, abs=1e-2)
        probed = scored(find_task(task), {output: load_baseline(run)(image).numpy()}, labels)
    assert run.baseline is not None
    reached = probed.metrics[metric]
    assert reached == pytest.approx(run.baseline.metrics.val[metric], rel=1e-4)
    sign = 1 if task == "multi-label" else -1
    assert run.gain == pytest.approx(sign * (run.metrics.val[metric] - reached), rel=1e-3, abs=1e-6)
    recorded, again, n = reproduced(run, TorchReference(run).outputs("val", silent))
    assert (recorded, n) == (run.metrics.val[metric], len(labels))
    assert again == pytest.approx(recorded, rel=1e-4)
    if task == "regression":
        assert run.metrics.val["mae"] < np.abs(labels - labels.mean()).mean()
        assert "train_accuracy" not in run.history[-1]
    else:
        assert run.metrics.val["macro_AP"] > 0.9
    assert json.loads((run.path / "run.json").read_text())["task"] == task


def test_what_does_not_fit_the_data_is_refused_before_any_work(
    marked: dict[str, Path], few_digits: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    wrong: list[tuple[Path, dict[str, Any], str]] = [
        (marked["several"], {"task": "regression"}, r"reads the column 'target', .* has 'labels': use --task multi"),
        (few_digits, {"task": "text-classification"}, r"reads texts, .* holds images: use --task classification"),
        (few_digits, {"backbone": "minilm"}, r"'minilm' takes texts, .* holds images: use --backbone efficientnet"),
        (few_digits, {"task": "classificatio"}, "did you mean classification"),
    ]
    for data, change, words in wrong:
        with pytest.raises(EdgetlError, match=words) as caught:
            finetune(data, out, **{**TINY, **change})
        assert caught.value.exit_status == 2
    assert not out.exists()


def test_data_that_cannot_be_read_leave_nothing_in_the_way(few_digits: Path, tmp_path: Path) -> None:
    table, options = tmp_path / "table.csv", {**TINY, "strategy": "linear-probe"}
    files = sorted(few_digits.rglob("*.png"))
    rows = [f"{file},{file.parent.name}" for file in files]
    table.write_text("\n".join(["path,label", *rows[:9], *(f"absent-{i}.png,1" for i in range(9))]))
    with pytest.raises(DataError, match="unusable"):
        finetune(table, tmp_path / "run", **options)
    table.write_text("\n".join(["path,label", *rows]))
    assert finetune(table, tmp_path / "run", **options).task == "classification"


def test_the_head_asked_for_is_the_one_fitted() -> None:
    x, y = features(60, 0), np.arange(60) % 3
    spec = HeadSpec(weakest_penalty=1e-3, class_balance=1.0)
    assert LEARNERS["class"].fit((x, y), (x, y), 3, spec).inverse_penalty <= 1e-3
