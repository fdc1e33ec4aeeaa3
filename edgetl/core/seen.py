"""Which samples a model was trained and validated on, as hashes alone: ``seen.bin`` of a bundle.

A bundle takes no list of them along, but whatever is to certify it must not be among them. Eight bytes of a SHA-256
tell 50,000 samples from a million others with an error of one in 10^8.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from edgetl.base.errors import BundleError
from edgetl.base.storage import write_bytes
from edgetl.core.bundle import SEEN, Bundle
from edgetl.core.data import Sample

_BYTES = 8
#: Splits that a model has seen, in training or in any choice; certify samples are held back from all of it.
SPLITS_SEEN = ("train", "val", "calibration", "search")


def write_seen(folder: Path, samples: Iterable[Sample]) -> None:
    """Write the beginnings of the hashes of samples, of their files and of what these hold once decoded, in order."""
    write_bytes(folder / SEEN, bytes.fromhex("".join(sorted(_starts(samples)))))


class Seen:
    """What a bundle's model has seen.

    Args:
        bundle: opened and checked.

    Attributes:
        complete: whether the bundle says what was trained on; those from before this was kept do not.

    Raises:
        BundleError: the list is damaged.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.complete = SEEN in bundle.manifest.files
        content = bundle.file(SEEN).read_bytes() if self.complete else b""
        if len(content) % _BYTES:
            raise BundleError(f"{bundle.path / SEEN} is no list of hashes", "export the bundle again")
        self._seen = {content[at : at + _BYTES].hex() for at in range(0, len(content), _BYTES)}
        self._seen |= _starts(sample for sample in bundle.dataset.samples if sample.split in SPLITS_SEEN)

    def __contains__(self, digest: str) -> bool:
        """Whether a file's SHA-256, or that of what it holds, is of a sample that was seen."""
        return digest[: 2 * _BYTES] in self._seen


def _starts(samples: Iterable[Sample]) -> set[str]:
    """The first hexadecimal digits of both hashes of each sample; those that are none are left out."""
    digests = (digest for sample in samples for digest in (sample.sha256, sample.pixels))
    return {digest[: 2 * _BYTES] for digest in digests if re.fullmatch("[0-9a-f]{64}", digest)}
