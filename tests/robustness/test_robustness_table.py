from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from edgetl.base.errors import CertifyError
from edgetl.certify import PairedCounts, noninferiority
from edgetl.inputs.pictures import decode
from edgetl.robustness import CORRUPTIONS, excess_loss, measure
from edgetl.robustness.table import CHUNK

Model = Callable[[Sequence[Path]], npt.NDArray[np.float32]]
Integers = npt.NDArray[np.int64]


def paired(before: Integers, after: Integers, labels: Integers) -> Mapping[str, Any]:
    counts = PairedCounts.from_predictions(before, after, labels)
    test = noninferiority(counts, 0.01, 0.05)
    found = {"difference": test.difference, "ci_low": test.ci_low, "ci_high": test.ci_high, "verdict": test.verdict}
    return {**found, "lost": counts.lost, "gained": counts.gained}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Integers]:
    """The first 120 of scikit-learn's digits as files of 32 by 32 pixels."""
    datasets = pytest.importorskip("sklearn.datasets")
    root, bunch = tmp_path_factory.mktemp("digits"), datasets.load_digits()
    for index, image in enumerate(bunch.images[:120]):
        grey = Image.fromarray((image * 255 / 16).astype(np.uint8)).resize((32, 32))
        grey.save(root / f"{index:03d}.png")
    return sorted(root.iterdir()), bunch.target[:120].astype(np.int64)


@pytest.fixture(scope="module")
def linear(digits: tuple[list[Path], Integers]) -> Callable[[int], Model]:
    """A linear classifier of the digits, whose inputs are rounded to so many levels."""
    from sklearn.linear_model import LogisticRegression

    def pixels(paths: Sequence[Path], levels: int) -> npt.NDArray[np.float64]:
        grey = np.stack([np.asarray(decode(path).convert("L").resize((8, 8)), float).ravel() for path in paths]) / 255
        return np.round(grey * levels) / levels

    fitted = LogisticRegression(max_iter=200, random_state=0).fit(pixels(digits[0], 255), digits[1])

    def make(levels: int) -> Model:
        return lambda paths: np.asarray(fitted.decision_function(pixels(paths, levels)), np.float32)

    return make


def test_a_faithful_copy_loses_nothing_anywhere(
    digits: tuple[list[Path], Integers], linear: Callable[[int], Model]
) -> None:
    found = measure(*digits, linear(255), linear(255), paired, severities=(1, 3))
    assert found["n"] == found["available"] == 120
    assert [(row["corruption"], row["severity"]) for row in found["rows"]] == [
        (c, s) for c in CORRUPTIONS for s in (1, 3)
    ]
    assert all(row["difference"] == row["lost"] == row["gained"] == 0 for row in [found["clean"], *found["rows"]])
    assert (found["summary"]["excess"], found["summary"]["proven"]) == (0, False)
    assert "It is not shown" in found["summary"]["sentence"]
    assert found["clean"]["reference_accuracy"] > 0.98
    severe = {row["corruption"]: row["reference_accuracy"] for row in found["rows"] if row["severity"] == 3}
    assert severe["contrast"] < 0.6
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_coarse_inputs_lose_more_under_contrast_and_the_rows_say_so(
    digits: tuple[list[Path], Integers], linear: Callable[[int], Model]
) -> None:
    told: list[tuple[str, int, int, str]] = []
    found = measure(
        *digits, linear(255), linear(3), paired, severities=(1, 3), progress=lambda *args: told.append(args)
    )
    summary = found["summary"]
    assert summary["proven"]
    assert summary["sentence"].startswith("Compression hurts more off distribution: ")
    assert found["worst"]["corruption"] == "contrast"
    assert found["worst"]["verdict"] == "fail"
    assert found["worst"]["difference"] == min(row["difference"] for row in found["rows"])
    mean = np.mean([row["difference"] for row in found["rows"]])
    assert summary["corrupted"] == pytest.approx(mean)
    assert summary["excess"] == pytest.approx(mean - found["clean"]["difference"])
    assert summary["ci_low"] < summary["excess"] < summary["ci_high"] < 0
    for row in found["rows"]:
        lost = row["lost"] - row["gained"]
        assert row["deployed_accuracy"] - row["reference_accuracy"] == pytest.approx(-lost / 120)
    assert (told[0][1:], told[-1][1:3]) == ((0, 11, "clean images"), (11, 11))


def test_limit_spreads_over_the_images_and_their_labels(tmp_path: Path) -> None:
    paths = []
    for index in range(50):
        paths.append(tmp_path / f"{index:02d}.png")
        Image.new("L", (4, 4), 5 * index).save(paths[-1])
    seen: list[Path] = []

    def run(files: Sequence[Path]) -> npt.NDArray[np.float32]:
        seen.extend(files)
        return np.zeros((len(files), 50), np.float32)

    found = measure(paths, np.arange(50), run, run, paired, severities=(1,), limit=5)
    assert (found["n"], found["available"]) == (5, 50)
    assert seen[:5] == [paths[i] for i in (0, 12, 24, 37, 49)]


