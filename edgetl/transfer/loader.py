"""Training batches in an order that is a function of (seed, epoch), whoever loads them."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edgetl.transfer.samples import Row, SampleStore

#: Batches among which texts of about the same length are sought.
POOL = 16


@dataclass(frozen=True)
class Varied(Dataset):
    """Samples as training sees them, with their targets if they are labelled, addressed by (epoch, index)."""

    store: SampleStore
    targets: npt.NDArray[Any] | None
    seed: int

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Row, int]:
        """One sample and its index."""
        epoch, index = key
        return self.store.varied(index, epoch, self.seed), index

    def collate(self, drawn: Sequence[tuple[Row, int]]) -> tuple[dict[str, Tensor], Tensor | None]:
        """A batch: the network's inputs by name and the targets, first axis n; None without labels."""
        arrays = self.store.collate([row for row, _ in drawn])
        inputs = {name: torch.from_numpy(values) for name, values in arrays.items()}
        if self.targets is None:
            return inputs, None
        return inputs, torch.from_numpy(self.targets[[index for _, index in drawn]])


def batch_indices(
    count: int, batch_size: int, seed: int, epoch: int, lengths: npt.NDArray[np.int64] | None = None
) -> list[npt.NDArray[np.int64]]:
    """The samples of each global batch of an epoch; an incomplete last batch is left out, others next time.

    Args:
        count: samples.
        batch_size: of them in a batch.
        seed, epoch: decide the order.
        lengths: of each sample, int64 (count,); a batch then has ones of about the same length, from among
            :data:`POOL` batches, so that little of it is filled up. None where they are all equal.
    """
    size, random = min(batch_size, count), np.random.default_rng([seed, epoch])
    order = random.permutation(count)[: count - count % size]
    if lengths is None:
        return [order[first : first + size] for first in range(0, len(order), size)]
    pools = [order[first : first + POOL * size] for first in range(0, len(order), POOL * size)]
    order = np.concatenate([pool[np.argsort(lengths[pool], kind="stable")] for pool in pools])
    return list(random.permutation(order.reshape(-1, size)))


def stream_indices(
    count: int, batch_size: int, steps: int, seed: int, epoch: int, name: str
) -> list[npt.NDArray[np.int64]]:
    """The samples of a stream that go beside each global batch of an epoch.

    All of them come once before any comes again.

    Args:
        count: samples of the stream.
        batch_size: of them beside a batch.
        steps: batches of the epoch.
        seed, epoch, name: decide the order.
    """
    random = np.random.default_rng([seed, epoch, zlib.crc32(name.encode())])
    rounds = -(-steps * batch_size // count)
    order = np.concatenate([random.permutation(count) for _ in range(rounds)])[: steps * batch_size]
    return list(order.reshape(steps, batch_size))


class Loader:
    """This process's share of each global batch, epoch after epoch, by the same worker processes.

    Args:
        samples: what to load.
        rank, world: this process among how many; each global batch is divided as evenly as possible.
        workers: processes that load ahead; 0 loads in this one.
        pinned: lay batches into page-locked memory, from which a GPU takes them while it computes.
    """

    def __init__(self, samples: Varied, rank: int, world: int, workers: int, pinned: bool) -> None:
        self.samples, self._rank, self._world = samples, rank, world
        #: The loader reads this list anew in each epoch.
        self._shares: list[list[tuple[int, int]]] = []
        self.loader = DataLoader(
            samples,
            batch_sampler=self._shares,
            collate_fn=samples.collate,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pinned,
            # Without its own generator the loader would draw from the one that dropout uses.
            generator=torch.Generator().manual_seed(0),
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )

    def epoch(self, batches: Sequence[npt.NDArray[np.int64]], epoch: int) -> Iterator[Any]:
        """Batches as :meth:`Varied.collate` makes them.

        Args:
            batches: from :func:`batch_indices`, without those already done.
            epoch: counted from 0.
        """
        mine = [np.array_split(batch, self._world)[self._rank] for batch in batches]
        self._shares[:] = [[(epoch, int(index)) for index in share] for share in mine]
        return iter(self.loader)
