"""The images on which the trained and the deployed model disagree, as thumbnails inside the page."""

from __future__ import annotations

import base64
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BundleError, DataError
from edgetl.base.storage import sha256_file
from edgetl.core.bundle import PREDICTIONS, Bundle
from edgetl.inputs.pictures import decode

SIDE = 160
#: Thumbnails of each kind in a page; the rest are counted, not shown, so that the page stays light.
SHOWN = 60
_SMALL = 64
_AGAIN = "verify the bundle again"
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Flip:
    """One image whose label changed between right and wrong.

    Attributes:
        path: of the image, relative to the dataset's root.
        truth, reference, deployed: class names: the true one, the trained model's and the artifact's.
        image: ``data:`` URI of the thumbnail, or "" where ``missing`` says why there is none.
        missing: why there is no thumbnail.
    """

    path: str
    truth: str
    reference: str
    deployed: str
    image: str
    missing: str


@dataclass(frozen=True)
class Flips:
    """The images lost (right before, wrong after) and gained, with how many there are in all."""

    lost: tuple[Flip, ...]
    gained: tuple[Flip, ...]
    lost_total: int
    gained_total: int
    absent: str = ""


def flips(bundle: Bundle, *, data_root: Path | None = None) -> Flips:
    """Find the images that were lost and gained, from the bundle's saved predictions.

    Args:
        bundle: a bundle; without saved predictions the result is empty and ``absent`` says so.
        data_root: where the images lie now; by default where they lay when the run was made.
    """
    file = bundle.path / PREDICTIONS
    if not file.is_file():
        return Flips((), (), 0, 0, "There are no saved predictions: verify the bundle to get them.")
    paths, truth, reference, deployed = _predictions(file)
    dataset = bundle.dataset
    root = data_root or dataset.root
    hashes = {sample.path: sample.sha256 for sample in dataset.samples}
    names = bundle.labels

    def shown(rows: Sequence[int]) -> tuple[Flip, ...]:
        return tuple(
            Flip(
                paths[i],
                _name(names, truth[i]),
                _name(names, reference[i]),
                _name(names, deployed[i]),
                *_thumbnail(root, paths[i], hashes),
            )
            for i in rows[:SHOWN]
        )

    lost = np.flatnonzero((reference == truth) & (deployed != truth)).tolist()
    gained = np.flatnonzero((reference != truth) & (deployed == truth)).tolist()
    return Flips(shown(lost), shown(gained), len(lost), len(gained))


def _predictions(file: Path) -> tuple[list[str], Integers, Integers, Integers]:
    try:
        with np.load(file, allow_pickle=False) as saved:
            paths = [str(path) for path in saved["paths"]]
            truth, reference, deployed = (saved[name].astype(np.int64) for name in ("labels", "reference", "deployed"))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"{file} is damaged or of another version", _AGAIN) from error
    if any(array.shape != (len(paths),) for array in (truth, reference, deployed)):
        raise BundleError(f"{file} has a different number of paths and predictions", _AGAIN)
    return paths, truth, reference, deployed


def _name(names: Sequence[str], label: np.int64) -> str:
    return names[int(label)] if 0 <= label < len(names) else f"class {label}"


def _thumbnail(root: Path, path: str, hashes: Mapping[str, str]) -> tuple[str, str]:
    # A bundle comes from anywhere: only files that its splits name by hash may enter the page.
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or path not in hashes:
        return "", "not an image of this bundle's splits"
    file = root / path
    if not file.is_file():
        return "", "the file is not there any more"
    if sha256_file(file) != hashes[path]:
        return "", "the file has changed since"
    try:
        return _data_uri(file), ""
    except DataError:
        return "", "the file cannot be read"


def _data_uri(file: Path) -> str:
    image = decode(file)
    small = max(image.size) <= _SMALL
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    # JPEG would smear an image of a few pixels; PNG keeps them.
    image.save(stream, **({"format": "PNG"} if small else {"format": "JPEG", "quality": 82}))
    return f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(stream.getvalue()).decode()}"
