"""A sample inside the page: the picture as a thumbnail, the text itself, the values of an array."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError
from edgetl.base.storage import sha256_file
from edgetl.base.wording import number, printable
from edgetl.core.data import Dataset
from edgetl.inputs.arrays import read_arrays
from edgetl.inputs.pictures import decode
from edgetl.inputs.text import read_text
from edgetl.reporting.views import Fact

#: Longest side of a thumbnail, pixels.
SIDE = 160
#: Characters of a text and values of an array that are shown.
CHARACTERS, VALUES = 600, 24
_SMALL = 64


@dataclass(frozen=True)
class Preview:
    """What a sample looks like; all empty but ``missing`` where it cannot be shown.

    Attributes:
        image: ``data:`` URI of a picture: of the sample itself, or of an array's values in grey.
        text: the sample's words, or the values of an array.
        missing: why there is neither.
    """

    image: str = ""
    text: str = ""
    missing: str = ""

    @property
    def small(self) -> bool:
        """Whether the picture has so few pixels that the page must not blur them."""
        return self.image.startswith("data:image/png")


@dataclass(frozen=True)
class Card:
    """A sample with what is said of it."""

    path: str
    preview: Preview
    facts: tuple[Fact, ...]

    @property
    def words(self) -> str:
        """The facts in one line."""
        return "; ".join(f"{fact.name} {fact.value}" for fact in self.facts)


class Previews:
    """The samples of one data set, of one kind of input: "image", "text" or "tensor".

    Args:
        dataset: a file is shown only if its path and hash are among these samples: a bundle comes from anywhere.
        kind: of the input, as in its record.
        data_root: where the files lie now; by default where they lay when the run was made.
    """

    def __init__(self, dataset: Dataset, kind: str, data_root: Path | None = None) -> None:
        self._root = data_root or dataset.root
        self._hashes = {sample.path: sample.sha256 for sample in dataset.samples}
        self._kind = kind

    def of(self, path: str) -> Preview:
        """Show the sample of this path, relative to the data set's root."""
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or path not in self._hashes:
            return Preview(missing="not one of the samples that were split")
        file = self._root / path
        if not file.is_file():
            return Preview(missing="the file is not there any more")
        if sha256_file(file) != self._hashes[path]:
            return Preview(missing="the file has changed since")
        return preview(file, self._kind)


def preview(file: Path, kind: str, side: int = SIDE) -> Preview:
    """Show a file.

    Args:
        file: it is read whatever it is.
        kind: of the input: "image", "text" or "tensor".
        side: longest side of a picture, pixels.
    """
    try:
        return READERS.get(kind, _no_preview)(file, side)
    except (DataError, OSError):
        return Preview(missing="the file cannot be read")


def _no_preview(file: Path, side: int) -> Preview:
    return Preview(missing=f"no preview of a file like {printable(file.suffix) or 'this'}")


def _image(file: Path, side: int) -> Preview:
    return Preview(image=_thumbnail(decode(file), side))


def _text(file: Path, side: int) -> Preview:
    # What has room for a larger picture has room for more words.
    text, most = read_text(file), CHARACTERS * side // SIDE
    return Preview(text=text if len(text) <= most else text[:most] + "…")


def _tensor(file: Path, side: int) -> Preview:
    named = read_arrays(file, "")
    pictures = (_grey(array, side) for array in named.values())
    return Preview(
        image=next((picture for picture in pictures if picture), ""),
        text="\n".join(_values(f"{name}: " if name else "", array) for name, array in named.items()),
    )


#: Kind of input → its preview.
READERS: Mapping[str, Callable[[Path, int], Preview]] = {"image": _image, "text": _text, "tensor": _tensor}


def _values(name: str, array: npt.NDArray[Any]) -> str:
    """Type, shape and the first values of an array."""
    head = f"{name}{array.dtype} {'x'.join(map(str, array.shape)) or 'scalar'}"
    if array.dtype.kind not in "fiub" or not array.size:
        return head
    flat = array.reshape(-1)
    first = ", ".join(number(float(value)) for value in flat[:VALUES])
    more = f", … {flat.size - VALUES:,} more, from {number(float(flat.min()))} to {number(float(flat.max()))}"
    return f"{head}\n{first}{more if flat.size > VALUES else ''}"


def _grey(array: npt.NDArray[Any], side: int) -> str:
    """The last two axes of an array as a picture, low values dark; "" for what has no two axes worth a picture."""
    from PIL import Image

    if array.ndim < 2 or min(array.shape[-2:]) < 4 or array.dtype.kind not in "fiu" or not array.size:
        return ""
    plane = array.reshape(-1, *array.shape[-2:])[0].astype(np.float64)
    low, high = (float(bound(plane)) for bound in (np.min, np.max))
    if not np.isfinite([low, high]).all():
        return ""
    scaled = np.round(255 * (plane - low) / (high - low or 1.0)).astype(np.uint8)
    return _thumbnail(Image.fromarray(scaled), side, exact=True)


def _thumbnail(image: Any, side: int, *, exact: bool = False) -> str:
    # JPEG would smear an image of a few pixels, and values; PNG keeps them.
    png = exact or max(image.size) <= _SMALL
    image.thumbnail((side, side))
    stream = io.BytesIO()
    image.save(stream, **({"format": "PNG"} if png else {"format": "JPEG", "quality": 82}))
    return f"data:image/{'png' if png else 'jpeg'};base64,{base64.b64encode(stream.getvalue()).decode()}"
