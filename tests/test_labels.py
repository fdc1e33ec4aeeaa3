"""Labels of every kind: how splits keep their shares, and how records and digests hold them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.base.errors import DataError
from edgetl.core.data import LABEL_KINDS, SHARES, SPLITS, Dataset, Sample, assign_splits, digest_of

CLASSES = ("ant", "bee", "cat", "dog")
label_sets = st.lists(st.sets(st.integers(0, 3)).map(lambda found: tuple(sorted(found))), min_size=1, max_size=120)
numbers = st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=200)
labels_of_a_kind = st.one_of(
    st.tuples(st.just("class"), st.lists(st.integers(0, 3), min_size=1, max_size=120)),
    st.tuples(st.just("classes"), label_sets),
    st.tuples(st.just("number"), numbers),
)


def made(labels: Sequence[Any], copies: int = 1) -> list[Sample]:
    """Samples that exist by hash only, each in so many files."""
    return [
        Sample(f"{index}-{copy}", label, f"file {index}-{copy}", f"content {index}")
        for index, label in enumerate(labels)
        for copy in range(copies)
    ]


def dataset(kind: str, labels: Sequence[Any]) -> Dataset:
    classes = () if kind == "number" else CLASSES
    return Dataset(Path("/data"), classes, tuple(assign_splits(made(labels), 0, kind=kind)), label_kind=kind)


@given(labels_of_a_kind, st.integers(1, 3), st.integers(0, 2**31))
@settings(deadline=None, max_examples=150)
def test_splits_are_a_partition_that_copies_and_order_do_not_change(
    labelled: tuple[str, list[Any]], copies: int, seed: int
) -> None:
    kind, labels = labelled
    samples = made(labels, copies)
    divided = assign_splits(samples, seed, kind=kind)
    assert sorted(s.path for s in divided) == sorted(s.path for s in samples)
    where: dict[str, set[str]] = {}
    for sample in divided:
        where.setdefault(sample.pixels, set()).add(sample.split)
    assert all(len(splits) == 1 and splits <= set(SPLITS) for splits in where.values())
    assert assign_splits(samples[::-1], seed, kind=kind) == divided
    alone = {s.pixels: s.split for s in assign_splits(made(labels), seed, kind=kind)}
    assert alone == {pixels: next(iter(splits)) for pixels, splits in where.items()}


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.integers(40, 300), st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_every_class_of_several_keeps_its_shares(rates: list[float], count: int, seed: int) -> None:
    """Within a few samples; dealt out at random, a common class would be off by ten and more in many cases."""
    draw = np.random.default_rng(seed)
    marks = draw.random((count, 4)) < np.array(rates)
    labels = [tuple(int(c) for c in np.flatnonzero(row)) for row in marks]
    divided = assign_splits(made(labels), seed, kind="classes")
    sizes = Counter(s.split for s in divided)
    assert all(abs(sizes[name] - share * count) <= 4 for name, share in SHARES.items())
    for c in range(4):
        total = int(marks[:, c].sum())
        found = Counter(s.split for s in divided if c in s.label)  # type: ignore[operator]
        assert all(abs(found[name] - share * total) <= 4 for name, share in SHARES.items()), (c, total, found)


def test_the_rarest_of_several_classes_is_in_every_split() -> None:
    """A class of ten samples, all of which have other, commoner classes too."""
    draw = np.random.default_rng(0)
    common = [(1, 2, 3) if draw.random() < 0.5 else (1, 3) for _ in range(200)]
    divided = assign_splits(made([*[(0, *label) for label in common[:10]], *common[10:]]), 1, kind="classes")
    found = Counter(s.split for s in divided if 0 in s.label)  # type: ignore[operator]
    assert found == {"train": 5, "val": 1, "calibration": 1, "search": 1, "certify": 2}


@given(st.lists(st.floats(-1e3, 1e3), min_size=60, max_size=300, unique=True), st.integers(0, 2**31))
@settings(deadline=None, max_examples=60)
def test_numbers_keep_their_distribution(values: list[float], seed: int) -> None:
    """In each third of the values, every split has its share, within one of each bin that the third touches."""
    divided = assign_splits(made(values), seed, kind="number")
    bins = min(10, len(values) // 20)
    for low, high in ((0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1)):
        bounds = np.quantile(values, [low, high])
        inside = [s for s in divided if bounds[0] <= float(s.label) <= bounds[1]]  # type: ignore[arg-type]
        found = Counter(s.split for s in inside)
        for name, share in SHARES.items():
            # Two bins may lie half in the third; the others are divided exactly but for rounding.
            assert abs(found[name] - share * len(inside)) <= bins / 3 + 2 + 2 * 0.25 * len(values) / bins


def test_numbers_that_are_mostly_one_value() -> None:
    divided = assign_splits(made([0.0] * 180 + [float(v) for v in range(1, 21)]), 3, kind="number")
    zeros, rest = (Counter(s.split for s in divided if (s.label == 0) is same) for same in (True, False))
    assert zeros == {"train": 90, "certify": 36, "val": 18, "calibration": 18, "search": 18}
    assert rest == {"train": 10, "certify": 4, "val": 2, "calibration": 2, "search": 2}


@pytest.mark.parametrize("kind", LABEL_KINDS)
def test_given_splits_are_kept_and_the_rest_comes_from_train(kind: str) -> None:
    labels = {"class": [0, 1] * 50, "classes": [(0,), (0, 1)] * 50, "number": [float(v) for v in range(100)]}[kind]
    samples = [
        Sample(s.path, s.label, s.sha256, s.pixels, "certify" if i < 30 else "train")
        for i, s in enumerate(made(labels))
    ]
    divided = assign_splits(samples, 0, kind=kind)
    assert {s.path for s in divided if s.split == "certify"} == {s.path for s in samples if s.split == "certify"}
    sizes = Counter(s.split for s in divided)
    assert all(sizes[name] >= 5 for name in SPLITS)


@given(labels_of_a_kind)
@settings(deadline=None, max_examples=60)
def test_records_hold_every_kind(labelled: tuple[str, list[Any]]) -> None:
    kind, labels = labelled
    whole = dataset(kind, labels)
    record = json.loads(json.dumps(whole.to_json()))
    again = Dataset.from_json(record)
    assert again == whole
    assert again.digest == whole.digest == digest_of(record)
    assert ("label_kind" in record) is (kind != "class"), "records of classes are what they were"
    for name in SPLITS:
        np.testing.assert_array_equal(again.labels(name), whole.labels(name))


def test_a_digest_knows_labels_and_their_kind() -> None:
    base = dataset("classes", [(0,), (0, 1), (), (2,)] * 5)
    sample, *rest = base.samples
    for label in ((0, 3), (), (1,)):
        other = Sample(sample.path, label, sample.sha256, sample.pixels, sample.split)
        assert Dataset(base.root, base.classes, (other, *rest), label_kind="classes").digest != base.digest
    empty = Dataset(base.root, (), ())
    assert empty.digest != Dataset(base.root, (), (), label_kind="number").digest


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        ("class", 4), ("class", -1), ("class", True), ("class", 1.0), ("class", "ant"), ("class", [0]), ("class", None),
        ("classes", 0), ("classes", [4]), ("classes", [1, 0]), ("classes", [0, 0]), ("classes", ["ant"]),
        ("number", "1"), ("number", None), ("number", [1]), ("number", True), ("number", float("nan")),
    ],
)  # fmt: skip
def test_labels_that_are_none_of_their_kind_are_a_malformed_record(kind: str, label: object) -> None:
    record = dataset(kind, {"class": [0] * 5, "classes": [(0,)] * 5, "number": [1.0] * 5}[kind]).to_json()
    record["samples"][2][1] = label
    with pytest.raises(DataError, match="make the run again"):
        Dataset.from_json(record)
    with pytest.raises(DataError, match="make the run again"):
        Dataset.from_json({**record, "label_kind": "colour"})


def test_arrays_of_labels() -> None:
    assert dataset("class", [0, 1, 3]).labels("train").dtype == np.int64
    several = dataset("classes", [(0, 2), (), (1,)] * 10)
    marks = several.labels("train")
    assert marks.dtype == np.uint8
    assert marks.shape == (len(several.split("train")), 4)
    np.testing.assert_array_equal(marks.sum(0), list(several.counts()["train"].values()))
    values = dataset("number", [1.5, 2.5, 3.0] * 10)
    assert values.labels("train").dtype == np.float64
    assert dataset("classes", [(0,)]).labels("search").shape == (0, 4)


def test_summaries() -> None:
    several = dataset("classes", [(0, 2), (2,), (0, 1)] * 10)
    assert sum(counted["cat"] for counted in several.counts().values()) == 20
    assert several.summary()["train"] == several.counts()["train"]
    assert sum(several.sizes().values()) == 30
    draws = np.random.default_rng(0).normal(3, 2, 100).tolist()
    values = dataset("number", draws)
    assert values.counts() == {name: {} for name in SPLITS}
    for name in SPLITS:
        found, labels = values.summary()[name], values.labels(name)
        spread, ends = labels.std(ddof=1), (labels.min(), labels.max())
        expected = {"n": len(labels), "mean": labels.mean(), "sd": spread, "min": ends[0], "max": ends[1]}
        assert found == pytest.approx(expected)
    single = {"n": 1, "mean": 4.0, "sd": 0.0, "min": 4.0, "max": 4.0}
    expected = {name: single if name == "train" else {"n": 0} for name in SPLITS}
    assert dataset("number", [4.0]).summary() == expected
