"""Five corruptions of image files, after Hendrycks & Dietterich 2019 (ImageNet-C), by Pillow's filters.

Pillow decodes the images anyway, so whatever machine can run a bundle can corrupt its images.

ImageNet-C was made for images of 224 pixels; here an image keeps its own size, and each parameter follows from it:

    blur        Gaussian; sigma 1, 2, 3, 4, 6 pixels at a shorter side of 224, in proportion at any other. Below
                64 pixels it stays what it is at 64: a smaller sigma would change nothing.
    noise       Gaussian, independent in every pixel and channel; standard deviation 0.08, 0.12, 0.18, 0.26, 0.38 of the
                full range, as in the original, whatever the size.
    jpeg        quality 25, 18, 15, 10, 7, as in the original; blocks are 8 pixels whatever the size.
    brightness  times 1.2, 1.4, 1.6, 1.8, 2.0: at a mid-grey what the original adds, which is 0.1 … 0.5 of the range.
    contrast    0.4, 0.3, 0.2, 0.1, 0.05 of the distance from the image's mean grey, as in the original.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetl.base.errors import CertifyError, UnknownNameError
from edgetl.base.parallel import CORES, in_order
from edgetl.base.storage import sha256_file, sha256_json
from edgetl.inputs.pictures import decode

if TYPE_CHECKING:
    from PIL.Image import Image

SEVERITIES = (1, 2, 3, 4, 5)
#: Shorter side that the original's blur was made for, and the one below which it does not shrink any further.
_ORIGINAL_SIDE, _LEAST_SIDE = 224, 64
Seed = Callable[[], int]


def corrupted(path: Path, name: str, severity: int) -> Image:
    """A corrupted copy of an image file: the same pixels for the same file, corruption and severity.

    Args:
        path: any image that :func:`edgetl.inputs.image.decode` reads: grey, palette or RGB, turned by EXIF or not.
        name: a key of :data:`CORRUPTIONS`.
        severity: 1 (mild) to 5.

    Returns:
        RGB, of the size of the upright image.

    Raises:
        UnknownNameError: no such corruption.
        CertifyError: no such severity.
        DataError: the file is missing or damaged.
    """
    if name not in CORRUPTIONS:
        raise UnknownNameError("corruption", name, CORRUPTIONS)
    if severity not in SEVERITIES:
        raise CertifyError(f"there is no severity {severity}", "choose 1 to 5")
    corrupt, parameters = CORRUPTIONS[name]

    def seed() -> int:
        return int(sha256_json([sha256_file(path), name, severity])[:16], 16)

    return corrupt(decode(path), parameters[severity - 1], seed)


def write_corrupted(paths: Iterable[Path], name: str, severity: int, folder: Path) -> list[Path]:
    """Write corrupted copies as PNG files, in the order of ``paths``, several at a time.

    PNG loses nothing: what JPEG did to an image stays exactly as it was decoded. Each file is corrupted, written
    and forgotten, so memory does not grow with their number.

    Args:
        paths: image files.
        name, severity: see :func:`corrupted`.
        folder: an existing folder; files of the same names are replaced.
    """

    def write(item: tuple[int, Path]) -> Path:
        index, path = item
        file = folder / f"{index:06d}.png"
        # The files live for a moment: speed is worth more than size.
        corrupted(path, name, severity).save(file, compress_level=1)
        return file

    return list(in_order([write] * CORES, enumerate(paths)))


def _blur(image: Image, sigma: float, seed: Seed) -> Image:
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(sigma * max(min(image.size), _LEAST_SIDE) / _ORIGINAL_SIDE))


def _noise(image: Image, deviation: float, seed: Seed) -> Image:
    from PIL import Image as Pillow

    pixels = np.asarray(image, np.float32)
    drawn = np.random.default_rng(seed()).standard_normal(pixels.shape, np.float32)
    return Pillow.fromarray(np.clip(np.rint(pixels + 255 * deviation * drawn), 0, 255).astype(np.uint8))


def _jpeg(image: Image, quality: float, seed: Seed) -> Image:
    from PIL import Image as Pillow

    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=int(quality))
    return Pillow.open(stream).convert("RGB")


def _brightness(image: Image, factor: float, seed: Seed) -> Image:
    from PIL import ImageEnhance

    return ImageEnhance.Brightness(image).enhance(factor)


def _contrast(image: Image, factor: float, seed: Seed) -> Image:
    from PIL import ImageEnhance

    return ImageEnhance.Contrast(image).enhance(factor)


#: For each corruption what does it, and its parameter at severities 1 to 5.
CORRUPTIONS: Mapping[str, tuple[Callable[[Image, float, Seed], Image], tuple[float, ...]]] = {
    "blur": (_blur, (1.0, 2.0, 3.0, 4.0, 6.0)),
    "noise": (_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
    "jpeg": (_jpeg, (25, 18, 15, 10, 7)),
    "brightness": (_brightness, (1.2, 1.4, 1.6, 1.8, 2.0)),
    "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
}
