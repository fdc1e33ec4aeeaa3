"""Named arrays on their way from a device to the machine that asked, as an uncompressed ``.npz``.

What a device answers is not trusted: nothing is unpickled or decompressed, and nothing larger than what arrived is
allocated.
"""

from __future__ import annotations

import io
import math
import zipfile
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from edgetl.core.tensors import Arrays

_SUFFIX = ".npy"
#: Kinds of numpy types that travel: bool, signed, unsigned, floating.
_KINDS = "biuf"


def write_arrays(stream: IO[bytes], arrays: Arrays) -> None:
    """Write named arrays; numpy.load reads them too."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, values in arrays.items():
            with archive.open(name + _SUFFIX, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(values), allow_pickle=False)


def read_arrays(data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Read what :func:`write_arrays` wrote.

    Raises:
        ValueError: it is not whole, or holds something else: objects, texts, compressed members, a name twice.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            # Members may lie upon each other: many large ones in a small file.
            if sum(member.file_size for member in members) > len(data):
                raise ValueError("its members are larger than it")
            found = {member.filename.removesuffix(_SUFFIX): _array(archive, member) for member in members}
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ValueError(str(error)) from error
    if len(found) != len(members):
        raise ValueError("a name stands there twice")
    return found


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    if member.compress_type != zipfile.ZIP_STORED or not member.filename.endswith(_SUFFIX):
        raise ValueError(f"{member.filename!a} is no plain array")
    # A member says how large it is; what is stored uncompressed cannot be larger than the archive that holds it.
    content = archive.read(member)
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"{member.filename!a} is of version {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in _KINDS or dtype.hasobject:
        raise ValueError(f"{member.filename!a} holds {dtype}, no numbers")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"{member.filename!a} says to be of shape {shape} and holds {len(content)} bytes")
    values = np.frombuffer(content, dtype, offset=stream.tell())
    return values.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="))
