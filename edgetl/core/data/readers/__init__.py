"""What reads labelled data: one file a format, one line here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgetl.base.errors import DataError
from edgetl.core.data.readers import arrays, digits, folder, table, texts
from edgetl.core.data.readers.base import Listing, Reader

#: The first one that takes a source reads it.
READERS: Mapping[str, Reader] = {
    reader.name: reader
    for reader in (
        digits.READER,
        folder.READER,
        arrays.READER,
        texts.READER,
        table.READER,
    )
}


def find_reader(source: str | Path) -> Reader:
    """What reads a source.

    Raises:
        DataError: nothing does, mostly because it is not there.
    """
    found = next((reader for reader in READERS.values() if reader.takes(source)), None)
    if found is None:
        raise DataError(f"there is no {source}", "give " + ", or ".join(reader.about for reader in READERS.values()))
    return found


__all__ = ["READERS", "Listing", "Reader", "find_reader"]
