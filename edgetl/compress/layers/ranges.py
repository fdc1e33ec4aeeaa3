"""Which values each activation takes on calibration samples, and which range of them a quantizer should cover.

One pass over the samples, each of which is forgotten once it is counted: memory does not grow with their number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.base.parallel import CORES, in_order
from edgetl.base.progress import Progress, silent, tracked
from edgetl.compress import graph
from edgetl.compress.batches import fed
from edgetl.compress.layers.arithmetic import Builder, session_of
from edgetl.core.tensors import Arrays

Floats = npt.NDArray[np.float64]
ESTIMATORS = ("min-max", "percentile", "mse", "entropy")
#: An even number over [-R, R] with R a power of two: when R doubles, bins merge in pairs and no count moves elsewhere.
BINS = 8192
_SMALLEST = 2.0**-40
#: Samples worked on at once: all activations of each are held.
_AT_ONCE = 2
#: Clippings tried by a search, coarse and then fine, and how often both ends take turns.
_COARSE, _FINE, _TURNS = 32, 16, 3


@dataclass(frozen=True, eq=False)
class Observed:
    """Values of one tensor over all samples.

    Attributes:
        low, high: the least and the greatest, exactly.
        histogram: int64 (bins,): how many values lie in each bin.
        edges_low, edges_high: lower edge of the first bin and upper edge of the last; all bins are equally wide.
    """

    low: float
    high: float
    histogram: npt.NDArray[np.int64]
    edges_low: float
    edges_high: float

    def centres(self) -> tuple[Floats, Floats]:
        """Centres of the bins that hold anything, and their shares of all values."""
        held = np.flatnonzero(self.histogram)
        width = (self.edges_high - self.edges_low) / len(self.histogram)
        middle = np.clip(self.edges_low + (held + 0.5) * width, self.low, self.high)
        return middle, self.histogram[held] / self.histogram.sum()

    def magnitudes(self) -> Observed:
        """Of the absolute values; the histogram has to be symmetric about 0, as :func:`observe` makes it."""
        below, above = self.histogram.reshape(2, -1)
        least, greatest = max(self.low, -self.high, 0.0), max(-self.low, self.high)
        return Observed(least, greatest, above + below[::-1], 0.0, self.edges_high)


class Counter:
    """Counts values in bins whose range grows as it must.

    The outcome does not depend on the order of the values or on how they were divided.
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf
        self._reach = _SMALLEST
        self._counts = np.zeros(BINS, np.int64)

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count an array of any shape, all of it finite."""
        low, high = float(values.min()), float(values.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        while max(-low, high) >= self._reach:
            self._reach *= 2
            pairs = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.pad(pairs, BINS // 4)
        # Scaling by a power of two is exact, and so is rounding down: bins nest without rounding errors.
        scaled = values.reshape(-1) * np.float32(BINS / 2 / self._reach)
        np.floor(scaled, out=scaled)
        scaled += np.float32(BINS // 2)
        self._counts += np.bincount(scaled.astype(np.intp), minlength=BINS)

    def observed(self) -> Observed:
        """What was counted so far."""
        return Observed(self.low, self.high, self._counts.copy(), -self._reach, self._reach)


def observe(exported: Path, samples: Iterable[Arrays], progress: Progress = silent) -> dict[str, Observed]:
    """Histograms of every float tensor that depends on the input, a float input included.

    Args:
        exported: float ONNX file.
        samples: inputs by name, (n, …) each.
        progress: told of each.

    Raises:
        CompressionError: no sample, or a tensor with values that are not finite.
    """
    counters: dict[str, Counter] = {}
    for name, values, *_ in _tensors(exported, samples, progress):
        counters.setdefault(name, Counter()).add(values)
    return {name: counter.observed() for name, counter in counters.items()}


def extremes(exported: Path, samples: Iterable[Arrays], progress: Progress = silent) -> dict[str, tuple[float, float]]:
    """Least and greatest value of every float tensor, as :func:`observe` has them, in about half the time."""
    found: dict[str, tuple[float, float]] = {}
    for name, _, least, greatest in _tensors(exported, samples, progress):
        low, high = found.get(name, (math.inf, -math.inf))
        found[name] = min(low, least), max(high, greatest)
    return found


def _tensors(
    exported: Path, samples: Iterable[Arrays], progress: Progress
) -> Iterator[tuple[str, npt.NDArray[np.float32], float, float]]:
    """Each tensor that holds anything, for each sample in turn, with its least and greatest value."""
    builder = Builder(graph.load(exported))
    names = _floating(builder.model)
    builder.expose(names)
    # Unoptimised, so that no tensor disappears into a fused operator; one thread each, as several run at once.
    session, seen = session_of(builder.model, plain=True, threads=1), False

    def run(feeds: Arrays) -> list[tuple[str, npt.NDArray[np.float32], float, float]]:
        read = fed(feeds, session)
        inputs = [(name, values) for name, values in read.items() if values.dtype == np.float32]
        found = (*inputs, *zip(names, session.run(names, read), strict=True))
        return [(name, values, float(values.min()), float(values.max())) for name, values in found if values.size]

    for found in in_order([run] * min(CORES, _AT_ONCE), tracked(samples, "ranges of activations", progress)):
        seen = True
        for name, values, low, high in found:
            if not (math.isfinite(low) and math.isfinite(high)):
                raise CompressionError(f"the tensor '{name}' is not finite on a calibration sample", "train it again")
            yield name, values, low, high
    if not seen:
        raise CompressionError("there is no sample to take the ranges from", "give the calibration split samples")


def _floating(model: Any) -> list[str]:
    onnx = require("onnx", "observing activations")
    inferred = onnx.shape_inference.infer_shapes(model).graph
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    made = [name for node in model.graph.node for name in node.output]
    return [name for name in made if kinds.get(name) == onnx.TensorProto.FLOAT and name not in constants]


def estimate(
    observed: Observed, estimator: str, percentile: float = 99.999, symmetric: bool = False, levels: int = 256
) -> tuple[float, float]:
    """The range that a quantizer should cover.

    Args:
        observed: the tensor's values.
        estimator: ``min-max``: all of them. ``percentile``: that share of them, an equal share cut off at either
            end. ``mse``: the least expected squared error of quantization, clipping included. ``entropy``: the
            least Kullback-Leibler divergence of the quantized distribution (Migacz 2017, "8-bit inference with
            TensorRT"); zeros, which every range has exactly, count as their neighbours do.
        percentile: in percent.
        symmetric: the range is [-T, T], and the grid has no zero point.
        levels: values of the grid.

    Returns:
        low and high, never beyond the observed values; with ``symmetric``, -T and T.

    Raises:
        CompressionError: an unknown estimator.
    """
    if estimator not in ESTIMATORS:
        raise CompressionError(f"unknown range estimator '{estimator}'", f"use one of {', '.join(ESTIMATORS)}")
    if symmetric:
        positive = observed.magnitudes()
        limit = _limit(positive, estimator, percentile, (levels - 1) // 2 + 1)
        return -limit, limit
    if estimator == "min-max":
        return observed.low, observed.high
    if estimator == "percentile":
        tail = (100 - percentile) / 200
        return _quantile(observed, tail), _quantile(observed, 1 - tail)
    if estimator == "mse":
        return _least_error(observed, levels)
    one_sided = observed.low >= 0 or observed.high <= 0
    limit = _least_divergence(observed.magnitudes(), levels if one_sided else levels // 2)
    return max(observed.low, -limit), min(observed.high, limit)


def _limit(positive: Observed, estimator: str, percentile: float, levels: int) -> float:
    if estimator == "percentile":
        return _quantile(positive, percentile / 100)
    if estimator == "mse":
        return _least_error(positive, levels)[1]
    return _least_divergence(positive, levels) if estimator == "entropy" else positive.high


def _quantile(observed: Observed, share: float) -> float:
    counts = observed.histogram
    edges = np.linspace(observed.edges_low, observed.edges_high, len(counts) + 1)
    held = np.flatnonzero(counts)
    first, last = held[0], held[-1] + 1
    below = np.concatenate([[0], np.cumsum(counts[first:last])])
    found = float(np.interp(share * below[-1], below, edges[first : last + 1]))
    return min(max(found, observed.low), observed.high)


def _least_error(observed: Observed, levels: int) -> tuple[float, float]:
    centres, shares = observed.centres()
    # Zero is always representable: a range that leaves it out is widened by every quantizer.
    low, high = min(observed.low, 0.0), max(observed.high, 0.0)
    ends = [low, high]
    turns = _TURNS if low < 0 < high else 1
    for _ in range(turns):
        for side, extreme in enumerate((low, high)):
            if extreme:
                ends[side] = _best_end(centres, shares, (ends[0], ends[1]), side, extreme, levels)
    return max(ends[0], observed.low), min(ends[1], observed.high)


def _best_end(
    centres: Floats, shares: Floats, ends: tuple[float, float], side: int, extreme: float, levels: int
) -> float:
    spacing = 1 / _COARSE
    fractions = np.arange(1, _COARSE + 1) * spacing
    for _ in range(2):
        pairs = np.tile(np.array(ends), (len(fractions), 1))
        pairs[:, side] = fractions * extreme
        best = float(fractions[_squared_errors(centres, shares, pairs, levels).argmin()])
        nearby = best + spacing * np.linspace(-1, 1, _FINE + 1)
        fractions = np.concatenate([[best], nearby[(nearby > 0) & (nearby <= 1)]])
    return best * extreme


def _squared_errors(centres: Floats, shares: Floats, ends: Floats, levels: int) -> Floats:
    """Expected squared error of quantization to each range; ``ends`` is (ranges, 2)."""
    step = (ends[:, 1:] - ends[:, :1]) / (levels - 1)
    zero = np.round(-ends[:, :1] / step)
    found = (np.clip(np.round(centres / step) + zero, 0, levels - 1) - zero) * step
    return np.asarray(((found - centres) ** 2) @ shares)


def _least_divergence(positive: Observed, levels: int) -> float:
    counts = positive.histogram.astype(np.float64)
    used = int(np.flatnonzero(counts)[-1]) + 1
    if used <= levels:
        return positive.high
    counts = counts[:used]
    counts[0] = counts[1]
    stops = np.unique(np.linspace(levels, used, 4 * _COARSE).astype(int))
    best = int(stops[np.argmin([_divergence(counts, int(stop), levels) for stop in stops])])
    return min(best * positive.edges_high / len(positive.histogram), positive.high)


def _divergence(counts: Floats, stop: int, levels: int) -> float:
    """Of the distribution clipped after ``stop`` bins from its quantization to ``levels`` values."""
    inside = counts[:stop]
    clipped = inside.copy()
    clipped[-1] += counts[stop:].sum()
    level = np.arange(stop) * levels // stop
    held = inside > 0
    mean = np.bincount(level, inside, levels) / np.maximum(np.bincount(level, held, levels), 1)
    spread = np.where(held, mean[level], 0.0)
    p, q = clipped / clipped.sum(), spread / max(spread.sum(), 1.0)
    mass = p > 0
    # A clipped tail in a bin that nothing else falls into cannot be represented at all.
    return math.inf if (q[mass] == 0).any() else float((p[mass] * np.log(p[mass] / q[mass])).sum())
