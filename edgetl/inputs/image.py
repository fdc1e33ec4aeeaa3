"""From image file to network input: one definition, used by training, calibration, export and the device.

The host part (decode, resize, crop) is :meth:`Preprocess.apply` and gives uint8 RGB, NHWC. The rest (cast to
float, channels first, normalise) lives in the exported graph, so that no runner has to repeat it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError
from edgetl.base.storage import sha256_bytes, sha256_json

if TYPE_CHECKING:
    from PIL.Image import Image

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


@dataclass(frozen=True)
class Preprocess:
    """What happens to an image before the network sees it.

    Attributes:
        height, width: the network's input, pixels.
        resize: length of the shorter side after resizing, pixels; the aspect ratio is kept and the longer side
            is ``resize * long // short``, as in torchvision and timm. The crop then starts at half of what is over,
            rounded down: whole numbers that a runner in any language gets right (torchvision rounds halves to the
            even number, so it may start one pixel further).
        interpolation: Pillow's antialiased filter of this name.
        mean, std: per channel (R, G, B), of values scaled to 0…1; applied inside the graph.
    """

    height: int
    width: int
    resize: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise DataError(f"unknown interpolation '{self.interpolation}'", f"use one of {', '.join(INTERPOLATIONS)}")
        if min(self.height, self.width) < 1 or self.resize < max(self.height, self.width):
            raise DataError(
                f"a {self.height}x{self.width} crop does not fit into a shorter side of {self.resize} pixels",
                "raise resize or lower the input size",
            )
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        if len(self.mean) != 3 or len(self.std) != 3 or not finite or min(self.std) <= 0:
            raise DataError("mean and std need three values each, and std positive ones", "correct the preprocessing")

    def apply(self, source: Path | Image) -> npt.NDArray[np.uint8]:
        """Decode, resize and centre-crop one image.

        Returns:
            uint8 array of shape (height, width, 3), RGB.

        Raises:
            DataError: the file is missing, truncated or no image.
        """
        image = self.resized(source)
        left = (image.width - self.width) // 2
        top = (image.height - self.height) // 2
        return np.asarray(image.crop((left, top, left + self.width, top + self.height)), dtype=np.uint8)

    def resized(self, source: Path | Image) -> Image:
        """Decode and resize one image without cropping it; :meth:`apply` crops what this returns.

        Raises:
            DataError: the file is missing, truncated or no image.
        """
        from PIL import Image as Pillow

        image = decode(source) if isinstance(source, Path) else _rgb(source)
        short, long = sorted(image.size)
        if short == self.resize:
            return image
        scaled = self.resize * long // short
        size = (self.resize, scaled) if image.width <= image.height else (scaled, self.resize)
        return image.resize(size, Pillow.Resampling[self.interpolation.upper()])

    def batch(self, paths: Iterable[Path]) -> npt.NDArray[np.uint8]:
        """Apply to several files: uint8 array of shape (n, height, width, 3)."""
        return np.stack([self.apply(path) for path in paths])

    @property
    def digest(self) -> str:
        """SHA-256 of the definition: equal for equal preprocessing."""
        return sha256_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std), "channels": "RGB", "layout": "NHWC"}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Preprocess:
        """Read what :meth:`to_json` wrote.

        Raises:
            DataError: a field is missing or of the wrong kind.
        """
        try:
            return cls(
                height=int(record["height"]),
                width=int(record["width"]),
                resize=int(record["resize"]),
                interpolation=str(record["interpolation"]),
                mean=_triple(record["mean"]),
                std=_triple(record["std"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"the preprocessing definition is malformed ({error})", "make it again") from error


def _triple(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def decode(path: Path) -> Image:
    """Read an image file as RGB, turned upright as its EXIF orientation says.

    Raises:
        DataError: missing, truncated or no image; the message names the file.
    """
    from PIL import Image as Pillow
    from PIL import ImageOps, UnidentifiedImageError

    try:
        with Pillow.open(path) as image:
            image.load()
            return _rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise DataError(f"there is no image {path}", "restore the file or make the run again") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image", "remove it or replace it") from error
    except Exception as error:  # Pillow's decoders raise whatever the damaged bytes lead them into
        raise DataError(f"{path} is a damaged image ({error})", "remove it or replace it") from error


def fingerprint(path: Path) -> str:
    """SHA-256 of a decoded picture; equal for copies of one picture in different files.

    Raises:
        DataError: missing, truncated or no image.
    """
    image = decode(path)
    return sha256_bytes(f"{image.size}".encode() + image.tobytes())


def _rgb(image: Image) -> Image:
    from PIL import Image as Pillow

    if image.mode.startswith("I"):
        # Pillow clips 16-bit greys at 255 when it converts; the upper byte keeps the picture.
        wide = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Pillow.fromarray((wide >> 8).astype(np.uint8)).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
