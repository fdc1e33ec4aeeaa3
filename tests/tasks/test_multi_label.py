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
from edgetl.tasks import TASKS
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