def test_copies_are_few_at_a_time_and_gone_afterwards(tmp_path: Path) -> None:
    Image.new("RGB", (6, 6), (9, 99, 200)).save(tmp_path / "one.png")
    n, folders, most = 2 * CHUNK + 3, set(), []

    def run(files: Sequence[Path]) -> npt.NDArray[np.float32]:
        assert all(file.is_file() for file in files)
        folders.update(file.parent for file in files if file.parent != tmp_path)
        most.append(len(files))
        return np.eye(3, dtype=np.float32)[np.zeros(len(files), int)]

    found = measure([tmp_path / "one.png"] * n, np.zeros(n, int), run, run, paired, severities=(2,))
    assert max(most) == CHUNK
    assert len(folders) == 3 * len(CORRUPTIONS)
    assert not any(folder.exists() for folder in folders)
    assert found["clean"]["n"] == n


def test_memory_holds_class_indexes_and_no_logits(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "one.png")

    def run(files: Sequence[Path]) -> npt.NDArray[np.float32]:
        return np.zeros((len(files), 4000), np.float32)

    peaks = []
    for n in (CHUNK, 2 * CHUNK):
        tracemalloc.start()
        measure([tmp_path / "one.png"] * n, np.zeros(n, int), run, run, paired, severities=(1,))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The logits of 256 more images would take 4 MB.
    assert peaks[1] - peaks[0] < 1_000_000


def test_misuse_is_refused(tmp_path: Path) -> None:
    def run(files: Sequence[Path]) -> npt.NDArray[np.float32]:
        return np.zeros((len(files), 2), np.float32)

    Image.new("L", (4, 4)).save(tmp_path / "one.png")
    paths = [tmp_path / "one.png"]
    for arguments, options in ((([], []), {}), ((paths, [0, 1]), {}), ((paths, [0]), {"limit": 0})):
        with pytest.raises(CertifyError):
            measure(*arguments, run, run, paired, **options)
    with pytest.raises(CertifyError, match="logits of shape"):
        measure(paths, [0], run, lambda files: np.zeros(2, np.float32), paired)
    with pytest.raises(CertifyError, match="NaN"):
        measure(paths, [0], run, lambda files: np.full((1, 2), np.nan, np.float32), paired)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(60, 800))
def test_interval_is_that_of_scipys_bootstrap(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    clean = rng.choice([-1, 0, 1], n, p=[0.06, 0.9, 0.04])
    corrupted = rng.choice([-1, 0, 1], (n, 25), p=[0.15, 0.75, 0.1]).mean(axis=1)
    found = excess_loss(clean, corrupted)
    expected = stats.bootstrap(
        (corrupted, clean),
        lambda off, on, axis: off.mean(axis=axis) - on.mean(axis=axis),
        paired=True, vectorized=True, confidence_level=0.9, method="percentile", n_resamples=4000, rng=rng,
    )  # fmt: skip
    assert found["excess"] == pytest.approx(corrupted.mean() - clean.mean())
    width = expected.standard_error
    assert found["ci_low"] == pytest.approx(expected.confidence_interval.low, abs=0.12 * width)
    assert found["ci_high"] == pytest.approx(expected.confidence_interval.high, abs=0.12 * width)


def test_p_value_is_that_of_the_exact_randomization_test() -> None:
    rng = np.random.default_rng(3)
    for shift in (0.0, -0.1, -0.4):
        corrupted = np.round(rng.normal(shift, 0.4, 12) * 25) / 25
        expected = stats.permutation_test(
            (corrupted,), np.mean, permutation_type="samples", alternative="less", n_resamples=np.inf
        )
        assert excess_loss(np.zeros(12), corrupted)["p_value"] == pytest.approx(expected.pvalue, abs=0.01)


def test_three_images_prove_nothing() -> None:
    """A bootstrap alone would take three images of a thousand for a proof."""
    corrupted = np.zeros(1000)
    corrupted[:3] = -0.04
    found = excess_loss(np.zeros(1000), corrupted)
    assert not found["proven"]
    assert found["p_value"] == pytest.approx(1 / 8, abs=0.01)


def test_a_loss_that_shrinks_is_said() -> None:
    clean, corrupted = np.zeros(400), np.zeros(400)
    clean[:40] = -1
    found = excess_loss(clean, corrupted)
    assert not found["proven"]
    assert found["excess"] == pytest.approx(0.1)
    assert found["sentence"].startswith(
        "Compression does not hurt more off distribution, but less: accuracy changes by 0.00 points"
    )


def test_excess_is_declared_seldom_where_there_is_none() -> None:
    """Of 200 comparisons without any excess about one in twenty may claim one."""
    rng, claimed = np.random.default_rng(0), 0
    for _ in range(200):
        lost = rng.random((300, 26)) < rng.beta(0.3, 8, (300, 1))
        change = np.where(lost, rng.choice([-1, -1, 1], (300, 26)), 0)
        claimed += excess_loss(change[:, 0], change[:, 1:].mean(axis=1))["proven"]
    assert claimed <= stats.binom.ppf(0.995, 200, 0.05)
