"""Arrays in one file: an ``.npz`` that numpy opens by itself, with equal bytes for equal content.

Its last 64 bytes are the SHA-256 of all that comes before them.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.base.storage import sha256_bytes, write_bytes
from edgetl.core.npz import read_npz

AGAIN = "run edgetl verify with --data to make it again"

_SEAL = b"sha256:"
_HEX = 64


def write_archive(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays as a compressed, sealed ``.npz``, whole or not at all.

    Raises:
        EdgetlError: the folder is read-only or the disk is full.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, array in arrays.items():
            # The first time a zip file can express; a real one would make equal content differ.
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type, member.create_system = zipfile.ZIP_DEFLATED, 3
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            archive.writestr(member, content.getvalue())
        archive.comment = _SEAL + b"0" * _HEX
    body = stream.getvalue()[:-_HEX]
    write_bytes(path, body + sha256_bytes(body).encode())


def read_archive(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read what :func:`write_archive` wrote.

    Raises:
        CertifyError: the file is missing, truncated, altered or something else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CertifyError(f"cannot read {path} ({error.strerror or error})", AGAIN) from error
    body, seal = data[:-_HEX], data[-_HEX:]
    if not body.endswith(_SEAL) or sha256_bytes(body).encode() != seal:
        raise CertifyError(f"the predictions in {path} were altered or are not whole", AGAIN)
    try:
        return read_npz(data)
    except (ValueError, OSError) as error:
        raise CertifyError(f"the predictions in {path} are of another version or none ({error})", AGAIN) from error
