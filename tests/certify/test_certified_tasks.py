"""Certificates of every task, from answers, from arrays and from saved predictions."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import average_precision_score, f1_score

import edgetl
from edgetl.base.errors import CertifyError, UnknownNameError
from edgetl.certify import Certificate, Facts, Predictions, certify_answers, paired_test
from edgetl.core.tensors import Arrays
from edgetl.tasks import TASKS, Task
from tests.certify.test_certificate_record import PROMISED

NAMES = ("cat", "dog", "fox")
Outputs = dict[str, Arrays]


@functools.cache
def outputs(task: str, n: int = 250, noise: float = 0.1) -> tuple[Outputs, npt.NDArray[Any]]:
    """Outputs of a reference, a rung and a deployed model that departs by ``noise``, and labels."""
    rng = np.random.default_rng(n)
    if task == "regression":
        labels: npt.NDArray[Any] = rng.normal(20, 5, n)
        name, reference = "values", (labels + rng.normal(size=n))[:, None]
    elif task == "multi-label":
        labels = (rng.random((n, 3)) < (0.5, 0.3, 0.2)).astype(np.uint8)
        name, reference = "logits", 3.0 * labels - 1.5 + rng.normal(size=(n, 3))
    else:
        labels = rng.integers(0, 3, n)
        name, reference = "logits", 3 * np.eye(3)[labels] + rng.normal(size=(n, 3))
    deployed = reference + noise * rng.normal(size=reference.shape)
    models = {"reference": reference, "float ONNX": reference + 1e-5, "deployed": deployed}
    return {model: {name: values.astype(np.float32)} for model, values in models.items()}, labels


def answers(task: Task, made: Outputs) -> dict[str, Arrays]:
    return {model: task.decode(found, {}) for model, found in made.items()}


def certified(task: Task, **options: Any) -> Certificate:
    made, labels = outputs(task.name)
    return certify_answers(task, labels, answers(task, made), NAMES, **options)


def saved(task: Task) -> Predictions:
    made, labels = outputs(task.name)
    n = len(labels)
    return Predictions.from_outputs(
        task, labels=labels, outputs=made, paths=[f"{i}.x" for i in range(n)], sha256=["a" * 64] * n, classes=NAMES
    )


every_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@every_task
def test_every_task_has_a_whole_certificate(task: Task) -> None:
    certificate = certified(task, facts=Facts(executed="device", runtime="r 1", sample="sample"))
    record = json.loads(json.dumps(certificate.to_json(), allow_nan=False))
    assert set(record) >= PROMISED
    assert Certificate.from_json(record) == certificate
    assert (record["task"], record["metric"]) == (task.name, task.metric)
    assert set(record["scores"]) == set(task.metrics)
    decides = record["scores"][task.metric]
    assert record["verdict"] == decides["verdict"]
    for name in ("difference", "ci_low", "ci_high", "margin"):
        assert record[name] == decides[name]
    assert (record["reference_score"], record["deployed_score"]) == (decides["reference"], decides["deployed"])
    assert [rung["name"] for rung in record["ladder"]] == ["reference", "float ONNX", "deployed"]
    assert record["ladder"][0]["score"] == pytest.approx(decides["reference"])
    assert record["ladder"][2]["score"] == pytest.approx(decides["deployed"])
    assert record["ladder"][1]["divergence"] == pytest.approx(0, abs=1e-6)
    assert record["ladder"][2]["divergence"] > record["ladder"][1]["divergence"]
    assert record["first_divergence"] is None
    classification = task.labels == "class"
    assert (record["reference_accuracy"] is not None) == classification
    assert (record["balanced"] is not None) == (record["probabilities"] is not None) == classification
    assert list(record["classes"]) == ([] if task.labels == "number" else list(NAMES))
    assert "250 samples" in certificate.sentence()
    assert "-" not in certificate.sentence().replace("non-", "").replace(task.metric, "")


@every_task
def test_saved_predictions_give_the_same_certificate(task: Task, tmp_path: Path) -> None:
    first = saved(task)
    first.save(tmp_path / "p.npz")
    again = Predictions.load(tmp_path / "p.npz")
    assert again.digest() == first.digest()
    made = [certify_answers(**kept.arguments()).to_json() for kept in (first, again)]
    assert made[0] == made[1]
    direct = certified(task).to_json()
    for name in ("verdict", "difference", "ci_low", "ci_high", "scores", "flips", "classes"):
        assert made[1][name] == direct[name]
    other = list(task.metrics)[-1]
    judged = certify_answers(**again.arguments(), metric=other, margin=0.5)
    assert (judged.metric, judged.margin) == (other, 0.5)
    assert (tmp_path / "p.npz").stat().st_size < 100 * len(first.labels)


@every_task
def test_equal_models_pass_once_there_are_enough_samples_and_are_underpowered_before(task: Task) -> None:
    # At the margin of 0.01 macro-AP needs 6,500 samples.
    margin = 0.05 if task.name == "multi-label" else None
    for n, verdict in ((40, "underpowered"), (1200, "pass")):
        made, labels = outputs(task.name, n)
        models = answers(task, {"reference": made["reference"], "deployed": made["reference"]})
        certificate = certify_answers(task, labels, models, NAMES, margin=margin)
        assert certificate.verdict == verdict
        assert (certificate.difference, certificate.ladder[-1].agreement) == (0, 1)
        assert certificate.n_needed is not None
        assert certificate.n_needed > n or verdict == "pass"


@every_task
def test_a_broken_model_fails_and_its_rung_is_named(task: Task) -> None:
    made, labels = outputs(task.name)
    broken = {name: np.ascontiguousarray(values[::-1]) for name, values in made["reference"].items()}
    models = {"reference": made["reference"], "Q/DQ in float": broken, "deployed": broken}
    certificate = certify_answers(task, labels, answers(task, models), NAMES)
    assert certificate.verdict == "fail"
    assert certificate.first_divergence == "Q/DQ in float"
    assert all(score.verdict == "fail" for score in certificate.scores.values())
    assert certificate.ci_high < 0


@every_task
def test_margins_that_nobody_names_are_those_of_the_metric(task: Task) -> None:
    _, labels = outputs(task.name)
    certificate = certified(task)
    assert certificate.margin == task.metrics[task.metric].margin_for(labels)
    for name, score in certificate.scores.items():
        assert score.margin == task.metrics[name].margin_for(labels)


def test_margins_in_the_labels_unit_are_measured_by_the_labels_of_training() -> None:
    task = TASKS["regression"]
    known = np.random.default_rng(1).normal(20, 40, 1000)
    certificate = certified(task, trained=known)
    assert certificate.margin == 0.01 * known.std()
    assert certified(task, metric="r2", trained=known).scores["mae"].margin == 0.01 * known.std()
    (note,) = (note for note in certificate.notes if "standard deviation of the labels of training" in note)
    assert note.startswith(f"The margin of {certificate.margin:.4g} is 1 % of")
    (note,) = (note for note in certified(task, margin=2.5).notes if "margin" in note)
    assert note == "The margin of 2.5 is 48.9 % of the standard deviation of these labels."
    for other in ("classification", "multi-label"):
        assert certified(TASKS[other], trained=np.zeros(3)).margin == 0.01
        assert not [note for note in certified(TASKS[other]).notes if "The margin" in note]


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_a_verdict_of_numbers_does_not_depend_on_their_unit(scale: float) -> None:
    made, labels = outputs("regression")
    scaled = {model: {"values": found["values"] * scale} for model, found in made.items()}
    found = certify_answers(TASKS["regression"], labels * scale, scaled)
    assert found.verdict == certified(TASKS["regression"]).verdict
    assert found.n_needed == pytest.approx(certified(TASKS["regression"]).n_needed, rel=0.01)


def test_a_margin_holds_for_the_metrics_of_its_unit() -> None:
    scores = certified(TASKS["regression"], metric="rmse", margin=0.7).scores
    assert (scores["mae"].margin, scores["rmse"].margin, scores["r2"].margin) == (0.7, 0.7, 0.01)
    assert {s.margin for s in certified(TASKS["multi-label"], margin=0.03).scores.values()} == {0.03}


# --- several labels


def test_a_label_that_collapsed_fails_although_the_metric_holds() -> None:
    task = TASKS["multi-label"]
    made, labels = outputs("multi-label", 1500)
    reference = made["reference"]["logits"]
    deployed = reference.copy()
    # Ranks stay as they are, so the average precision does; but the third label is hardly ever present any more.
    deployed[:, 2] -= 4
    models = answers(task, {"reference": {"logits": reference}, "deployed": {"logits": deployed}})
    certificate = certify_answers(task, labels, models, NAMES)
    assert certificate.scores["macro-AP"].difference == 0
    assert certificate.scores["macro-AP"].verdict != "fail"
    assert certificate.verdict == "fail"
    assert [name for name, record in certificate.classes.items() if record.collapsed] == ["fox"]
    assert certificate.classes["fox"].n == labels[:, 2].sum()
    assert "The recall of class 'fox' fell" in " ".join(certificate.reasons)
    assert certificate.flips["lost"] == len(saved_flips(models, labels)[0])


def saved_flips(models: dict[str, Arrays], labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    right = [(models[name]["present"] == labels.astype(bool)).all(axis=1) for name in ("reference", "deployed")]
    return np.flatnonzero(right[0] & ~right[1]), np.flatnonzero(~right[0] & right[1])


def test_saved_label_sets_know_their_flips() -> None:
    kept = saved(TASKS["multi-label"])
    lost, gained = saved_flips(dict(kept.models), kept.labels)
    assert kept.lost.tolist() == lost.tolist()
    assert kept.gained.tolist() == gained.tolist()
    assert saved(TASKS["regression"]).lost.tolist() == []


# --- arrays from anywhere


def scores_and_labels() -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    made, labels = outputs("multi-label")
    return made["reference"]["logits"], made["deployed"]["logits"], labels


def test_arrays_of_scores_are_judged_by_macro_ap() -> None:
    reference, deployed, labels = scores_and_labels()
    found = edgetl.verify(reference=reference, deployed=deployed, labels=labels)
    assert (found.task, found.metric) == ("multi-label", "macro-AP")
    assert found.deployed_score == pytest.approx(average_precision_score(labels, deployed, average="macro"))
    assert found.scores["micro-F1"].reference == pytest.approx(f1_score(labels, reference >= 0, average="micro"))
    assert edgetl.verify(reference=reference, deployed=deployed, labels=labels, metric="MACRO-AP").metric == "macro-AP"


def test_probabilities_are_scores_too() -> None:
    reference, deployed, labels = scores_and_labels()
    sure = [1 / (1 + np.exp(-values.astype(np.float64))) for values in (reference, deployed)]
    found = edgetl.verify(reference=sure[0], deployed=sure[1], labels=labels)
    logits = edgetl.verify(reference=reference, deployed=deployed, labels=labels)
    for metric, score in logits.scores.items():
        assert found.scores[metric].reference == pytest.approx(score.reference)
        assert found.scores[metric].ci_low == pytest.approx(score.ci_low)


def test_the_task_follows_from_the_labels_or_the_metric() -> None:
    classes, numbers = np.arange(60) % 3, np.arange(60) / 7
    assert edgetl.verify(reference=classes, deployed=classes, labels=classes).metric == "accuracy"
    assert edgetl.verify(reference=numbers, deployed=numbers, labels=numbers).metric == "mae"
    assert edgetl.verify(reference=classes, deployed=classes, labels=classes, metric="rmse").metric == "rmse"
    with pytest.raises(UnknownNameError, match="did you mean macro-AP"):
        edgetl.verify(reference=classes, deployed=classes, labels=classes, metric="macro-ap50")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"deployed": np.zeros((3, 1))}, "deployed has the shape (3, 1) and labels (3, 2)"),
        ({"deployed": np.zeros(3)}, "deployed has 1 dimensions instead of 2"),
        ({"deployed": np.full((3, 2), np.nan)}, "deployed contains NaN"),
        ({"deployed": [["a", "b"]] * 3}, "deployed is <U1"),
        ({"labels": [[0, 2]] * 3}, "give 0 or 1 for each label"),
        ({"labels": np.zeros((3, 0))}, "give 0 or 1 for each label"),
        ({"labels": np.zeros((3, 2))}, "macro average precision is not defined on these samples: some sample must"),
        ({"labels": [0, 1, 1], "metric": "macro-AP"}, "give 0 or 1 for each label"),
        ({"margin": 1.5}, "margin 1.5 is not in the range"),
    ],
)
def test_scores_that_cannot_be_compared(changes: dict[str, Any], message: str) -> None:
    good = {"reference": np.zeros((3, 2)), "deployed": np.ones((3, 2)), "labels": [[0, 1], [1, 0], [1, 1]]}
    with pytest.raises(CertifyError) as caught:
        edgetl.verify(**{**good, **changes})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the test of macro-AP


def test_the_interval_of_macro_ap_is_that_of_a_bootstrap_by_scikit_learn() -> None:
    """With many samples the unseen one hardly counts."""
    made, labels = outputs("multi-label", 4000, 0.5)
    reference, deployed = made["reference"]["logits"], made["deployed"]["logits"]
    rng, drawn = np.random.default_rng(1), []
    for _ in range(150):
        rows = rng.integers(0, len(labels), len(labels))
        before, after = (average_precision_score(labels[rows], values[rows]) for values in (reference, deployed))
        drawn.append(after - before)
    task = TASKS["multi-label"]
    evidence = [task.evidence(found, labels) for found in answers(task, made).values()]
    test = paired_test(task.metrics["macro-AP"], evidence[0], evidence[2], 0.01, replicates=300)
    assert test.difference == pytest.approx(np.mean(drawn), abs=0.001)
    assert test.ci_high - test.ci_low > 3.29 * np.std(drawn)
    # One that is wrong in all labels costs a label of m samples at most log(m) / m, and counts three times.
    fewest = int(labels.sum(axis=0).min())
    assert test.ci_high - test.ci_low < 3.29 * np.std(drawn) + 2 * 3 * np.log(fewest) / fewest
