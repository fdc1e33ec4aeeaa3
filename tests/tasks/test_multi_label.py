"""Several labels a sample."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import expit, rel_entr
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from edgetl.base.errors import DataError
from edgetl.tasks import TASKS, Evidence
from edgetl.tasks.average_precision import unseen_ranks
from tests.tasks.contract import NAMES, Labels, TaskContract


def macro_ap(answers: Any, labels: Labels, times: npt.NDArray[np.float64]) -> float:
    """Mean of scikit-learn's average precision over the labels that some counted sample has."""
    present = [column for column in range(labels.shape[1]) if labels[times > 0, column].any()]
    scores = answers["logits"]
    return float(np.mean([average_precision_score(labels[:, c], scores[:, c], sample_weight=times) for c in present]))


def micro_f1(answers: Any, labels: Labels, times: npt.NDArray[np.float64]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(f1_score(labels, answers["present"], average="micro", sample_weight=times, zero_division=1.0))


def loss_of_one_more(metric: str, evidence: Evidence, rows: tuple[Evidence, Evidence]) -> float:
    """Loss if a sample is added of which the two models give these rows."""
    measured = TASKS["multi-label"].metrics[metric]
    before, after = (
        measured.of({name: np.concatenate([evidence[name], values]) for name, values in row.items()}) for row in rows
    )
    return before - after


def perfect(seed: int, n: int, chances: list[float]) -> Evidence:
    """Evidence of a model that is right about every label, with scores that are all different."""
    rng = np.random.default_rng(seed)
    labels = rng.random((n, len(chances))) < chances
    labels[0, 0] = True
    task = TASKS["multi-label"]
    logits = 4.0 * labels - 2 + rng.random(labels.shape)
    return task.evidence(task.decode({"logits": logits}, {}), labels)


@pytest.mark.parametrize("metric", ["macro-AP", "micro-F1"])
@pytest.mark.parametrize("seed", range(8))
def test_no_sample_like_one_that_was_seen_costs_more_than_the_unseen_one(metric: str, seed: int) -> None:
    evidence = perfect(seed, 12 * (seed + 1), [0.5, 0.3, 0.2, 0.1])
    task = TASKS["multi-label"]
    unseen = task.metrics[metric].unseen
    assert unseen is not None
    worst = loss_of_one_more(metric, evidence, unseen(evidence, evidence))
    assert worst == pytest.approx(-loss_of_one_more(metric, evidence, unseen(evidence, evidence)[::-1]))
    rng = np.random.default_rng(seed)
    for has in np.unique(evidence["label"], axis=0):
        right = np.where(has, 9.0, -9.0)
        for wrong in (-right, np.full(4, 9.0), np.full(4, -9.0), *(right * rng.choice([-1, 1], (6, 4)))):
            rows = [task.evidence(task.decode({"logits": logits[None]}, {}), has[None]) for logits in (right, wrong)]
            assert loss_of_one_more(metric, evidence, (rows[0], rows[1])) <= worst + 1e-12


def test_without_labels_that_no_sample_has_the_unseen_sample_is_the_same() -> None:
    evidence = perfect(1, 80, [0.5, 0.2, 0.0])
    fewer = {name: values[:, :2] if values.ndim == 2 else values for name, values in evidence.items()}
    for row, shorter in zip(unseen_ranks(evidence, evidence), unseen_ranks(fewer, fewer), strict=True):
        assert all((row[name][:, :2] == shorter[name]).all() for name in row)


class TestMultiLabel(TaskContract):
    task = TASKS["multi-label"]
    independent: ClassVar = {
        "macro-AP": macro_ap,
        "micro-F1": micro_f1,
        "subset-accuracy": lambda answers, labels, times: accuracy_score(
            labels, answers["present"], sample_weight=times
        ),
    }

    def samples(self, rng: np.random.Generator, n: int) -> tuple[dict[str, npt.NDArray[Any]], Labels]:
        # The last label is so rare that many a replicate has no sample of it.
        labels = (rng.random((n, len(NAMES))) < [0.5, 0.3, 0.2, 0.03]).astype(np.uint8)
        labels[0, 0] = 1
        logits = (2.0 * labels - 1 + rng.normal(size=labels.shape)).round(1)
        return {"logits": logits.astype(np.float32)}, labels

    def test_threshold_is_an_option(self) -> None:
        logits = np.array([[0.0, -0.01, 2.0, -2.0]], np.float32)
        assert self.task.decode({"logits": logits}, {})["present"].tolist() == [[True, False, True, False]]
        assert self.task.decode({"logits": logits}, {"threshold": 0.1})["present"].tolist() == [[True] * 4]
        assert not self.task.decode({"logits": logits}, {"threshold": 0.9})["present"].any()
        for wrong in (0.0, 1.0, -1.0):
            with pytest.raises(DataError, match="threshold"):
                self.task.decode({"logits": logits}, {"threshold": wrong})

    def test_description_is_the_set_and_the_most_probable(self) -> None:
        logits = np.array([[1.0, -0.5, 3.0, -2.0], [-1.0, -2.0, -3.0, -4.0]], np.float32)
        some, none = self.task.describe(self.task.decode({"logits": logits}, {}), NAMES, 1)
        assert [entry["label"] for entry in some["labels"]] == ["fox", "cat"]
        assert some["labels"][0]["probability"] == pytest.approx(float(expit(3.0)))
        assert none["labels"] == []
        assert none["top"] == [{"label": "cat", "probability": pytest.approx(float(expit(-1.0)))}]

    def test_divergence_is_that_of_scipy(self) -> None:
        (one, _, _), (other, _, _) = self.answered(1), self.answered(2)
        p, q = (expit(a["logits"].astype(np.float64)) for a in (one, other))
        expected = float((rel_entr(p, q) + rel_entr(1 - p, 1 - q)).mean())
        assert self.task.divergence(one, other) == pytest.approx(expected)

    def test_labels_without_a_sample_are_left_out_of_the_average_precision(self) -> None:
        answers, labels, _ = self.answered(3)
        labels[:, 3] = 0
        found = self.task.metrics["macro-AP"].of(self.task.evidence(answers, labels))
        scores = answers["logits"]
        assert found == pytest.approx(np.mean([average_precision_score(labels[:, c], scores[:, c]) for c in range(3)]))

    def test_scores_that_are_all_equal_give_the_shares_of_the_labels(self) -> None:
        _, labels, _ = self.answered(4)
        answers = self.task.decode({"logits": np.zeros(labels.shape, np.float32)}, {})
        found = self.task.metrics["macro-AP"].of(self.task.evidence(answers, labels))
        present = labels.any(axis=0)
        assert found == pytest.approx(labels[:, present].mean())
