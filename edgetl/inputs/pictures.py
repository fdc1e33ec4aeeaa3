"""Pictures as Pillow holds them: decoded, upright, RGB; and resized to the same pixels by every Pillow."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError
from edgetl.inputs.formats import refuse_raw, unread

if TYPE_CHECKING:
    from PIL.Image import Image

#: Most pixels that resizing may hold at once: 0.2 GB in RGB. A strip of 1x8000 pixels would otherwise take gigabytes.
MOST_PIXELS = 1 << 26
#: Most pixels of a file: half a gigabyte as Pillow holds them. A few hundred bytes may announce any number.
MOST_DECODED = 1 << 27
#: Pictures of more pixels are in memory one at a time, however many threads read: 64 MB as Pillow holds them.
LARGE = 1 << 24
#: Pixels that are hashed at once.
_STRIP = 1 << 20
_ORIENTATION, _TAKEN = 0x0112, 0x8769
#: Bits that the greys of a picture may have.
_DEPTHS = (8, 10, 12, 14, 16)
#: Of a colour of 16 bits, Pillow gives the upper 8. If none is above this, the picture has 12 bits and only 4 are left.
_TWELVE_BITS = 15


class _OneLarge:
    """A lock that does not stay locked in a process that was forked while another thread held it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self.lock = threading.Lock()


_one_large = _OneLarge()


@functools.cache
def _pillow() -> Any:
    from PIL import Image as Pillow

    # Pillow warns from 89 million pixels on; what is too many is said here. Of odd tags nothing is wanted.
    warnings.filterwarnings("ignore", category=Pillow.DecompressionBombWarning)
    warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")
    return Pillow


def decode(path: Path, *, by_content: bool = True) -> Image:
    """Read an image file as RGB, turned upright as its EXIF orientation says.

    Args:
        path: the file.
        by_content: see :func:`as_rgb`.

    Raises:
        DataError: missing, truncated, too large, no image, or of values that are no picture; the message names the
            file.
    """
    with decoded(path, by_content=by_content) as image:
        return image


@contextlib.contextmanager
def decoded(source: Path | bytes, *, by_content: bool = True) -> Iterator[Image]:
    """As :func:`decode`, of a file or its bytes; of the pictures of more than :data:`LARGE` pixels, one at a time is
    inside."""
    with contextlib.ExitStack() as stack:
        try:
            image = _read(source, by_content, stack)
        except FileNotFoundError as error:
            raise DataError(f"there is no image {named(source)}", "restore the file or make the run again") from error
        except DataError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever the damaged bytes lead them into
            raise _explained(source, error) from error
        yield image


def named(source: object) -> str:
    """A picture in messages: its file, where it is one."""
    return str(source) if isinstance(source, Path) else "the image"


def _explained(source: Path | bytes, error: Exception) -> DataError:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError | PermissionError | IsADirectoryError):
        return unread(source)
    if isinstance(error, _pillow().DecompressionBombError):
        return DataError(f"{named(source)} has too many pixels", f"shrink it; {MOST_DECODED} are the most")
    return DataError(f"{named(source)} is a damaged image ({error})", "remove it or replace it")


def _read(source: Path | bytes, by_content: bool, stack: contextlib.ExitStack) -> Image:
    name = named(source)
    if isinstance(source, Path):
        refuse_raw(source)
    with _pillow().open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
        pixels = image.width * image.height
        if pixels > MOST_DECODED:
            what = f"{name} has {image.width}x{image.height} pixels"
            raise DataError(what, f"shrink it; {MOST_DECODED} are the most")
        if pixels > LARGE:
            stack.enter_context(_one_large.lock)
        wide = any(";16" in str(tile[3]) for tile in image.tile) and image.mode in ("RGB", "RGBA")
        image.load()
        try:
            found = as_rgb(upright(image), by_content=by_content)
        except DataError as error:
            raise DataError(f"{name} {error.what}", error.remedy) from error
    if wide and by_content and 0 < int(np.asarray(found.getextrema()).max()) <= _TWELVE_BITS:
        what = f"{name} holds colours of 16 bits of which 12 are used at most, and only the upper 8 are read"
        raise DataError(what, "save it with 8 bits for each colour")
    return found


def opened(source: Path | str | bytes | Image | npt.NDArray[np.uint8]) -> Path | bytes | Image:
    """What a program has for an image, as a file's path or bytes, or an upright picture.

    Raises:
        DataError: an array that is no image, or something else altogether.
    """
    if isinstance(source, (str, Path)):
        return Path(source)
    if isinstance(source, bytes):
        return source
    if isinstance(source, _pillow().Image):
        try:
            source.load()
        except Exception as error:  # the file behind it is read only now
            raise DataError(f"the image is damaged ({error})", "remove it or replace it") from error
        return upright(source)
    if not isinstance(source, np.ndarray):
        raise DataError(f"a {type(source).__name__} is no image", "give a path, a Pillow image or a uint8 array")
    grey_or_colours = source.ndim == 2 or (source.ndim == 3 and source.shape[2] in (1, 3, 4))
    if source.dtype != np.uint8 or not grey_or_colours or not source.size:
        shape = "x".join(map(str, source.shape))
        raise DataError(f"an array of {source.dtype} {shape} is no image", "give uint8 (h, w, 3) in RGB, or (h, w)")
    flat = source[..., 0] if source.ndim == 3 and source.shape[2] == 1 else source
    picture: Image = _pillow().fromarray(np.ascontiguousarray(flat))
    return picture


