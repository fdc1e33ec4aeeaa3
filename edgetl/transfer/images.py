"""Decoded images, resized but not cropped, kept in memory where they fit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from edgetl.base.progress import Progress, silent, tracked
from edgetl.inputs.image import Preprocess

Pixels = npt.NDArray[np.uint8]
#: Decoding competes with the model for the same cores, so a set of up to this many bytes is decoded once.
MEMORY_LIMIT = 2 << 30


class ImageStore:
    """The images of one split, resized (and padded) but not cropped, in RGB or, where the network sees that, in grey.

    Whether they are kept in memory changes the speed and nothing else.

    Args:
        paths: the files.
        preprocess: its resize and interpolation apply.
        limit: most bytes to keep; beyond it every access decodes the file again.
        progress: told of each image decoded ahead.
    """

    def __init__(
        self, paths: Sequence[Path], preprocess: Preprocess, limit: int = MEMORY_LIMIT, progress: Progress = silent
    ) -> None:
        self.paths = list(paths)
        self.preprocess = preprocess
        self.kept: list[Pixels] = []
        if sum(map(self._bytes, self.paths)) <= limit:
            with ThreadPoolExecutor(4) as pool:
                pixels = pool.map(self._read, self.paths)
                self.kept = list(tracked(pixels, "decoding images", progress, len(self.paths)))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Pixels:
        """One image, uint8, shape (h, w, 3) in RGB or (h, w, 1), uncropped."""
        return self.kept[index] if self.kept else self._read(self.paths[index])

    def cropped(self, index: int) -> Pixels:
        """One image as :meth:`Preprocess.apply` gives it, uint8, shape (height, width, c)."""
        pixels = self[index]
        return self.preprocess.apply(Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]))

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[Pixels]:
        """Cropped images in order, uint8, shape (n, height, width, c), at most ``size`` at a time."""
        wanted = range(len(self)) if indices is None else indices
        for first in range(0, len(wanted), size):
            yield np.stack([self.cropped(index) for index in wanted[first : first + size]])

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
