"""The samples of a split as the network is fed them, kept in memory where they fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgetl.base.progress import Progress, silent, tracked
from edgetl.inputs.base import Input

#: Reading files competes with the model for the same cores, so a set of up to this many bytes is read once.
MEMORY_LIMIT = 2 << 30
#: One sample: name of a network's input → its array, without the axis that counts samples.
Row = Mapping[str, npt.NDArray[Any]]
#: Indices of samples, and their arrays with a first axis of as many.
Batch = tuple[Sequence[int], Mapping[str, npt.NDArray[Any]]]


class SampleStore(Protocol):
    """The samples of one split. Whether they are kept in memory changes the speed and nothing else."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> npt.NDArray[np.int64] | None:
        """Of each sample, where those of different ones are filled up to the longest of a batch; None elsewhere."""
        ...

    def varied(self, index: int, epoch: int, seed: int) -> Row:
        """One sample as training sees it, a function of the three numbers and of nothing else."""
        ...

    def collate(self, rows: Sequence[Row]) -> dict[str, npt.NDArray[Any]]:
        """Several as one batch, their first axis n."""
        ...

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[Batch]:
        """Samples as evaluation sees them, each once, at most ``size`` at a time, in whatever order is cheapest."""
        ...


class FeedStore:
    """Texts and arrays: a sample is what the input definition gives, in training too.

    Args:
        paths: the files.
        definition: makes a network's input of a file.
        limit: most bytes of files that are kept; beyond it every access reads the file again.
        progress: told of each file read ahead.
    """

    def __init__(
        self, paths: Sequence[Path], definition: Input, limit: int = MEMORY_LIMIT, progress: Progress = silent
    ) -> None:
        self.paths = list(paths)
        self.definition = definition
        self.kept: list[Row] = []
        if sum(path.stat().st_size for path in self.paths if path.is_file()) <= limit:
            with ThreadPoolExecutor(4) as pool:
                rows = pool.map(self._read, self.paths)
                self.kept = list(tracked(rows, "reading samples", progress, len(self.paths)))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def lengths(self) -> npt.NDArray[np.int64] | None:
        """Tokens of each text; None of arrays, and where there are too many texts to be kept."""
        found = np.array([max(len(values) for values in row.values()) for row in self.kept], np.int64)
        return found if len(np.unique(found)) > 1 else None

    def __getitem__(self, index: int) -> Row:
        """One sample."""
        return self.kept[index] if self.kept else self._read(self.paths[index])

    def varied(self, index: int, epoch: int, seed: int) -> Row:
        """The sample itself: what a text or an array may be changed to without changing its label is not known."""
        return self[index]

    def collate(self, rows: Sequence[Row]) -> dict[str, npt.NDArray[Any]]:
        """Samples of different lengths are filled up with zeros to the longest, as masks and token numbers allow."""
        return {name: _stacked([row[name] for row in rows]) for name in rows[0]}

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[Batch]:
        """Samples by length, so that little is filled up, at most ``size`` at a time."""
        wanted, lengths = list(range(len(self)) if indices is None else indices), self.lengths
        if lengths is not None:
            wanted.sort(key=lambda index: int(lengths[index]))
        for first in range(0, len(wanted), size):
            part = wanted[first : first + size]
            yield part, self.collate([self[index] for index in part])

    def _read(self, path: Path) -> Row:
        return {name: values[0] for name, values in self.definition.feeds(path).items()}


def _stacked(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if len({array.shape for array in arrays}) == 1:
        return np.stack(arrays)
    longest = max(len(array) for array in arrays)
    whole = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(whole, arrays, strict=True):
        row[: len(array)] = array
    return whole
