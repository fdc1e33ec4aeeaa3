"""Training-time variations of an image, each a function of (seed, epoch, index) and of nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from edgetl.preprocess import Preprocess

#: Share of the image's area that a crop keeps. ImageNet's 0.08 would cut a small defect away and keep its label.
CROP_AREA = (0.5, 1.0)
JITTER = 0.2


def transform_for(preprocess: Preprocess, mirror_safe: bool) -> Callable[[Tensor], Tensor]:
    """Random crop, mirror and light colour jitter, on uint8 images of shape (3, h, w).

    Args:
        preprocess: size and interpolation of the crop; normalisation belongs to the model.
        mirror_safe: whether a mirrored image still shows its class (letters and digits do not).

    Returns:
        a function to uint8 images of shape (3, preprocess.height, preprocess.width) that draws from torch's generator.
    """
    # torchvision resizes tensors by bicubic at best.
    kind = "bicubic" if preprocess.interpolation == "lanczos" else preprocess.interpolation
    size = (preprocess.height, preprocess.width)
    steps: list[Callable[[Tensor], Tensor]] = [
        v2.RandomResizedCrop(size, scale=CROP_AREA, interpolation=InterpolationMode(kind), antialias=True),
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