def fingerprint(path: Path) -> str:
    """SHA-256 of a decoded picture; equal for copies of one picture in different files.

    Raises:
        DataError: missing, truncated or no image.
    """
    with decoded(path) as image:
        digest = hashlib.sha256(f"{image.size}".encode())
        rows = max(1, _STRIP // image.width)
        for top in range(0, image.height, rows):
            digest.update(image.crop((0, top, image.width, min(top + rows, image.height))).tobytes())
    return digest.hexdigest()


def remark(path: Path) -> str:
    """What a picture's owner should know of how its pixels are read, by its header; "" if nothing."""
    if path.suffix.lower() in (".jpg", ".jpeg"):
        return ""
    try:
        with _pillow().open(path) as image:
            if image.mode[-1:] in ("A", "a") or "transparency" in image.info:
                return "transparency is not seen, what lies under it is"
            if image.mode == "F":
                return "numbers from 0 to 1 are read as 0 to 255"
            if image.mode.startswith("I"):
                return "more than 8 bits of grey are read as 8, by the bits that each one's brightest pixel needs"
    except Exception:  # decoding it says what is wrong
        return ""
    return ""


def tags(path: Path) -> dict[int, Any]:
    """EXIF tags of a picture's file, by number, those about how it was taken among them; none of one without any."""
    try:
        with _pillow().open(path) as image:
            exif = image.getexif()
            return {**dict(exif), **dict(exif.get_ifd(_TAKEN))}
    except Exception:  # tags that Pillow cannot make sense of say nothing
        return {}


def upright(image: Image) -> Image:
    """A loaded picture, turned as its EXIF orientation says; other tags, however odd, are not touched."""
    turns = _pillow().Transpose
    known: dict[Any, Any] = {
        **{2: turns.FLIP_LEFT_RIGHT, 3: turns.ROTATE_180, 4: turns.FLIP_TOP_BOTTOM, 5: turns.TRANSPOSE},
        **{6: turns.ROTATE_270, 7: turns.TRANSVERSE, 8: turns.ROTATE_90},
    }
    try:
        turn = known.get(image.getexif().get(_ORIENTATION))
    except Exception:  # tags that Pillow cannot make sense of say nothing
        turn = None
    if turn is None:
        return image
    turned = image.transpose(turn)
    for name in ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"):
        turned.info.pop(name, None)
    return turned


def as_rgb(image: Image, *, by_content: bool = True) -> Image:
    """A picture of any mode as RGB.

    Args:
        image: the picture.
        by_content: greys of more than 8 bits are scaled by what they hold: 8, 10, 12, 14 or 16 bits, as the brightest
            pixel needs; numbers with a fraction go from 0 to 1. Otherwise as before version 3 of the preprocessing:
            the upper 8 of 16 bits are kept, and numbers with a fraction go from 0 to 255.

    Raises:
        DataError: values that are no picture.
    """
    if image.mode == "F" and by_content:
        image = _pillow().fromarray(_from_fractions(np.asarray(image)))
    elif image.mode.startswith("I"):
        values = np.asarray(image)
        if by_content:
            image = _pillow().fromarray(_from_integers(values))
        else:
            # Pillow clips 16-bit greys at 255 when it converts; the upper byte keeps the picture.
            image = _pillow().fromarray((np.clip(values.astype(np.int64), 0, 65535) >> 8).astype(np.uint8))
    try:
        return image if image.mode == "RGB" else image.convert("RGB")
    except ValueError as error:
        raise DataError(f"holds the colours {image.mode}, which are not read", "save it in RGB") from error


def _from_fractions(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        raise DataError(f"holds numbers from {low:g} to {high:g}, no brightness", "scale them to 0…1, or save 8 bits")
    return np.rint(values * np.float32(255)).astype(np.uint8)


def _from_integers(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= 1 << _DEPTHS[-1]:
        raise DataError(f"holds numbers from {low} to {high}, no grey of 16 bits", "save it with 8 or 16 bits")
    bits = next(bits for bits in _DEPTHS if high < 1 << bits)
    return (values >> (bits - 8)).astype(np.uint8)


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
    width, height = size
    if max(width * height, width * image.height) > MOST_PIXELS:
        shape = f"{image.width}x{image.height}"
        what = f"{name} has {shape} pixels, of which resizing to {width}x{height} makes too many to hold"
        raise DataError(what, f"crop it or remove it; {MOST_PIXELS} pixels are the most")
    steps: tuple[tuple[int, int], ...] = (size,) if whole else ((width, image.height), size)
    filter_: Any = _pillow().Resampling[interpolation.upper()]
    for step in steps:
        if step != image.size:
            image = image.resize(step, filter_)
    return image
