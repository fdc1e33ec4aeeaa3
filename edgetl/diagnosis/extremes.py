"""The smallest and largest value of every quantized activation, image by image, in the float graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgetl.compress.batches import fed
from edgetl.compress.layers.arithmetic import Builder, session_of
from edgetl.compress.layers.points import Grid, Point
from edgetl.compress.layers.topology import Topology
from edgetl.core.tensors import Arrays

Array = npt.NDArray[np.float64]
#: A side of a range that is this much smaller than the other decides nothing.
SMALL_SIDE = 0.05
#: Channels with less than this share of the widest channel's range decide nothing.
FAINT = 0.1
#: Logarithms are told no farther than this.
FARTHEST = 4.0


@dataclass(frozen=True, eq=False)
class Extremes:
    """What n images make of each quantized activation.

    Attributes:
        grids: of each activation.
        low, high: one array (n, channels) for each; one channel where the grid is the whole tensor's.
        outside: share of values beyond the ends of the grid, (activations,).
        positive: whether no value was ever below zero, (activations,).
    """

    grids: tuple[Grid, ...]
    low: tuple[Array, ...]
    high: tuple[Array, ...]
    outside: Array
    positive: npt.NDArray[np.bool_]

    def room(self, estimator: str) -> Array:
        """Logarithm to base 2 of the range of the grid over the range that the estimator would have given.

        0 fits; -1 is a grid of half the range. ``mean-min-max`` takes the mean of each image's extremes, except for
        channels with grids of their own, as NNCF does; every other name the extremes of all images.
        """
        return np.array([_room(*args, estimator) for args in zip(self.grids, self.low, self.high, strict=True)])

    def of(self, rows: Sequence[int]) -> Extremes:
        """The same of some of the images; ``outside`` stays that of all."""
        low, high = (tuple(array[list(rows)] for array in side) for side in (self.low, self.high))
        return Extremes(self.grids, low, high, self.outside, self.positive)


def _room(grid: Grid, low: Array, high: Array, estimator: str) -> float:
    if estimator == "mean-min-max" and not grid.channels:
        bottom, top = low.mean(axis=0), high.mean(axis=0)
    else:
        bottom, top = low.min(axis=0), high.max(axis=0)
    ends = np.array(grid.channels or [(grid.low, grid.high)], np.float64)
    below, above = np.maximum(-bottom, 0.0), np.maximum(top, 0.0)
    width = np.maximum(below, above)
    counted = width > max(FAINT * float(width.max()), 1e-6)
    if not counted.any():
        return 0.0
    under = np.where(below > SMALL_SIDE * width, below / np.maximum(-ends[:, 0], 1e-12), 0.0)
    over = np.where(above > SMALL_SIDE * width, above / np.maximum(ends[:, 1], 1e-12), 0.0)
    wanted = float(np.median(np.maximum(under, over)[counted]))
    return float(np.clip(-np.log2(max(wanted, 1e-12)), -FARTHEST, FARTHEST))


def extremes(topology: Topology, points: Sequence[Point], samples: Iterable[Arrays]) -> Extremes | None:
    """Run samples, the inputs of one each, (1, …) by name, through the float graph; None without a sample.

    Args:
        topology: of the float graph that was compressed.
        points: those of a compressed model that have a grid.
        samples: each is read once; only its extremes are kept.
    """
    build = Builder(topology.model)
    names: list[str] = []
    grids = tuple(point.grid for point in points if point.grid is not None)
    for point in points:
        if point.grid is not None:
            names += _measures(build, point.source, point.grid, len(topology.shapes.get(point.source, ())))
    build.expose(names)
    session = session_of(build.model)
    rows = [[np.asarray(v, np.float64).reshape(-1) for v in session.run(names, fed(s, session))] for s in samples]
    if not rows or not grids:
        return None
    stacked = [np.stack(column) for column in zip(*rows, strict=True)]
    low, high, outside = (tuple(stacked[start::3]) for start in range(3))
    positive = np.array([float(array.min()) >= 0 for array in low])
    return Extremes(grids, low, high, np.array([array.mean() for array in outside]), positive)


def _measures(build: Builder, tensor: str, grid: Grid, rank: int) -> list[str]:
    by_channel = bool(grid.channels) and rank > 1
    axes = build.constant([axis for axis in range(rank) if not (by_channel and axis == grid.axis % rank)], np.int64)
    low = build.node("ReduceMin", tensor, axes, keepdims=0)
    high = build.node("ReduceMax", tensor, axes, keepdims=0)
    ends = np.array(grid.channels or [(grid.low, grid.high)], np.float64)
    shape = [-1 if axis == grid.axis % rank else 1 for axis in range(rank)] if by_channel else []
    # Rounding alone moves a value by half a step.
    half = (ends[:, 1] - ends[:, 0]) / (grid.levels - 1) / 2
    bottom, top = (build.constant((end + by).reshape(shape)) for end, by in ((ends[:, 0], -half), (ends[:, 1], half)))
    beyond = build.node("Or", build.node("Less", tensor, bottom), build.node("Greater", tensor, top))
    return [low, high, build.node("ReduceMean", build.node("Cast", beyond, to=1), keepdims=0)]
