"""Heads of class means: the closed forms against distances and scikit-learn, and a run of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from edgetl.base.errors import DataError, EdgetlError
from edgetl.core.run import load_run
from edgetl.transfer import class_means, scores
from edgetl.transfer.finetune import finetune
from edgetl.transfer.strategies import find

from .conftest import TINY
from .test_heads import blobs


def parts(classes: int = 4) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    return blobs(classes, 0), blobs(classes, 1)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 40))
def test_a_prototype_is_the_squared_distance_in_linear_form(seed: int, classes: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (classes * 3, width)).astype(np.float32)
    labels = np.arange(len(x)) % classes
    found = class_means.fit("prototype", (x, labels), (x, labels), classes)
    prototypes = np.stack([x[labels == c].mean(0, dtype=np.float64) for c in range(classes)])
    distances = np.square(x[:, None].astype(np.float64) - prototypes).sum(2)
    # Softmax leaves out what is the same for all classes: the sample's own |x|².
    wanted = found.rule.gain / 2 * (np.square(x.astype(np.float64)).sum(1)[:, None] - distances)
    assert np.abs(found.head.outputs(x) - wanted).max() <= 1e-5 * max(np.abs(wanted).max(), 1)


@pytest.mark.parametrize("shrinkage", [1e-3, 0.3])
def test_slda_is_linear_discriminant_analysis_of_the_same_covariance(shrinkage: float) -> None:
    train, val = parts()
    found = class_means.fit("slda", train, val, 4, shrinkage)
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=[0.25] * 4).fit(*train)
    logits = found.head.outputs(val[0]) / found.rule.gain
    assert np.abs(softmax(logits) - oracle.predict_proba(val[0])).max() < 1e-4
    assert scores.cross_entropy(found.head.outputs(val[0]), val[1]) <= scores.cross_entropy(logits, val[1]) + 1e-6


def test_ridge_is_ridge_regression_with_classes_of_equal_weight() -> None:
    (x, y), val = parts(3)
    x, y = x[:-7], y[:-7]
    found = class_means.fit("ridge", (x, y), val, 3, 0.1)
    weights = (len(y) / 3 / np.bincount(y))[y]
    centred = x - np.stack([x[y == c].mean(0, dtype=np.float64) for c in range(3)]).mean(0)
    penalty = 0.1 * float((weights[:, None] * centred**2).sum(0).mean())
    oracle = Ridge(alpha=penalty).fit(x.astype(np.float64), 2 * np.eye(3)[y] - 1, sample_weight=weights)
    factor = found.rule.offset / (2 / 3 - 1)
    assert np.abs(found.head.outputs(val[0]) / factor - oracle.predict(val[0])).max() < 1e-3


def test_cosine_answers_by_the_angle_alone() -> None:
    train, val = parts()
    found = class_means.fit("cosine", train, val, 4)
    assert not found.head.bias.any()
    assert np.allclose(np.linalg.norm(found.head.weight, axis=1), found.rule.gain, rtol=1e-5)
    directions = train[0] / np.linalg.norm(train[0], axis=1, keepdims=True)
    means = np.stack([directions[train[1] == c].mean(0) for c in range(4)])
    angles = val[0] @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    assert np.array_equal(found.head.outputs(val[0]).argmax(1), angles.argmax(1))


def test_nearest_mean_measures_each_feature_by_its_own_spread() -> None:
    train, val = parts()
    scales = np.array([1, 10, 100, 1000, 1, 1, 1, 1], np.float32)
    plain = class_means.fit("nearest-mean", train, val, 4, 1e-4)
    scaled = class_means.fit("nearest-mean", (train[0] * scales, train[1]), (val[0] * scales, val[1]), 4, 1e-9)
    same = plain.head.outputs(val[0]).argmax(1) == scaled.head.outputs(val[0] * scales).argmax(1)
    assert same.mean() > 0.95


@pytest.mark.parametrize("kind", sorted(class_means.KINDS))
def test_a_row_follows_from_its_own_mean_and_the_rule(kind: str) -> None:
    (x, y), val = parts()
    found = class_means.fit(kind, (x, y), val, 4)
    for c in range(4):
        mean = found.rule.prepared(x[y == c]).mean(0, dtype=np.float64).astype(np.float32)
        weight, bias = found.rule.rows(mean[None])
        assert np.allclose(weight[0], found.head.weight[c], rtol=1e-4, atol=1e-6)
        assert np.allclose(bias[0], found.head.bias[c], rtol=1e-4, atol=1e-4 * np.abs(found.head.bias).max() + 1e-6)
    assert (found.head.outputs(val[0]).argmax(1) == val[1]).mean() > 0.9


@pytest.mark.parametrize("kind", sorted(class_means.KINDS))
def test_features_that_never_vary_and_one_sample_a_class_leave_numbers(kind: str) -> None:
    x, y = np.ones((3, 5), np.float32), np.arange(3)
    x[:, 0] = [0, 1, 2]
    head = class_means.fit(kind, (x, y), (x, y), 3).head
    assert np.isfinite(head.weight).all()
    assert np.isfinite(head.bias).all()


def test_a_class_without_samples_and_an_impossible_shrinkage_are_refused() -> None:
    (x, y), val = parts()
    with pytest.raises(DataError, match="class 4 has no training sample"):
        class_means.fit("slda", (x, y), val, 5)
    with pytest.raises(EdgetlError, match=r"shrinkage is 2\.0: give a number from 0 to 1"):
        find("slda", {"shrinkage": "2"})


@pytest.mark.parametrize("strategy", ["prototype", "nearest-mean", "slda", "cosine", "ridge"])
def test_a_run_of_each_is_an_ordinary_run(few_digits: Path, tmp_path: Path, strategy: str) -> None:
    options: dict[str, Any] = {**TINY, "strategy": strategy}
    run = finetune(few_digits, tmp_path / "run", **options)
    assert run.settings["details"]["head"]["kind"] == strategy
    assert run.metrics.val["accuracy"] > 0.5
    assert load_run(run.path).digest == run.digest
