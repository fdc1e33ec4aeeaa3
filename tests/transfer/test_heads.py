"""The fitted head and the scores it is chosen by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.svm import LinearSVC

from edgetl.base.errors import DataError, UnknownNameError
from edgetl.inputs import input_of
from edgetl.tasks import find_task
from edgetl.transfer import heads, scores, strategies
from edgetl.transfer.finetune import finetune
from edgetl.transfer.head_search import GRID
from edgetl.transfer.model import load_model
from edgetl.transfer.strategies.base import Schedule
from edgetl.transfer.tasks import FITS, scored
from edgetl.transfer.weights import build

from .conftest import TINY


def blobs(classes: int, seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    centres = np.random.default_rng(7).normal(0, 3, (classes, 8))
    return (centres[labels] * 5 + 100 + rng.normal(0, 5, (n, 8))).astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_head_is_a_plain_linear_layer_that_separates_blobs(classes: int) -> None:
    (x, y), (vx, vy) = blobs(classes, 0), blobs(classes, 1)
    head = heads.logistic((x, y), (vx, vy), classes)
    assert head.weight.shape == (classes, 8)
    assert scored(find_task(None), {"logits": head.outputs(vx)}, vy).metrics["accuracy"] > 0.9
    assert scores.cross_entropy(head.outputs(vx), vy) == head.loss


def test_a_constant_feature_is_ignored() -> None:
    (x, y), (vx, vy) = blobs(3, 0), blobs(3, 1)
    x[:, 0] = 4.0
    head = heads.logistic((x, y), (vx, vy), 3)
    assert np.all(head.weight[:, 0] == 0)


def test_a_class_without_training_images_is_refused() -> None:
    x, y = blobs(3, 0)
    with pytest.raises(DataError, match="class 3 has no training sample"):
        heads.logistic((x, y), (x, y), 4)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 10_000))
def test_scores_agree_with_scikit_learn(classes: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    logits = rng.normal(0, 4, (n, classes)).astype(np.float32)
    found = scored(find_task("classification"), {"logits": logits}, labels)
    shares = np.exp(logits.astype(np.float64))
    shares /= shares.sum(1, keepdims=True)
    assert found.metrics["accuracy"] == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    # scikit-learn drops classes that are predicted but never occur, as we do.
    recalls = [np.mean(logits[labels == c].argmax(1) == c) for c in np.unique(labels)]
    assert found.metrics["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert found.loss == pytest.approx(log_loss(labels, shares, labels=list(range(classes))), rel=1e-6)
    if len(np.unique(labels)) == classes:
        assert found.metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, logits.argmax(1)))


def test_unknown_strategy_offers_near_names() -> None:
    with pytest.raises(UnknownNameError, match="did you mean fine-tune"):
        strategies.find("finetune")


def test_learning_rate_rises_then_falls_to_zero() -> None:
    schedule = Schedule(epochs=8, learning_rate=1.0, warmup_epochs=1.0)
    rates = [schedule.rate(step, 10) for step in range(80)]
    assert rates.index(max(rates)) == 10
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[10] == 1.0
    assert rates[-1] < 1e-3


@pytest.mark.parametrize("fit", sorted(FITS))
@pytest.mark.parametrize("classes", [2, 4])
def test_every_fit_is_a_plain_layer_whose_outputs_are_logits(fit: str, classes: int) -> None:
    (x, y), (vx, vy), (tx, ty) = (blobs(classes, seed, 80) for seed in (0, 1, 2))
    head = FITS[fit]((x, y), (vx, vy), classes)
    assert head.weight.shape == (classes, 8)
    assert (head.outputs(tx).argmax(1) == ty).mean() > 0.9
    assert scores.cross_entropy(head.outputs(tx), ty) < 0.5, "their softmax means something"


def test_the_support_vectors_are_scikit_learn_s() -> None:
    (x, y), val = blobs(3, 0), blobs(3, 1)
    head = FITS["svm"]((x, y), val, 3)
    centre, scale = x.mean(0), 1 / np.sqrt(x.var(0).mean())
    theirs = LinearSVC(C=head.inverse_penalty, max_iter=5000, random_state=0).fit((x - centre) * scale, y)
    told = theirs.decision_function((val[0] - centre) * scale)
    ours = head.outputs(val[0])
    assert np.corrcoef(ours.ravel(), told.ravel())[0, 1] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("samples", [40, 12])
def test_fewer_samples_than_features_give_the_same_head(samples: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (samples, 30)).astype(np.float32), np.arange(samples) % 2
    vx, vy = rng.normal(0, 1, (50, 30)).astype(np.float32), np.arange(50) % 2
    head = heads.logistic((x, y), (vx, vy), 2)
    centre, scale = x.mean(0), 1 / np.sqrt(x.var(0).mean())
    theirs = LogisticRegression(C=head.inverse_penalty, max_iter=2000, tol=1e-8).fit((x - centre) * scale, y)
    wanted = theirs.decision_function((vx - centre) * scale)
    ours = head.outputs(vx)
    assert np.allclose(ours[:, 1] - ours[:, 0], wanted, atol=0.02 * np.abs(wanted).max())


def test_the_penalty_of_folds_is_that_of_grid_search() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1, (90, 12)).astype(np.float32)
    y = (x[:, 0] + 1.5 * rng.normal(0, 1, 90) > 0).astype(np.int64)
    val = x[:5], y[:5]
    head = heads.logistic((x, y), val, 2, folds=5)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    scale = 1 / np.sqrt(x.var(0).mean())
    search = GridSearchCV(LogisticRegression(max_iter=2000), {"C": GRID}, scoring="neg_log_loss", cv=folds)
    assert head.inverse_penalty == search.fit((x - x.mean(0)) * scale, y).best_params_["C"]
    whole = heads.logistic((x, y), val, 2, weakest=head.inverse_penalty)
    assert whole.weight.shape == head.weight.shape
    with pytest.raises(DataError, match="3 samples of a class make no 5 folds"):
        heads.logistic((x[:30], np.arange(30) // 27), val, 2, folds=5)


@pytest.mark.parametrize("options", [{"head": "ridge"}, {"head": "svm", "folds": 3}, {"head": "best", "folds": 3}])
def test_a_probe_leaves_every_value_of_the_backbone(tmp_path: Path, few_digits: Path, options: dict[str, Any]) -> None:
    run = finetune(few_digits, tmp_path / "run", **TINY, strategy="linear-probe", set=options)
    plain = finetune(few_digits, tmp_path / "plain", **TINY, strategy="linear-probe")
    one, other = (load_model(each).backbone.state_dict() for each in (run, plain))
    torch.manual_seed(0)
    started = build("timm/test_efficientnet", 4, weights="none", definition=input_of(run)).state_dict()
    changed = {name for name, value in one.items() if not torch.equal(value, started[name])}
    assert changed == {"classifier.weight", "classifier.bias"}, "parameters and buffers"
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])
    assert run.settings["options"] == {"head": options["head"], "folds": options.get("folds", 0)}
