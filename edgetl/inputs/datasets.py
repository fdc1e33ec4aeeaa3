"""Reading a data set whose files are this kind of input: what cannot be decoded is no sample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgetl.base.progress import Progress, silent
from edgetl.core.data import SHARES, Dataset, read_dataset
from edgetl.inputs.kinds import find_input


def load_dataset(
    source: str | Path,
    *,
    kind: str = "image",
    seed: int = 0,
    shares: Mapping[str, float] = SHARES,
    digits_into: Path | None = None,
    progress: Progress = silent,
) -> Dataset:
    """Read labelled images and split them; see :func:`edgetl.core.data.read_dataset`.

    Raises:
        DataError: nothing to learn from, or more than 5 % of the files are unusable; the message names them.
    """
    return read_dataset(
        source, find_input(kind).fingerprint, seed=seed, shares=shares, digits_into=digits_into, progress=progress
    )
