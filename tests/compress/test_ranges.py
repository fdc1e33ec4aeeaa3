from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, MinMaxCalibrater
from scipy.stats import entropy as relative_entropy

from edgetl.base.errors import CompressionError
from edgetl.compress.layers.ranges import BINS, ESTIMATORS, Counter, Observed, estimate, extremes, observe
from edgetl.core.tensors import Arrays
from tests.compress.images import pictures

Values = npt.NDArray[np.float32]
drawn = st.lists(
    st.lists(st.floats(-1e6, 1e6, width=32, allow_subnormal=False), min_size=1, max_size=30), min_size=1, max_size=6
)


def counted(*parts: Values) -> Observed:
    counter = Counter()
    for part in parts:
        counter.add(np.asarray(part, np.float32))
    return counter.observed()


def bell(scale: float = 1.0, count: int = 200_000, seed: int = 0) -> Values:
    return (np.random.default_rng(seed).standard_t(3, count) * scale).astype(np.float32)


def rectified(seed: int = 0) -> Values:
    return np.maximum(bell(2.0, seed=seed), 0)


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: npt.NDArray[np.uint8]) -> None:
        self.rest = iter(images)

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        image = next(self.rest, None)
        return None if image is None else {"image": image[None]}


def test_extremes_are_those_of_onnxruntimes_own_calibrator(small_onnx: Path, tmp_path: Path) -> None:
    images = pictures(12, seed=5)
    theirs = MinMaxCalibrater(small_onnx, augmented_model_path=str(tmp_path / "augmented.onnx"))
    theirs.augment_graph()
    theirs.create_inference_session()
    theirs.collect_data(Reader(images))
    expected = {name: tuple(float(end[0]) for end in data.range_value) for name, data in theirs.compute_data().items()}
    found = extremes(small_onnx, ({"image": image[None]} for image in images))
    assert len(found) > 20
    assert {name: found[name] for name in expected} == expected
    observed = observe(small_onnx, ({"image": image[None]} for image in images))
    assert {name: (o.low, o.high) for name, o in observed.items()} == found


def test_every_value_is_counted_once(small_onnx: Path) -> None:
    observed = observe(small_onnx, ({"image": image[None]} for image in pictures(3)))
    assert observed["logits"].histogram.sum() == 3 * 7
    first = next(iter(observed.values()))
    assert first.histogram.sum() == 3 * 32 * 32 * 3


@given(drawn)
def test_histogram_is_numpys(parts: list[list[float]]) -> None:
    observed = counted(*(np.array(part, np.float32) for part in parts))
    whole = np.concatenate([np.array(part, np.float32) for part in parts])
    expected, _ = np.histogram(whole.astype(np.float64), BINS, (observed.edges_low, observed.edges_high))
    assert (observed.histogram == expected).all()
    assert (observed.low, observed.high) == (whole.min(), whole.max())
    assert math.frexp(observed.edges_high)[0] == 0.5


@given(drawn, st.randoms(use_true_random=False))
def test_histogram_depends_on_neither_order_nor_division(parts: list[list[float]], random: object) -> None:
    whole = np.concatenate([np.array(part, np.float32) for part in parts])
    shuffled = list(whole)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = counted(whole), counted(*(np.array([value]) for value in shuffled))
    assert (one.histogram == other.histogram).all()
    assert (one.edges_low, one.edges_high) == (other.edges_low, other.edges_high)


def test_images_are_forgotten(small_onnx: Path) -> None:
    alive: list[weakref.ref[npt.NDArray[np.uint8]]] = []
    most = 0

    def images() -> Iterator[Arrays]:
        nonlocal most
        for image in pictures(8):
            own = image[None].copy()
            alive.append(weakref.ref(own))
            yield {"image": own}
            del own
            most = max(most, sum(reference() is not None for reference in alive))

    observe(small_onnx, images())
    assert most <= 2


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9])
def test_percentile_leaves_equal_shares_at_either_end(percentile: float) -> None:
    values = bell()
    observed = counted(values)
    width = (observed.edges_high - observed.edges_low) / BINS
    low, high = estimate(observed, "percentile", percentile)
    tail = (100 - percentile) / 200
    assert low == pytest.approx(np.quantile(values, tail), abs=2 * width)
    assert high == pytest.approx(np.quantile(values, 1 - tail), abs=2 * width)
    limit = estimate(observed, "percentile", percentile, symmetric=True)[1]
    assert limit == pytest.approx(np.quantile(np.abs(values), percentile / 100), abs=2 * width)


