"""Named arrays: what goes into a network and what comes out of it, everywhere, also on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

#: Name of a network's input or output → array whose first axis counts samples.
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a network.

    Attributes:
        name: as in the graph.
        dtype: numpy's name of it, such as ``uint8`` or ``float32``.
        shape: sizes, the first one that of the batch; None where any size is accepted.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def accepts(self, array: npt.NDArray[Any]) -> bool:
        """Whether an array has this dtype and fits this shape."""
        return self.fits(array.shape) and array.dtype == np.dtype(self.dtype)

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape fits."""
        return len(self.shape) == len(shape) and all(
            want in (None, got) for want, got in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        sizes = "x".join("n" if size is None else str(size) for size in self.shape)
        return f"{self.name}: {self.dtype} {sizes}"


def count(arrays: Arrays) -> int:
    """Samples in the arrays: the length of their first axis; 0 without arrays."""
    return len(next(iter(arrays.values()), ()))


def rows(arrays: Arrays, chosen: slice | npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
    """Some of the samples."""
    return {name: values[chosen] for name, values in arrays.items()}


def joined(parts: Sequence[Arrays]) -> dict[str, npt.NDArray[Any]]:
    """The samples of several, in order; each part has the same names and, but for the first axis, the same shapes.

    Raises:
        ValueError: there is no part, or names or shapes differ.
    """
    if len({tuple(part) for part in parts}) != 1:
        raise ValueError(f"parts with the names {sorted({tuple(part) for part in parts})} cannot be joined")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def packed(arrays: Arrays) -> npt.NDArray[Any]:
    """All arrays, (n, width) each, side by side: what several outputs of a network are together."""
    return next(iter(arrays.values())) if len(arrays) == 1 else np.concatenate(list(arrays.values()), axis=1)


def single(arrays: Arrays) -> npt.NDArray[Any]:
    """The one array, for what knows models of one input or of one output alone.

    Raises:
        ValueError: there are several, or none.
    """
    if len(arrays) != 1:
        raise ValueError(f"one array is wanted, not {len(arrays)} ({', '.join(arrays)})")
    return next(iter(arrays.values()))
