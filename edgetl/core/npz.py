"""Named arrays from an ``.npz`` that anybody may have made: what it says of its sizes is judged before any is read.

Nothing is unpickled, and nothing larger is allocated than what is there to be read.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.parallel import PARSING

_SUFFIX = ".npy"
#: Kinds of numpy types: bool, signed, unsigned, floating; and texts.
NUMBERS, NUMBERS_AND_TEXTS = "biuf", "biufU"
MOST_MEMBERS = 1024
#: Bytes that any file may unpack to; more, only if it is not much smaller than that (predictions
#: of samples with long paths shrink to a fifteenth); and the most of all.
FREE_BYTES, MOST_RATIO, MOST_BYTES = 64 << 20, 32, 4 << 30
#: Along any side of an array that holds nothing, which takes no bytes and, as a list, all memory.
MOST_ROWS = 1 << 20
_HOW = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_npz(
    source: Path | bytes,
    *,
    names: Collection[str] | None = None,
    kinds: str = NUMBERS_AND_TEXTS,
    how: Collection[int] = _HOW,
    most: int | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a file by name.

    Args:
        source: the file, or its content.
        names: of the arrays that are wanted, those that are there; all when None.
        kinds: of numpy types that they may have.
        how: kinds of compression that they may have.
        most: bytes that all may unpack to; as the size of the file allows when None.

    Raises:
        ValueError: it is not whole, would unpack to too much, holds a name twice or something that is no such array; a
            clause says which.
        OSError: it cannot be read.
    """
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    try:
        with zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source) as archive:
            members = archive.infolist()
            _check_sizes(members, size, _allowed(size) if most is None else most)
            wanted = [m for m in members if names is None or m.filename.removesuffix(_SUFFIX) in names]
            return {m.filename.removesuffix(_SUFFIX): _array(archive, m, kinds, how) for m in wanted}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(str(error)) from error


def _allowed(size: int) -> int:
    return min(max(FREE_BYTES, MOST_RATIO * size), MOST_BYTES)


def _check_sizes(members: Sequence[zipfile.ZipInfo], size: int, most: int) -> None:
    if len(members) > MOST_MEMBERS:
        raise ValueError(f"it has {len(members)} members, more than {MOST_MEMBERS}")
    if len({member.filename for member in members}) < len(members):
        raise ValueError("a name stands there twice")
    unpacked = sum(member.file_size for member in members)
    if unpacked > most:
        raise ValueError(f"{size} bytes would unpack to {unpacked}")


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, kinds: str, how: Collection[int]) -> npt.NDArray[Any]:
    if member.compress_type not in how or not member.filename.endswith(_SUFFIX):
        raise ValueError(f"{member.filename!a:.100} is no plain array")
    # No more is ever unpacked than the member says of its size, which has been judged.
    content = archive.read(member)
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"{member.filename!a:.100} is of version {version}")
    with PARSING:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject or dtype.kind not in kinds or not dtype.itemsize:
        raise ValueError(f"{member.filename!a:.100} holds {dtype!s:.40}, which is nothing to read here")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"{member.filename!a:.100} says to be of shape {shape!s:.60} and holds {len(content)} bytes")
    if max(shape, default=0) > MOST_ROWS and not math.prod(shape):
        raise ValueError(f"{member.filename!a:.100} says to be of shape {shape!s:.60} and holds nothing")
    if not math.prod(shape):
        return np.empty(shape, dtype.newbyteorder("="))
    values = np.frombuffer(content, dtype, offset=stream.tell())
    return values.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="))
