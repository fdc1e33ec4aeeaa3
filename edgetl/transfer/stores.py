"""The store of each kind of input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgetl.base.progress import Progress, silent
from edgetl.inputs.base import Input
from edgetl.inputs.image import Preprocess
from edgetl.transfer.augment import LIGHT, Augmentation
from edgetl.transfer.images import ImageStore
from edgetl.transfer.samples import MEMORY_LIMIT, FeedStore, SampleStore


def store_of(
    definition: Input,
    paths: Sequence[Path],
    limit: int = MEMORY_LIMIT,
    progress: Progress = silent,
    mirror_safe: bool = False,
    augmentation: Augmentation = LIGHT,
) -> SampleStore:
    """The samples in these files, as this definition makes a network's input of them.

    Args:
        definition: a run's input definition.
        paths: the files.
        limit: most bytes to keep in memory.
        progress: told of each file read ahead.
        mirror_safe: whether a mirrored image still shows its label.
        augmentation: how training images vary.
    """
    if isinstance(definition, Preprocess):
        return ImageStore(paths, definition, limit, progress, mirror_safe, augmentation)
    return FeedStore(paths, definition, limit, progress)
