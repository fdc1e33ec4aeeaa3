"""How an artifact quantizes, whatever its format: grids of values, stored weights, quantized tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """Values that a quantized tensor can take: ``levels`` of them, evenly spaced from ``low`` to ``high``.

    Attributes:
        low, high: ends of the grid; with ``channels``, the lowest and the highest of them.
        levels: how many values there are, 256 for 8 bits.
        channels: (low, high) of each channel where a tensor has a grid for each of them, else empty.
        axis: along which the channels lie: 1, or -1 behind a smoothing of the channels of a product.
    """

    low: float
    high: float
    levels: int
    channels: tuple[tuple[float, float], ...] = ()
    axis: int = 1

    def arrays(self, rank: int) -> tuple[Floats, Floats, Floats, Floats]:
        """Step, offset, lowest and highest step number, as float32 that broadcast over :attr:`axis` of ``rank`` axes.

        A value becomes ``clip(round((x - offset) / step), lowest, highest) * step + offset``. The offset is 0 where
        zero lies on the grid, so that halves are rounded to even numbers just as integer kernels round them.
        """
        ends = np.array(self.channels or [(self.low, self.high)], np.float64)
        shape = [1] * rank if self.channels and rank > 1 else []
        if shape:
            shape[self.axis] = -1
        low, high = (ends[:, i].reshape(shape) for i in (0, 1))
        # A channel that never varied has a grid of width 0.
        step = np.maximum((high - low) / (self.levels - 1), 1e-30)
        lowest = low / step
        aligned = np.abs(lowest - np.round(lowest)) < 0.01
        offset = np.where(aligned, 0.0, low)
        first = np.where(aligned, np.round(lowest), 0.0)
        last = first + np.where(high > low, self.levels - 1, 0)
        step_, offset_, first_, last_ = (np.asarray(a, np.float32) for a in (step, offset, first, last))
        return step_, offset_, first_, last_

    def apply(self, x: npt.NDArray[np.floating]) -> Floats:
        """The nearest values of the grid, float32, of an array whose :attr:`axis` is the channel."""
        step, offset, first, last = self.arrays(x.ndim)
        return np.asarray(np.clip(np.round((x - offset) / step), first, last) * step + offset, np.float32)


@dataclass(frozen=True, eq=False)
class Stored:
    """Weights of one layer of an artifact: float32, whether scaled per channel, and its bias (float32) if any.

    ``weight`` is None where it is stored in float.
    """

    weight: Floats | None
    per_channel: bool | None
    bias: Floats | None


@dataclass(frozen=True)
class Pair:
    """A tensor that an artifact quantizes: its name in the exported graph, the nodes that read it so, the grid."""

    tensor: str
    readers: frozenset[str]
    grid: Grid


@dataclass(frozen=True, eq=False)
class Layout:
    """An artifact in the names of the exported graph.

    Attributes:
        layers: weights by node.
        pairs: every quantized activation.
        present: the nodes that the artifact still has; activations may have been folded away.
    """

    layers: Mapping[str, Stored]
    pairs: tuple[Pair, ...]
    present: frozenset[str] = frozenset()

    @cached_property
    def grids(self) -> Mapping[tuple[str, str], Grid]:
        """(node, tensor) → the grid through which the node reads the tensor."""
        return {(reader, pair.tensor): pair.grid for pair in self.pairs for reader in pair.readers}


def placed(weight: npt.NDArray[np.floating], reference: npt.NDArray[np.floating]) -> Floats | None:
    """Weights in the layout of ``reference``, of which they are a rounded copy; None if they have another size."""
    if weight.size != reference.size:
        return None
    candidates = [weight.reshape(reference.shape)]
    if weight.ndim == 2 and weight.shape == reference.shape[::-1]:
        candidates.append(weight.T)
    best = min(candidates, key=lambda array: float(((array - reference) ** 2).sum()))
    return np.ascontiguousarray(best, np.float32)
