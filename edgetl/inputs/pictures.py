"""Pictures as Pillow holds them: decoded, upright, RGB; and resized to the same pixels by every Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError
from edgetl.base.storage import sha256_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

#: Most pixels that resizing may hold at once: 0.2 GB in RGB. A strip of 1x8000 pixels would otherwise take gigabytes.
MOST_PIXELS = 1 << 26


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
            return as_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError as error:
        raise DataError(f"there is no image {path}", "restore the file or make the run again") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image", "remove it or replace it") from error
    except Exception as error:  # Pillow's decoders raise whatever the damaged bytes lead them into
        raise DataError(f"{path} is a damaged image ({error})", "remove it or replace it") from error


def opened(source: Path | str | Image | npt.NDArray[np.uint8]) -> Path | Image:
    """What a program has for an image, as a file's path or an upright picture.

    Raises:
        DataError: an array that is no image, or something else altogether.
    """
    from PIL import Image as Pillow
    from PIL import ImageOps

    if isinstance(source, (str, Path)):
        return Path(source)
    if isinstance(source, Pillow.Image):
        try:
            return as_rgb(ImageOps.exif_transpose(source))
        except Exception as error:  # the file behind it is read only now
            raise DataError(f"the image is damaged ({error})", "remove it or replace it") from error
    if not isinstance(source, np.ndarray):
        raise DataError(f"a {type(source).__name__} is no image", "give a path, a Pillow image or a uint8 array")
    grey_or_colours = source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (1, 3, 4))
    if source.dtype != np.uint8 or not grey_or_colours or not source.size:
        shape = "x".join(map(str, source.shape))
        raise DataError(f"an array of {source.dtype} {shape} is no image", "give uint8 (h, w, 3) in RGB, or (h, w)")
    flat = source[..., 0] if source.ndim == 3 and source.shape[2] == 1 else source
    return Pillow.fromarray(np.ascontiguousarray(flat))


def fingerprint(path: Path) -> str:
    """SHA-256 of a decoded picture; equal for copies of one picture in different files.

    Raises:
        DataError: missing, truncated or no image.
    """
    image = decode(path)
    return sha256_bytes(f"{image.size}".encode() + image.tobytes())


def as_rgb(image: Image) -> Image:
    """A picture of any mode as RGB."""
    from PIL import Image as Pillow

    if image.mode.startswith("I"):
        # Pillow clips 16-bit greys at 255 when it converts; the upper byte keeps the picture.
        wide = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Pillow.fromarray((wide >> 8).astype(np.uint8)).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def grey(image: Image) -> Image:
    """An RGB picture in grey, mode L; one that was grey before it became RGB is what it was."""
    return image.convert("L")


def resize(image: Image, size: tuple[int, int], interpolation: str, name: str, *, whole: bool = False) -> Image:
    """Resize a picture to (width, height), width first and then height: the same pixels in every Pillow since 10.

    Args:
        image: what to resize.
        size: width and height, pixels.
        interpolation: Pillow's name of a filter, in lower case.
        name: of the picture, in messages.
        whole: in one call, in which Pillow 13 takes the height of some tall pictures first.

    Raises:
        DataError: it would take more than :data:`MOST_PIXELS`.
    """
    from PIL import Image as Pillow

    width, height = size
    if max(width * height, width * image.height) > MOST_PIXELS:
        shape = f"{image.width}x{image.height}"
        what = f"{name} has {shape} pixels, of which resizing to {width}x{height} makes too many to hold"
        raise DataError(what, f"crop it or remove it; {MOST_PIXELS} pixels are the most")
    steps: tuple[tuple[int, int], ...] = (size,) if whole else ((width, image.height), size)
    filter_: Any = Pillow.Resampling[interpolation.upper()]
    for step in steps:
        if step != image.size:
            image = image.resize(step, filter_)
    return image
