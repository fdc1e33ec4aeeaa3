"""What pictures say of where they belong: how they look, and when they were taken.

No library is taken for it: imagehash had its last release in February 2025 and brings scipy and PyWavelets, imagededup
brings torch.
"""

from __future__ import annotations

import functools
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.inputs.pictures import decoded, grey, tags

Floats = npt.NDArray[np.float64]

#: Side of the small picture that is transformed, and of the square of its lowest frequencies that is kept.
SIDE, KEPT = 64, 16
_TIME, _FRACTION, _MAKE, _MODEL, _SERIAL = 0x9003, 0x9291, 0x010F, 0x0110, 0xA431


def look(path: Path) -> npt.NDArray[np.bool_]:
    """A perceptual hash: bool [256], of which copies differ in few that were scaled, compressed or brightened.

    The picture in grey, 64 by 64 pixels, the lowest 16 by 16 frequencies of its discrete cosine transform, and whether
    each is above their median (C. Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions).

    Raises:
        DataError: missing, truncated or no image.
    """
    from PIL import Image

    with decoded(path) as image:
        small = grey(image).resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)
    basis = _cosines()
    frequencies = (basis @ np.asarray(small, np.float64) @ basis.T).ravel()
    return np.asarray(frequencies > np.median(frequencies))


@functools.cache
def _cosines() -> Floats:
    """The lowest rows of the transform (DCT-II), float64 [16, 64], all scaled alike."""
    frequency, place = np.arange(KEPT)[:, None], np.arange(SIDE)[None, :]
    return np.cos(np.pi * frequency * (2 * place + 1) / (2 * SIDE))


def taken(path: Path) -> tuple[str, float] | None:
    """By which camera a picture was taken, and when, in seconds; None where its EXIF tags do not say."""
    told = tags(path)
    try:
        when = datetime.strptime(str(told[_TIME]).strip("\0 "), "%Y:%m:%d %H:%M:%S")
        digits = str(told.get(_FRACTION, "")).strip("\0 ")
        fraction = float(f"0.{digits}") if digits.isdigit() else 0.0
    except (KeyError, ValueError):
        return None
    camera = "/".join(_word(told.get(tag)) for tag in (_MAKE, _MODEL, _SERIAL))
    return camera, (when - datetime(1970, 1, 1)).total_seconds() + fraction


def _word(value: Any) -> str:
    return "" if value is None else str(value).strip("\0 ")
