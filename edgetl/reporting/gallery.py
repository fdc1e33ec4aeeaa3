"""The samples on which the trained and the deployed model disagree, shown inside the page."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BundleError
from edgetl.core.bundle import PREDICTIONS, Bundle
from edgetl.reporting.samples import Card, Previews
from edgetl.reporting.views import Fact

#: Samples of each kind in a page; the rest are counted, not shown, so that the page stays light.
SHOWN = 60
_AGAIN = "verify the bundle again"
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Flips:
    """The samples lost (right before, wrong after) and gained, with how many there are in all."""

    lost: tuple[Card, ...]
    gained: tuple[Card, ...]
    lost_total: int
    gained_total: int
    absent: str = ""


def flips(bundle: Bundle, *, data_root: Path | None = None) -> Flips:
    """Find the samples that were lost and gained, from the bundle's saved predictions.

    Args:
        bundle: a bundle; without saved predictions the result is empty and ``absent`` says so.
        data_root: where the samples lie now; by default where they lay when the run was made.
    """
    file = bundle.path / PREDICTIONS
    if not file.is_file():
        return Flips((), (), 0, 0, "There are no saved predictions: verify the bundle to get them.")
    paths, truth, reference, deployed = _predictions(file)
    names, previews = bundle.labels, Previews(bundle.dataset, "image", data_root)
    was_right, is_right = reference == truth, deployed == truth

    def card(row: int) -> Card:
        facts = (
            Fact("true", _name(names, truth[row])),
            Fact("before", _name(names, reference[row]), "right" if was_right[row] else "wrong"),
            Fact("after", _name(names, deployed[row]), "right" if is_right[row] else "wrong"),
        )
        return Card(paths[row], previews.of(paths[row]), facts)

    lost, gained = (np.flatnonzero(rows).tolist() for rows in (was_right & ~is_right, ~was_right & is_right))
    return Flips(tuple(map(card, lost[:SHOWN])), tuple(map(card, gained[:SHOWN])), len(lost), len(gained))


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
