"""Classification, and text classification, which is the same task with another input."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import rel_entr, softmax
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from edgetl.tasks import TASKS
from tests.tasks.contract import NAMES, Labels, TaskContract


def _balanced(answers: Any, labels: Labels, times: npt.NDArray[np.float64]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = times > 0
        return float(balanced_accuracy_score(labels[kept], answers["class"][kept], sample_weight=times[kept]))


class TestClassification(TaskContract):
    task = TASKS["classification"]
    independent: ClassVar = {
        "accuracy": lambda answers, labels, times: accuracy_score(labels, answers["class"], sample_weight=times),
        "balanced-accuracy": _balanced,
    }

    def samples(self, rng: np.random.Generator, n: int) -> tuple[dict[str, npt.NDArray[Any]], Labels]:
        labels = rng.integers(0, len(NAMES), n)
        logits = rng.normal(size=(n, len(NAMES))).round(1)
        logits[np.arange(n), labels] += 1
        return {"logits": logits.astype(np.float32)}, labels

    def test_ties_go_to_the_lower_index(self) -> None:
        answers = self.task.decode({"logits": np.array([[1, 3, 3, 0]], np.float32)}, {})
        assert answers["class"].tolist() == [1]
        assert [entry["label"] for entry in self.task.describe(answers, NAMES, 4)[0]["top"]] == [
            "dog", "fox", "cat", "owl",
        ]  # fmt: skip

    def test_description_names_the_most_probable_first(self) -> None:
        logits = np.array([[0.0, 2.0, 1.0, -1.0]], np.float32)
        (found,) = self.task.describe(self.task.decode({"logits": logits}, {}), NAMES, 2)
        shares = softmax(logits[0].astype(np.float64))
        assert found["label"] == "dog"
        assert found["probability"] == pytest.approx(shares[1])
        assert found["top"] == [
            {"label": "dog", "probability": pytest.approx(shares[1])},
            {"label": "fox", "probability": pytest.approx(shares[2])},
        ]

    def test_divergence_is_that_of_scipy(self) -> None:
        (one, _, _), (other, _, _) = self.answered(1), self.answered(2)
        p, q = (softmax(a["logits"].astype(np.float64), axis=1) for a in (one, other))
        assert self.task.divergence(one, other) == pytest.approx(float(rel_entr(p, q).sum(axis=1).mean()))

    def test_infinite_logits_give_finite_figures(self) -> None:
        one = self.task.decode({"logits": np.array([[np.inf, 0, 0, -np.inf]], np.float32)}, {})
        other = self.task.decode({"logits": np.array([[0, np.inf, 0, 0]], np.float32)}, {})
        assert np.isfinite(self.task.divergence(one, other))
        assert self.task.describe(one, NAMES, 1)[0]["probability"] == 1


class TestTextClassification(TestClassification):
    task = TASKS["text-classification"]

    def test_differs_from_classification_by_its_input_alone(self) -> None:
        other = TASKS["classification"]
        differ = {f.name for f in fields(other) if getattr(other, f.name) != getattr(self.task, f.name)}
        assert differ == {"name", "about", "inputs"}
        assert self.task.inputs == ("text",)
