"""Broken runners, faults 1 to 6, written with torchvision or Pillow: they share nothing with what recognises them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torchvision import transforms

from edgetl.inputs.image import Preprocess

Pixels = npt.NDArray[np.uint8]


def runners(right: Preprocess) -> dict[str, Callable[[Path], Pixels]]:
    """Broken runners by the kind of fault that each has."""
    size, long = (right.height, right.width), right.resize
    filter_ = transforms.InterpolationMode(right.interpolation)

    def opened(path: Path) -> Image.Image:
        return Image.open(path).convert("RGB")

    def through(*steps: Any) -> Callable[[Path], Pixels]:
        chain = transforms.Compose(steps)
        return lambda path: np.asarray(chain(opened(path)), np.uint8)

    def washed(path: Path) -> Pixels:
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        float_ = (right.apply(path) / 255 - mean) / std * np.array(right.std) + np.array(right.mean)
        return np.asarray(np.clip(np.rint(float_ * 255), 0, 255), np.uint8)

    def planes(path: Path) -> Pixels:
        return np.stack([np.asarray(p) for p in Image.fromarray(right.apply(path)).split()]).reshape(*size, 3)

    def swapped(path: Path) -> Pixels:
        red, green, blue = Image.fromarray(right.apply(path)).split()
        return np.asarray(Image.merge("RGB", (blue, green, red)), np.uint8)

    crop = transforms.CenterCrop(size)
    return {
        "channel-order": swapped,
        "normalisation": washed,
        "crop-before-resize": through(crop, transforms.Resize(long, filter_), crop),
        "interpolation": through(transforms.Resize(long, transforms.InterpolationMode.BILINEAR), crop),
        "crop-ratio": through(transforms.Resize(min(size), filter_), crop),
        "layout": planes,
    }