def test_percentile_100_is_min_max() -> None:
    observed = counted(bell())
    assert estimate(observed, "percentile", 100) == pytest.approx(estimate(observed, "min-max"), rel=1e-3)


def squared_error(values: Values, low: float, high: float) -> float:
    step = (high - low) / 255
    zero = round(-low / step)
    rounded = (np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step
    return float(((rounded - values) ** 2).mean())


@pytest.mark.parametrize("values", [bell(), rectified(), bell(0.01) + np.float32(0.02)])
def test_mse_is_as_good_as_an_exhaustive_search(values: Values) -> None:
    low, high = estimate(counted(values), "mse")
    lows = np.linspace(min(values.min(), 0), 0, 60)[:-1] if values.min() < 0 else [0.0]
    tried = [squared_error(values, a, b) for a in lows for b in np.linspace(0, values.max(), 60)[1:]]
    found = squared_error(values, low, high)
    assert found <= 1.05 * min(tried)
    assert found < 0.9 * squared_error(values, min(values.min(), 0), values.max())


def test_mse_keeps_everything_where_nothing_is_far_out() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, 100_000).astype(np.float32)
    assert estimate(counted(values), "mse") == pytest.approx((values.min(), values.max()), rel=0.02)


def divergence(histogram: npt.NDArray[np.float64], stop: int, levels: int) -> float:
    """As the slides of Migacz 2017 have it, bin by bin."""
    p = [float(count) for count in histogram[:stop]]
    p[-1] += float(histogram[stop:].sum())
    q = [0.0] * stop
    for level in range(levels):
        own = [i for i in range(stop) if i * levels // stop == level]
        full = [i for i in own if histogram[i] > 0]
        for i in full:
            q[i] = sum(histogram[j] for j in own) / len(full)
    return float(relative_entropy(p, q))


def test_entropy_is_the_least_divergence() -> None:
    values = rectified()[:20_000]
    observed = counted(values)
    counts = observed.histogram[BINS // 2 :].astype(float)
    counts = counts[: np.flatnonzero(counts)[-1] + 1]
    counts[0] = counts[1]
    found = estimate(observed, "entropy")[1]
    width = observed.edges_high / (BINS // 2)
    tried = {stop: divergence(counts, stop, 256) for stop in range(256, len(counts) + 1, 151)}
    own = divergence(counts, round(found / width), 256)
    assert own <= 1.05 * min(tried.values())
    assert found < values.max()


@settings(deadline=None)
@given(drawn, st.sampled_from(ESTIMATORS), st.booleans(), st.sampled_from([95.0, 99.99]))
def test_ranges_stay_within_what_was_seen(
    parts: list[list[float]], estimator: str, symmetric: bool, percentile: float
) -> None:
    observed = counted(*(np.array(part, np.float32) for part in parts))
    low, high = estimate(observed, estimator, percentile, symmetric)
    largest = max(abs(observed.low), abs(observed.high))
    if symmetric:
        assert low == -high
        assert 0 <= high <= largest
    else:
        assert observed.low <= low
        assert low <= high
        assert high <= observed.high


def test_unknown_estimator() -> None:
    with pytest.raises(CompressionError, match="'guess': use one of min-max"):
        estimate(counted(bell()), "guess")


def test_no_image(small_onnx: Path) -> None:
    with pytest.raises(CompressionError, match="no sample"):
        observe(small_onnx, [])


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "zero"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "divides",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 2, 2, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2, 2, 3])],
        [numpy_helper.from_array(np.zeros((), np.float32), "zero")],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "divides.onnx")
    with pytest.raises(CompressionError, match="'logits' is not finite"):
        observe(tmp_path / "divides.onnx", [{"image": np.ones((1, 2, 2, 3), np.uint8)}])
