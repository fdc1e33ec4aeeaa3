"""A number a sample."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from edgetl.tasks import TASKS
from tests.tasks.contract import Labels, TaskContract


class TestRegression(TaskContract):
    task = TASKS["regression"]
    independent: ClassVar = {
        "mae": lambda answers, labels, times: mean_absolute_error(labels, answers["values"][:, 0], sample_weight=times),
        "rmse": lambda answers, labels, times: root_mean_squared_error(
            labels, answers["values"][:, 0], sample_weight=times
        ),
        "r2": lambda answers, labels, times: r2_score(labels, answers["values"][:, 0], sample_weight=times),
    }

    def samples(self, rng: np.random.Generator, n: int) -> tuple[dict[str, npt.NDArray[Any]], Labels]:
        # Far from 0, as years or temperatures in kelvin are.
        labels = 1900 + 30 * rng.random(n)
        return {"values": (labels + rng.normal(size=n))[:, None].astype(np.float32)}, labels

    def test_description_is_the_value(self) -> None:
        answers = self.task.decode({"values": np.array([[1.5], [-2.0]], np.float32)}, {})
        assert self.task.describe(answers, (), 5) == [{"value": 1.5}, {"value": -2.0}]

    def test_divergence_is_in_units_of_the_variance(self) -> None:
        values = np.array([[0.0], [2.0], [4.0]], np.float32)
        moved = self.task.divergence({"values": values}, {"values": values + 1})
        assert moved == pytest.approx(1 / np.var([0, 2, 4]))
        assert self.task.divergence({"values": values * 10}, {"values": values * 10 + 10}) == pytest.approx(moved)
        assert self.task.divergence({"values": np.ones((3, 1))}, {"values": np.ones((3, 1)) + 2}) == 4

    def test_r2_of_equal_labels_is_not_defined(self) -> None:
        answers = self.task.decode({"values": np.array([[1.0], [2.0]], np.float32)}, {})
        assert np.isnan(self.task.metrics["r2"].of(self.task.evidence(answers, np.array([3.0, 3.0]))))
