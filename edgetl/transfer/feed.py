"""What each step of training is fed: a batch of the data, and one of each stream beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning_fabric import Fabric
from torch import Tensor

from edgetl.base.progress import Progress
from edgetl.transfer.assembly import Job, Setup
from edgetl.transfer.augment import Augmentation
from edgetl.transfer.loader import Loader, Varied, batch_indices, stream_indices
from edgetl.transfer.samples import MEMORY_LIMIT, SampleStore
from edgetl.transfer.stores import store_of
from edgetl.transfer.strategies.base import StreamBatch

Indices = npt.NDArray[np.int64]
Step = tuple[Mapping[str, Tensor], Tensor, Mapping[str, StreamBatch]]


@dataclass(frozen=True)
class Feed:
    """The loaders of this process; which samples a step gets is a function of seed, epoch and step.

    Attributes:
        main: of the data to train on.
        beside: of each stream, by name.
        batch_size: samples of the data in a global batch.
    """

    fabric: Fabric
    main: Loader
    beside: Mapping[str, Loader]
    batch_size: int

    def batches(self, epoch: int) -> list[Indices]:
        """The samples of each global batch of an epoch."""
        samples = self.main.samples
        return batch_indices(len(samples), self.batch_size, samples.seed, epoch, samples.store.lengths)

    def epoch(self, batches: Sequence[Indices], epoch: int, first: int) -> Iterator[Step]:
        """Inputs, targets and streams of each step, on the device.

        Args:
            batches: of :meth:`batches`, all of them.
            epoch: counted from 0.
            first: steps that are done already.
        """
        of_streams = [self._beside(name, loader, batches, epoch, first) for name, loader in self.beside.items()]
        for (inputs, targets), *others in zip(self.main.epoch(batches[first:], epoch), *of_streams, strict=True):
            streams = {
                name: StreamBatch(self.fabric.to_device(x), None if y is None else self.fabric.to_device(y))
                for name, (x, y) in zip(self.beside, others, strict=True)
            }
            yield self.fabric.to_device(inputs), self.fabric.to_device(targets), streams

    def _beside(self, name: str, loader: Loader, batches: Sequence[Indices], epoch: int, first: int) -> Iterator[Step]:
        size, samples = len(batches[0]), loader.samples
        drawn = stream_indices(len(samples), size, len(batches), samples.seed, epoch, name)
        return loader.epoch(drawn[first:], epoch)


def feed_of(setup: Setup, job: Job, progress: Progress, ahead: SampleStore | None = None) -> Feed:
    """Loaders of the training samples and of every stream that the strategy was given.

    Args:
        setup, job: of the training.
        progress: told of each file read ahead.
        ahead: the training samples where the network is cut; None for the samples themselves.
    """
    fabric, streams = setup.fabric, job.streams.samples
    limit = MEMORY_LIMIT // fabric.world_size // (1 + len(streams))

    varies = job.settings.augment
    augmentation = Augmentation(varies["name"], tuple(varies.get("steps", ())))

    def loader(
        paths: Sequence[Path], labels: npt.NDArray[Any] | None, mirror_safe: bool, kept: SampleStore | None = None
    ) -> Loader:
        store = kept or store_of(job.definition, paths, limit, progress, mirror_safe, augmentation)
        targets = None if labels is None else setup.learner.targets(labels, setup.scale)
        samples, pinned = Varied(store, targets, setup.seed), fabric.device.type == "cuda"
        return Loader(samples, fabric.global_rank, fabric.world_size, job.workers, pinned)

    data = job.dataset
    main = loader(data.paths("train"), data.labels("train"), data.mirror_safe, ahead)
    # Whether a picture without a label may be mirrored is what the data say of theirs.
    beside = {name: loader(each.paths, each.labels, data.mirror_safe) for name, each in streams.items()}
    return Feed(fabric, main, beside, job.settings.batch_size)
