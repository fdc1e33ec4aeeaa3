"""Training-time variations of an image, each a function of (seed, epoch, index) and of nothing else."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from edgetl.inputs.image import Preprocess

#: Area of a crop over that of the evaluation crop, so that things appear about as large in both (Touvron et al. 2019,
#: FixRes). ImageNet's habit, 0.08 to 1 of the whole image, would shrink them and cut a small defect off its label.
CROP_AREA = (0.6, 1.2)
CROP_RATIO = (4 / 5, 5 / 4)
#: How far the crop's centre moves from the evaluation crop's, as a share of the crop's side. Anywhere in a wide image
#: would show windows that evaluation never sees, under a label that may be true of the middle only.
CROP_SHIFT = 0.15
JITTER = 0.2


@dataclass(frozen=True)
class RandomCrop:
    """A window of random size, shape and place, resized to the network's input."""

    height: int
    width: int
    interpolation: InterpolationMode

    def __call__(self, image: Tensor) -> Tensor:
        """From uint8, shape (3, h, w), to uint8, shape (3, height, width)."""
        area, ratio, top, left = torch.rand(4).tolist()
        factor = CROP_AREA[0] + area * (CROP_AREA[1] - CROP_AREA[0])
        stretch = CROP_RATIO[0] * (CROP_RATIO[1] / CROP_RATIO[0]) ** ratio
        h = min(round(self.height * math.sqrt(factor / stretch)), image.shape[-2])
        w = min(round(self.width * math.sqrt(factor * stretch)), image.shape[-1])
        y = _start(image.shape[-2], h, (2 * top - 1) * CROP_SHIFT * self.height)
        x = _start(image.shape[-1], w, (2 * left - 1) * CROP_SHIFT * self.width)
        size = [self.height, self.width]
        cut: Tensor = functional.resized_crop(image, y, x, h, w, size, self.interpolation, antialias=True)
        return cut


def _start(length: int, side: int, shift: float) -> int:
    return min(max(round((length - side) / 2 + shift), 0), length - side)


def transform_for(preprocess: Preprocess, mirror_safe: bool) -> Callable[[Tensor], Tensor]:
    """Random crop, mirror and light colour jitter, on uint8 images of shape (3, h, w).

    Args:
        preprocess: size and interpolation of the crop; normalisation belongs to the model.
        mirror_safe: whether a mirrored image still shows its class (letters and digits do not).

    Returns:
        a function of images whose shorter side is ``preprocess.resize``, to uint8 images of shape
        (3, preprocess.height, preprocess.width), that draws from torch's generator.
    """
    # torchvision resizes tensors by bicubic at best.
    kind = "bicubic" if preprocess.interpolation == "lanczos" else preprocess.interpolation
    steps: list[Callable[[Tensor], Tensor]] = [
        RandomCrop(preprocess.height, preprocess.width, InterpolationMode(kind)),
        v2.ColorJitter(brightness=JITTER, contrast=JITTER, saturation=JITTER),
    ]
    if mirror_safe:
        steps.insert(1, v2.RandomHorizontalFlip())
    composed: Callable[[Tensor], Tensor] = v2.Compose(steps)
    return composed


def varied(image: Tensor, transform: Callable[[Tensor], Tensor], seed: int, epoch: int, index: int) -> Tensor:
    """Apply a random transform with its own generator state; the caller's is left alone."""
    key = hashlib.sha256(f"{seed}:{epoch}:{index}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(key[:8], "big"))
        return transform(image)
