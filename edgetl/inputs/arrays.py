"""Reading numpy's files from anywhere: no pickles, no more memory than a stated limit, numbers that are finite."""

from __future__ import annotations

import hashlib
import io
import math
import os
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from edgetl.base.errors import DataError
from edgetl.base.parallel import PARSING

#: Most bytes of one sample's arrays.
MOST_BYTES = 1 << 28
Array = npt.NDArray[Any]


def read_arrays(source: Path | bytes, only: str, most: int = MOST_BYTES) -> dict[str, Array]:
    """The arrays of an .npy file, called ``only``, or of an .npz file, by their names.

    Args:
        source: the file, or its bytes.
        only: the name of an array that has none.
        most: bytes that an .npz file may unpack to.

    Raises:
        DataError: missing, damaged, too large, or with Python objects in it.
    """
    name = str(source) if isinstance(source, Path) else "the file"
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
            if stream.read(2) == b"PK":
                return _zipped(stream, most)
            size = stream.seek(0, os.SEEK_END)
            stream.seek(0)
            return {only: _array(stream, size)}
    except DataError as error:
        raise DataError(f"{name} {error.what}", error.remedy) from error
    except FileNotFoundError as error:
        raise DataError(f"there is no array {name}", "restore the file or make the run again") from error
    except Exception as error:  # damaged bytes lead zipfile and numpy into errors of many kinds
        raise DataError(f"{name} is no .npy or .npz file, or damaged ({error})", "remove it or replace it") from error


def _zipped(file: IO[bytes], most: int) -> dict[str, Array]:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > most:
            raise DataError(f"unpacks to more than {most} bytes", "split it or remove it")
        held = {}
        for member in members:
            with archive.open(member) as stream:
                held[member.filename.removesuffix(".npy")] = _array(stream, member.file_size)
    return held


def _array(stream: IO[bytes], size: int) -> Array:
    """One array, once its header is believed: what it announces is what there is to read."""
    version = npy.read_magic(stream)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise DataError(f"is of the .npy format {version[0]}.{version[1]}", "save it again as plain numbers")
    with PARSING:
        shape, fortran, dtype = readers[version](stream)
    if dtype.hasobject or dtype.kind not in "buif":
        raise DataError(f"holds {dtype}, no numbers", "save integers or floats")
    count = math.prod(shape)
    announced = count * dtype.itemsize
    if announced > MOST_BYTES:
        raise DataError(f"holds more than {MOST_BYTES} bytes", "split it or remove it")
    if announced > size:
        raise DataError(f"announces {announced} bytes and has {size}", "it is cut off: replace it")
    content = stream.read(announced)
    if len(content) < announced:
        raise DataError(f"announces {announced} bytes and has {len(content)}", "it is cut off: replace it")
    flat = np.frombuffer(content, dtype, count)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def plain(values: Array, where: str) -> Array:
    """The same array, if it holds finite real numbers that float32 can hold.

    Raises:
        DataError: it does not.
    """
    if values.dtype.kind not in "buif":
        raise DataError(f"{where} holds {values.dtype}, no numbers", "give integers or floats")
    with np.errstate(over="ignore", invalid="ignore"):
        fits = bool((np.abs(values.astype(np.float64)) <= np.finfo(np.float32).max).all())
    if not fits:
        bad = "a value that is no number or too large for float32"
        raise DataError(f"{where} holds {bad}", "remove it or replace it")
    return values


def fingerprint(path: Path, only: str) -> str:
    """SHA-256 over names, types, shapes and values, in whatever order the file keeps them.

    Raises:
        DataError: missing or damaged, or with values that are no finite numbers.
    """
    digest = hashlib.sha256()
    held = read_arrays(path, only)
    for name in sorted(held):
        values = plain(held[name], str(path))
        digest.update(f"{name} {values.dtype.newbyteorder('<').str} {values.shape} ".encode())
        digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
