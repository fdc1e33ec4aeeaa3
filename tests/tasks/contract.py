"""What holds for every task: a suite that each inherits.

``tests/tasks/test_NAME.py`` defines ``class TestName(TaskContract)`` with ``task``, ``samples`` and ``independent``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgetl.base.errors import DataError, UnknownNameError
from edgetl.certify.predictions_file import KEPT
from edgetl.core.data.labels import LABEL_KINDS
from edgetl.core.findings import KINDS
from edgetl.core.tensors import Arrays, count, joined, rows
from edgetl.tasks import TASKS, Evidence, Metric, Task, find_task, list_tasks

Labels = npt.NDArray[Any]
#: A metric as another library computes it: answers, labels and how often each sample counts.
Independent = Callable[[Arrays, Labels, npt.NDArray[np.float64]], float]
NAMES = ("cat", "dog", "fox", "owl")
seeds = st.integers(0, 2**32 - 1)
#: One property is run by several classes, which is what a suite to inherit is for.
inherited = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.differing_executors])


def repeated(answers: Arrays, labels: Labels, times: npt.NDArray[np.int64]) -> tuple[Arrays, Labels]:
    """A data set in which every sample stands as often as it is to count."""
    index = np.repeat(np.arange(len(labels)), times)
    return rows(answers, index), labels[index]


class TaskContract:
    """Inherit and say what differs."""

    task: ClassVar[Task]
    #: Each metric of the task as an independent implementation has it.
    independent: ClassVar[Mapping[str, Independent]]

    def samples(self, rng: np.random.Generator, n: int) -> tuple[dict[str, npt.NDArray[Any]], Labels]:
        """Outputs of a network for n samples, better than chance and with ties, and the labels' array."""
        raise NotImplementedError

    def answered(self, seed: int, n: int = 40) -> tuple[dict[str, npt.NDArray[Any]], Labels, Evidence]:
        outputs, labels = self.samples(np.random.default_rng(seed), n)
        answers = self.task.decode(outputs, {})
        return answers, labels, self.task.evidence(answers, labels)

    def test_is_registered(self) -> None:
        assert TASKS[self.task.name] is self.task
        assert find_task(self.task.name) is self.task
        assert self.task.labels in LABEL_KINDS
        assert self.task.audits <= set(KINDS)
        (listed,) = (entry for entry in list_tasks() if entry["name"] == self.task.name)
        assert [metric["name"] for metric in listed["metrics"]] == list(self.task.metrics)
        assert set(listed["columns"]) == set(self.task.inputs)
        json.dumps(listed, allow_nan=False)

    def test_metrics_are_found_whatever_their_capitals(self) -> None:
        for name in self.task.metrics:
            assert self.task.find_metric(name.upper()) == self.task.find_metric(name.lower()) == name
        assert self.task.find_metric(None) == next(iter(self.task.metrics))
        with pytest.raises(UnknownNameError, match="nonsense"):
            self.task.find_metric("nonsense")

    def test_outputs_are_what_decode_reads(self) -> None:
        outputs, _ = self.samples(np.random.default_rng(0), 5)
        assert {spec.name for spec in self.task.outputs(NAMES)} == set(outputs)
        assert all(spec.accepts(outputs[spec.name]) for spec in self.task.outputs(NAMES))
        answers = self.task.decode(outputs, {})
        assert count(answers) == 5
        for name, values in outputs.items():
            np.testing.assert_array_equal(answers[name], values)

    def test_decode_refuses_other_outputs(self) -> None:
        for wrong in ({}, {"boxes": np.zeros((2, 4))}, {name: np.zeros(3) for name in ("logits", "values")}):
            with pytest.raises(DataError, match="network gives"):
                self.task.decode(wrong, {})

    def test_samples_are_decoded_one_by_one(self) -> None:
        outputs, _ = self.samples(np.random.default_rng(1), 6)
        whole = self.task.decode(outputs, {})
        parts = joined([self.task.decode(rows(outputs, slice(i, i + 1)), {}) for i in range(6)])
        for name, values in whole.items():
            np.testing.assert_array_equal(parts[name], values)

    def test_evidence_has_a_row_for_each_sample(self) -> None:
        _, labels, evidence = self.answered(2)
        assert all(len(values) == len(labels) for values in evidence.values())

    @given(seed=seeds)
    @inherited
    def test_metrics_are_what_another_library_says(self, seed: int) -> None:
        answers, labels, evidence = self.answered(seed)
        assert set(self.independent) == set(self.task.metrics)
        for name, metric in self.task.metrics.items():
            expected = self.independent[name](answers, labels, np.ones(len(labels)))
            assert metric.of(evidence) == pytest.approx(expected, rel=1e-9, abs=1e-12)

    @given(seed=seeds)
    @inherited
    def test_weights_are_repetitions(self, seed: int) -> None:
        answers, labels, evidence = self.answered(seed)
        weights = np.random.default_rng(seed).multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=3)
        for name, metric in self.task.metrics.items():
            found = metric.score(evidence, weights.astype(np.float64))
            assert found.shape == (3,)
            again = [metric.of(self.task.evidence(*repeated(answers, labels, times))) for times in weights]
            expected = [self.independent[name](answers, labels, times.astype(np.float64)) for times in weights]
            np.testing.assert_allclose(found, again, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)

    @given(seed=seeds)
    @inherited
    def test_the_order_of_samples_does_not_matter(self, seed: int) -> None:
        answers, labels, evidence = self.answered(seed)
        order = np.random.default_rng(seed).permutation(len(labels))
        shuffled = self.task.evidence(rows(answers, order), labels[order])
        for metric in self.task.metrics.values():
            assert metric.of(shuffled) == pytest.approx(metric.of(evidence), rel=1e-9, abs=1e-12)

    def test_only_the_ratio_of_weights_matters(self) -> None:
        _, labels, evidence = self.answered(3)
        weights = np.random.default_rng(3).exponential(size=(4, len(labels)))
        for metric in self.task.metrics.values():
            np.testing.assert_allclose(metric.score(evidence, 3 * weights), metric.score(evidence, weights), rtol=1e-9)

    def test_what_is_exact_and_what_is_summed_says_the_same_as_the_score(self) -> None:
        evidence = self.answered(4)[2]
        for metric in self.task.metrics.values():
            assert metric.right or metric.unseen, "neither exact nor fit for a bootstrap"
            if metric.right and not metric.strata:
                assert metric.of(evidence) == pytest.approx(float(np.mean(metric.right(evidence))))
            if metric.right and metric.strata:
                strata, right = metric.strata(evidence), metric.right(evidence)
                shares = [right[strata == stratum].mean() for stratum in np.unique(strata)]
                assert metric.of(evidence) == pytest.approx(float(np.mean(shares)))
            if metric.sums:
                sums = metric.sums.of(evidence).sum(axis=0, keepdims=True)
                assert metric.of(evidence) == pytest.approx(float(metric.sums.score(sums)[0]), rel=1e-9)

    def test_the_unseen_sample_is_lost_by_the_deployed_model(self) -> None:
        _, labels, evidence = self.answered(5)
        _, _, other = self.answered(6)
        for metric in self.task.metrics.values():
            if metric.unseen:
                self._loses(metric, evidence, {**other, **self._labels_of(evidence)}, len(labels))

    def _labels_of(self, evidence: Evidence) -> Evidence:
        """What of the evidence comes from the labels alone."""
        return {name: values for name, values in evidence.items() if name.startswith("label")}

    @staticmethod
    def _loses(metric: Metric, before: Evidence, after: Evidence, n: int) -> None:
        assert metric.unseen is not None
        rows_before, rows_after = metric.unseen(before, after)
        weights = np.append(np.ones(n), 2.0)[None]
        first, second = (
            metric.score({name: np.concatenate([of[name], row[name]]) for name in row}, weights)
            for of, row in ((before, rows_before), (before, rows_after))
        )
        assert float(metric.gain(first, second)[0]) < 0

    def test_evidence_reads_only_what_a_bundle_keeps_of_answers(self) -> None:
        answers, labels, evidence = self.answered(11)
        again = self.task.evidence({name: answers[name] for name in KEPT[self.task.labels]}, labels)
        for name, values in evidence.items():
            np.testing.assert_array_equal(again[name], values)

    def test_accuracy_says_which_answers_are_right(self) -> None:
        assert "accuracy" not in self.task.metrics or self.task.exact == "accuracy"

    def test_divergence_and_agreement_of_equal_and_of_other_answers(self) -> None:
        answers, _, _ = self.answered(7)
        other, _, _ = self.answered(8)
        assert self.task.divergence(answers, answers) == 0
        assert self.task.divergence(answers, other) > 0
        assert self.task.agreement(answers, answers) == 1
        assert 0 <= self.task.agreement(answers, other) < 1

    def test_descriptions_are_json_with_names(self) -> None:
        answers, labels, _ = self.answered(9)
        described = self.task.describe(answers, NAMES, 3)
        assert len(described) == len(labels)
        assert json.loads(json.dumps(described, allow_nan=False)) == described
        assert described[3] == self.task.describe(rows(answers, slice(3, 4)), NAMES, 3)[0]

    def test_margins_are_a_hundredth(self) -> None:
        _, labels, _ = self.answered(10)
        for metric in self.task.metrics.values():
            spread = float(np.std(labels)) if metric.unit == "labels" else 1.0
            assert metric.margin_for(labels) == pytest.approx(0.01 * spread)
