"""Training batches in an order that is a function of (seed, epoch), whoever loads them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edgetl.transfer.augment import varied
from edgetl.transfer.images import ImageStore


@dataclass(frozen=True)
class Varied(Dataset):
    """Augmented images, addressed by (epoch, index)."""

    store: ImageStore
    labels: npt.NDArray[np.int64]
    transform: Callable[[Tensor], Tensor]
    seed: int

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        """One image, uint8, shape (height, width, c), and its class."""
        epoch, index = key
        image = torch.from_numpy(self.store[index].copy()).permute(2, 0, 1)
        changed = varied(image, self.transform, self.seed, epoch, index)
        pixels = self.store.preprocess.ordered(changed.permute(1, 2, 0).numpy())
        return torch.from_numpy(pixels).contiguous(), int(self.labels[index])


def batch_indices(count: int, batch_size: int, seed: int, epoch: int) -> list[npt.NDArray[np.int64]]:
    """The images of each global batch of an epoch; an incomplete last batch is left out, other images next time."""
    size = min(batch_size, count)
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return [order[first : first + size] for first in range(0, count - size + 1, size)]


def load(
    images: Varied, batches: Sequence[npt.NDArray[np.int64]], epoch: int, rank: int, world: int, workers: int
) -> DataLoader:
    """This process's share of each global batch.

    Args:
        images: what to load.
        batches: from :func:`batch_indices`, without those already done.
        epoch: counted from 0.
        rank, world: this process among how many; each global batch is divided as evenly as possible.
        workers: processes that load ahead; 0 loads in this one.

    Returns:
        batches of (uint8 (n, height, width, 3), int64 (n,)).
    """
    shares = [[(epoch, int(index)) for index in np.array_split(batch, world)[rank]] for batch in batches]
    return DataLoader(
        images,
        batch_sampler=shares,
        num_workers=workers,
        # Without its own generator the loader would draw from the one that dropout uses.
        generator=torch.Generator().manual_seed(epoch),
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )
