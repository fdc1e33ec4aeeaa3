"""Named arrays on their way from a device to the machine that asked, as an uncompressed ``.npz``.

What a device answers is not trusted: nothing is unpickled or decompressed, and nothing larger than what arrived is
allocated.
"""

from __future__ import annotations

import zipfile
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from edgetl.core.npz import NUMBERS, read_npz
from edgetl.core.tensors import Arrays

_SUFFIX = ".npy"


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
    # Members may lie upon each other: many large ones in a small file. What is stored uncompressed cannot.
    return read_npz(data, kinds=NUMBERS, how=(zipfile.ZIP_STORED,), most=len(data))
