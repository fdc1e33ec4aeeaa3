from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.base.errors import CompressionError
from edgetl.base.storage import sha256_bytes
from edgetl.compress.samples import BINS, select_samples
from edgetl.core.compression import CalibrationSample
from edgetl.core.data import Dataset, Sample


def dataset(root: Path, labels: Sequence[Any], split: str = "calibration", kind: str = "class") -> Dataset:
    """One file for each label, plus files of another split that must never be chosen."""
    samples = []
    for index, label in enumerate(labels):
        data = f"{index}".encode()
        (root / f"{index}.png").write_bytes(data)
        samples.append(Sample(f"{index}.png", label, sha256_bytes(data), f"{index}", split))
        samples.append(Sample(f"other{index}.png", label, "", f"other{index}", "train"))
    return Dataset(root, ("a", "b", "c"), tuple(samples), label_kind=kind)


LABELS = [0] * 20 + [1] * 5 + [2] * 10


@pytest.mark.parametrize("selection", ["random", "class-balanced", "k-centre"])
def test_choice_is_repeatable_distinct_and_recorded(selection: str, tmp_path: Path) -> None:
    data = dataset(tmp_path, LABELS)
    features = np.random.default_rng(3).normal(size=(35, 4))
    first = select_samples(data, selection, 12, 5, features)
    again = select_samples(data, selection, 12, 5, features)
    other = select_samples(data, selection, 12, 6, features)
    assert first == again
    assert first.indexes != other.indexes
    assert len(set(first.indexes)) == 12
    assert [path.name for path in first.paths] == [f"{i}.png" for i in first.indexes]
    assert first.record.samples == tuple(
        CalibrationSample(f"{i}.png", sha256_bytes(f"{i}".encode()), LABELS[i]) for i in first.indexes
    )
    record = first.record
    assert (record.split, record.selection, record.seed) == ("calibration", selection, 5)
    assert (record.size, record.available) == (12, 35)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=40), size=st.integers(1, 50), seed=st.integers(0, 9))
def test_class_balanced_differs_by_one_at_most_while_images_last(
    labels: list[int], size: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = dataset(tmp_path_factory.mktemp("balanced"), labels)
    chosen = select_samples(data, "class-balanced", size, seed)
    counts, available = Counter(labels[i] for i in chosen.indexes), Counter(labels)
    assert sum(counts.values()) == min(size, len(labels))
    most = max(counts.values())
    for label, stock in available.items():
        assert counts[label] >= min(stock, most - 1)


def test_label_sets_take_turns(tmp_path: Path) -> None:
    sets = [(0,)] * 20 + [(0, 1)] * 3 + [(1, 2)] * 4 + [()] * 2
    chosen = select_samples(dataset(tmp_path, sets, kind="classes"), "class-balanced", 8, 0)
    assert Counter(sets[i] for i in chosen.indexes) == {(0,): 2, (0, 1): 2, (1, 2): 2, (): 2}
    assert chosen.record.balanced == "label sets"
    assert all(entry.label == sets[i] for entry, i in zip(chosen.record.samples, chosen.indexes, strict=True))


@settings(deadline=None, derandomize=True, max_examples=20)
@given(seed=st.integers(0, 99), size=st.integers(BINS, 40))
def test_numbers_are_taken_from_every_tenth_of_them(
    seed: int, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    values = np.random.default_rng(seed).exponential(size=100).round(6)
    data = dataset(tmp_path_factory.mktemp("numbers"), [float(value) for value in values], kind="number")
    chosen = select_samples(data, "class-balanced", size, seed)
    tenths = values.argsort().argsort() // 10
    counts = Counter(int(tenths[i]) for i in chosen.indexes)
    assert set(counts) == set(range(BINS))
    assert max(counts.values()) - min(counts.values()) <= 1
    assert chosen.record.balanced == "10 quantile bins"


def test_equal_numbers_are_one_stratum(tmp_path: Path) -> None:
    assert len(select_samples(dataset(tmp_path, [2.5] * 6, kind="number"), "class-balanced", 4, 0).indexes) == 4


def test_k_centre_takes_one_image_of_each_cluster(tmp_path: Path) -> None:
    data = dataset(tmp_path, LABELS)
    draw = np.random.default_rng(0)
    clusters = np.arange(35) % 5
    features = np.eye(5)[clusters] * 100 + draw.normal(size=(35, 5))
    chosen = select_samples(data, "k-centre", 5, 1, features)
    assert {int(clusters[i]) for i in chosen.indexes} == {0, 1, 2, 3, 4}


def test_k_centre_takes_features_from_a_function_of_the_files(tmp_path: Path) -> None:
    data = dataset(tmp_path, LABELS)
    array = np.random.default_rng(0).normal(size=(35, 3))

    def features(files: Sequence[Path]) -> npt.NDArray[np.float64]:
        return array[[int(file.stem) for file in files]]

    assert select_samples(data, "k-centre", 9, 0, features) == select_samples(data, "k-centre", 9, 0, array)


def test_k_centre_never_takes_a_copy_twice(tmp_path: Path) -> None:
    data = dataset(tmp_path, LABELS)
    chosen = select_samples(data, "k-centre", 35, 0, np.zeros((35, 2)))
    assert sorted(chosen.indexes) == list(range(35))


def test_small_split_is_taken_whole(tmp_path: Path) -> None:
    chosen = select_samples(dataset(tmp_path, [0, 1, 2]), "class-balanced", 128, 0)
    assert sorted(chosen.indexes) == [0, 1, 2]
    assert chosen.record.size == 3


def test_only_the_calibration_split_is_used(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="no calibration samples"):
        select_samples(dataset(tmp_path, LABELS, split="val"), "random", 4, 0)


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    data = dataset(tmp_path, [0, 1])
    (tmp_path / "1.png").write_bytes(b"changed")
    with pytest.raises(CompressionError, match=r"1\.png has changed"):
        select_samples(data, "random", 2, 0)


@pytest.mark.parametrize(
    ("features", "words"),
    [(None, "needs features"), (np.zeros((3, 2)), "35 samples"), (np.full((35, 2), np.nan), "finite")],
)
def test_bad_features(features: npt.NDArray[np.float64] | None, words: str, tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match=words):
        select_samples(dataset(tmp_path, LABELS), "k-centre", 4, 0, features)


def test_unknown_selection(tmp_path: Path) -> None:
    with pytest.raises(CompressionError, match="unknown selection 'best'"):
        select_samples(dataset(tmp_path, LABELS), "best", 4, 0)
