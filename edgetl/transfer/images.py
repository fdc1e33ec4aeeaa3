"""Decoded images, resized but not cropped, kept in memory where they fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from edgetl.base.progress import Progress, silent, tracked
from edgetl.inputs.image import Preprocess
from edgetl.transfer.augment import LIGHT, Augmentation, transform_for, varied
from edgetl.transfer.samples import MEMORY_LIMIT, Batch, Row

Pixels = npt.NDArray[np.uint8]


class ImageStore:
    """The images of one split, resized (and padded) but not cropped, in RGB or, where the network sees that, in grey.

    Whether they are kept in memory changes the speed and nothing else.

    Args:
        paths: the files.
        preprocess: its resize and interpolation apply.
        limit: most bytes to keep; beyond it every access decodes the file again.
        progress: told of each image decoded ahead.
        mirror_safe: whether a mirrored image still shows its label; training sees no mirrored ones otherwise.
        augmentation: how training images vary.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        preprocess: Preprocess,
        limit: int = MEMORY_LIMIT,
        progress: Progress = silent,
        mirror_safe: bool = False,
        augmentation: Augmentation = LIGHT,
    ) -> None:
        self.paths = list(paths)
        self.preprocess = preprocess
        self.transform = transform_for(preprocess, mirror_safe, augmentation)
        self.kept: list[Pixels] = []
        if sum(map(self._bytes, self.paths)) <= limit:
            with ThreadPoolExecutor(4) as pool:
                pixels = pool.map(self._read, self.paths)
                self.kept = list(tracked(pixels, "decoding images", progress, len(self.paths)))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def lengths(self) -> None:
        """All images have one size."""
        return None

    def __getitem__(self, index: int) -> Pixels:
        """One image, uint8, shape (h, w, 3) in RGB or (h, w, 1), uncropped."""
        return self.kept[index] if self.kept else self._read(self.paths[index])

    def cropped(self, index: int) -> Pixels:
        """One image as :meth:`Preprocess.apply` gives it, uint8, shape (height, width, c)."""
        pixels = self[index]
        return self.preprocess.apply(Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]))

    def varied(self, index: int, epoch: int, seed: int) -> Row:
        """One image as training sees it: ``image``, uint8, shape (height, width, c)."""
        image = torch.from_numpy(self[index].copy()).permute(2, 0, 1)
        changed = varied(image, self.transform, seed, epoch, index)
        return {"image": self.preprocess.ordered(changed.permute(1, 2, 0).numpy())}

    def collate(self, rows: Sequence[Row]) -> dict[str, Pixels]:
        """Several as one batch: ``image``, uint8, shape (n, height, width, c)."""
        return {"image": np.stack([row["image"] for row in rows])}

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[Batch]:
        """Cropped images in order: ``image``, uint8, shape (n, height, width, c), at most ``size`` at a time."""
        wanted = range(len(self)) if indices is None else indices
        for first in range(0, len(wanted), size):
            part = wanted[first : first + size]
            yield part, {"image": np.stack([self.cropped(index) for index in part])}

    def _read(self, path: Path) -> Pixels:
        pixels = np.asarray(self.preprocess.resized(path), dtype=np.uint8)
        return pixels if pixels.ndim == 3 else pixels[..., None]

    def _bytes(self, path: Path) -> int:
        try:
            with Image.open(path) as image:
                width, height = self.preprocess.scaled(*image.size)
        except OSError:
            # Decoding it will say what is wrong.
            return 0
        return len(self.preprocess.mean) * width * height
