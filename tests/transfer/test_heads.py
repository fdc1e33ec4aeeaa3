"""The fitted head and the scores it is chosen by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, log_loss

from edgetl.base.errors import DataError, UnknownNameError
from edgetl.tasks import find_task
from edgetl.transfer import heads, scores, strategies
from edgetl.transfer.strategies.base import Schedule
from edgetl.transfer.tasks import scored


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
    assert scored(find_task(None), {"logits": head.outputs(vx)}, vy).value > 0.9
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
