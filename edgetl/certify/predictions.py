"""Predictions kept in a bundle, so that a certificate can be made again without inference.

One ``.npz`` that numpy opens by itself, with equal bytes for equal content, whose last 64 bytes are the SHA-256 of all
that comes before them.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.certify.paired import Indexes, paired_indexes
from edgetl.errors import CertifyError
from edgetl.storage import sha256_bytes, sha256_json, write_bytes

Logits = npt.NDArray[np.float16]

_SEAL = b"sha256:"
_HEX = 64
_SHA256 = re.compile(r"[0-9a-f]{64}")
_AGAIN = "run edgetl verify with --data to make it again"
_LARGEST_HALF = float(np.finfo(np.float16).max)

MOST_LOGITS = 8_000_000
"""More numbers than this for one model are not kept, so that a bundle stays small (16 MB in float16)."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What each model said about each image of the certify split.

    Attributes:
        labels: true class indexes, int64 [n].
        reference: class indexes predicted by the trained model, int64 [n].
        deployed: class indexes predicted by the deployed model, int64 [n].
        paths: path of each image relative to the data folder, with forward slashes.
        sha256: SHA-256 of each image file, 64 hexadecimal digits.
        class_names: name of each class index.
        rungs: models between the two, in order, as (name, class indexes [n]).
        reference_logits: float16 [n, classes], or None.
        deployed_logits: float16 [n, classes], or None.

    Raises:
        CertifyError: lengths differ, an index has no name, a path is absolute, a hash is none, or logits are not finite
            in float16.
    """

    labels: Indexes
    reference: Indexes
    deployed: Indexes
    paths: tuple[str, ...]
    sha256: tuple[str, ...]
    class_names: tuple[str, ...]
    rungs: tuple[tuple[str, Indexes], ...] = ()
    reference_logits: Logits | None = None
    deployed_logits: Logits | None = None

    def __post_init__(self) -> None:
        names = ("labels", "reference", "deployed")
        rungs = {f"rung '{name}'": values for name, values in self.rungs}
        arrays = paired_indexes(**{name: getattr(self, name) for name in names}, **rungs)
        for name, array in zip((*names, *rungs), arrays, strict=True):
            if int(array.max()) >= len(self.class_names):
                raise CertifyError(f"{name} holds class {int(array.max())} of {len(self.class_names)} class names")
            array.flags.writeable = False
        for name, array in zip(names, arrays[:3], strict=True):
            object.__setattr__(self, name, array)
        kept = tuple((name, array) for (name, _), array in zip(self.rungs, arrays[3:], strict=True))
        object.__setattr__(self, "rungs", kept)
        self._check_files()
        for name in ("reference_logits", "deployed_logits"):
            object.__setattr__(self, name, self._half(name))

    def _check_files(self) -> None:
        if len(self.paths) != self.n or len(self.sha256) != self.n:
            raise CertifyError(f"{self.n} labels, {len(self.paths)} paths and {len(self.sha256)} hashes do not match")
        if any(PurePosixPath(path).is_absolute() for path in self.paths):
            raise CertifyError("the path of an image is absolute", "give paths relative to the data folder")
        if not all(_SHA256.fullmatch(value) for value in self.sha256):
            raise CertifyError("the hash of an image is not a SHA-256 of 64 hexadecimal digits")

    def _half(self, name: str) -> Logits | None:
        values = getattr(self, name)
        if values is None:
            return None
        expected = (self.n, len(self.class_names))
        if np.shape(values) != expected:
            raise CertifyError(f"{name} has the shape {np.shape(values)} instead of {expected}")
        with np.errstate(over="ignore"):
            half = np.array(values, dtype="<f2")
        if not np.isfinite(half).all():
            raise CertifyError(f"{name} holds NaN or numbers beyond the range of float16 (65,504)")
        half.flags.writeable = False
        return half

    @classmethod
    def from_logits(
        cls,
        *,
        labels: npt.ArrayLike,
        reference: npt.ArrayLike,
        deployed: npt.ArrayLike,
        paths: Sequence[str],
        sha256: Sequence[str],
        classes: Sequence[str],
        rungs: Mapping[str, npt.ArrayLike] | None = None,
    ) -> Predictions:
        """Predictions from each model's logits [n, classes]; ties go to the lower index.

        The logits of reference and deployed model are kept in float16, limited to its range, unless there are more
        than ``MOST_LOGITS`` of them.

        Raises:
            CertifyError: as for the class, and if logits are NaN or have another shape than [n, classes].
        """
        shape = (len(paths), len(classes))
        before, after = _logits(reference, "reference", shape), _logits(deployed, "deployed", shape)
        kept = before.size <= MOST_LOGITS
        return cls(
            labels=np.asarray(labels),
            reference=before.argmax(axis=1),
            deployed=after.argmax(axis=1),
            paths=tuple(paths),
            sha256=tuple(sha256),
            class_names=tuple(classes),
            rungs=tuple((name, _logits(values, name, shape).argmax(axis=1)) for name, values in (rungs or {}).items()),
            reference_logits=_as_half(before) if kept else None,
            deployed_logits=_as_half(after) if kept else None,
        )

    @property
    def n(self) -> int:
        """Images."""
        return len(self.labels)

    @property
    def lost(self) -> Indexes:
        """Positions of the images that only the reference gets right, int64 [k]."""
        return np.flatnonzero((self.reference == self.labels) & (self.deployed != self.labels))

    @property
    def gained(self) -> Indexes:
        """Positions of the images that only the deployed model gets right, int64 [k]."""
        return np.flatnonzero((self.reference != self.labels) & (self.deployed == self.labels))

    def digest(self) -> str:
        """SHA-256 of the content, the same wherever and with whatever compression it was saved."""
        return sha256_json({name: sha256_bytes(array.tobytes()) for name, array in self._arrays().items()})

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz``, whole or not at all; equal content gives equal bytes.

        Raises:
            EdgetlError: the folder is read-only or the disk is full.
        """
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for name, array in self._arrays().items():
                # The first time a zip file can express; a real one would make equal content differ.
                member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
                member.compress_type, member.create_system = zipfile.ZIP_DEFLATED, 3
                content = io.BytesIO()
                np.lib.format.write_array(content, array, allow_pickle=False)
                archive.writestr(member, content.getvalue())
            archive.comment = _SEAL + b"0" * _HEX
        body = stream.getvalue()[:-_HEX]
        write_bytes(path, body + sha256_bytes(body).encode())

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what :meth:`save` wrote.

        Raises:
            CertifyError: the file is missing, truncated, altered or something else.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CertifyError(f"cannot read {path} ({error.strerror or error})", _AGAIN) from error
        body, seal = data[:-_HEX], data[-_HEX:]
        if not body.endswith(_SEAL) or sha256_bytes(body).encode() != seal:
            raise CertifyError(f"the predictions in {path} were altered or are not whole", _AGAIN)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            return cls(**_fields(arrays))
        except (KeyError, TypeError, ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise CertifyError(f"the predictions in {path} are of another version or none ({error})", _AGAIN) from error

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        arrays: dict[str, npt.NDArray[Any]] = {
            "paths": np.array(self.paths, dtype="<U"),
            "class_names": np.array(self.class_names, dtype="<U"),
            "rungs": np.array([name for name, _ in self.rungs], dtype="<U1" if not self.rungs else "<U"),
            "sha256": np.frombuffer(bytes.fromhex("".join(self.sha256)), dtype=np.uint8).reshape(-1, 32),
            "labels": self.labels.astype("<i4"),
            "reference": self.reference.astype("<i4"),
            "deployed": self.deployed.astype("<i4"),
        }
        arrays |= {f"rung{i}": values.astype("<i4") for i, (_, values) in enumerate(self.rungs)}
        logits = {"reference_logits": self.reference_logits, "deployed_logits": self.deployed_logits}
        return arrays | {name: values for name, values in logits.items() if values is not None}


def _fields(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    digits = arrays["sha256"].tobytes().hex()
    return {
        "labels": arrays["labels"],
        "reference": arrays["reference"],
        "deployed": arrays["deployed"],
        "paths": tuple(arrays["paths"].tolist()),
        "sha256": tuple(digits[i : i + _HEX] for i in range(0, len(digits), _HEX)),
        "class_names": tuple(arrays["class_names"].tolist()),
        "rungs": tuple((name, arrays[f"rung{i}"]) for i, name in enumerate(arrays["rungs"].tolist())),
        "reference_logits": arrays.get("reference_logits"),
        "deployed_logits": arrays.get("deployed_logits"),
    }


def _logits(values: npt.ArrayLike, name: str, shape: tuple[int, int]) -> npt.NDArray[np.floating[Any]]:
    array = np.asarray(values)
    if array.shape != shape:
        raise CertifyError(f"the logits of {name} have the shape {array.shape} instead of {shape} (images, classes)")
    broken = int(np.isnan(array).any(axis=1).sum()) if array.dtype.kind == "f" else 0
    if broken:
        raise CertifyError(
            f"the logits of {name} are NaN for {broken} of {len(array)} images",
            "the model is numerically broken: try another precision",
        )
    return array


def _as_half(logits: npt.NDArray[Any]) -> Logits:
    return np.asarray(np.clip(logits, -_LARGEST_HALF, _LARGEST_HALF), dtype=np.float16)
