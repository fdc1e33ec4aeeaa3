"""Predictions kept in a bundle, so that a certificate can be made again without inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError
from edgetl.base.storage import sha256_bytes, sha256_json
from edgetl.certify.archive import AGAIN, read_archive, write_archive
from edgetl.certify.gain import Baseline
from edgetl.certify.paired import Indexes, paired_indexes
from edgetl.certify.probabilities import LogitEvidence, Step, logit_evidence

Logits = npt.NDArray[np.float16]

_HEX = 64
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
        baseline: predictions of the model that the transfer is measured against, or None.
        evidence: what the logits of all models said before they were rounded or dropped; without it, as in older
            files, it comes from the logits that were kept.

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
    baseline: Baseline | None = None
    evidence: LogitEvidence | None = None

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
        self._check_more()
        for name in ("reference_logits", "deployed_logits"):
            object.__setattr__(self, name, self._half(name))

    def _check_files(self) -> None:
        if len(self.paths) != self.n or len(self.sha256) != self.n:
            raise CertifyError(f"{self.n} labels, {len(self.paths)} paths and {len(self.sha256)} hashes do not match")
        if any(path.startswith("/") for path in self.paths):
            raise CertifyError("the path of an image is absolute", "give paths relative to the data folder")
        # All at once: a match for each takes 80 ms on 50,000 images.
        digits = "".join(self.sha256)
        if set(map(len, self.sha256)) != {_HEX} or not _is_hex(digits):
            raise CertifyError("the hash of an image is not a SHA-256 of 64 hexadecimal digits")

    def _check_more(self) -> None:
        if self.baseline is not None:
            answers = paired_indexes(labels=self.labels, baseline=self.baseline.predictions)[1]
            if int(answers.max()) >= len(self.class_names):
                raise CertifyError(f"baseline holds class {int(answers.max())} of {len(self.class_names)} class names")
            answers.flags.writeable = False
            object.__setattr__(self, "baseline", Baseline(self.baseline.kind, answers))
        if self.evidence is not None and self.evidence.per_image is not None and len(self.evidence.per_image) != self.n:
            raise CertifyError(f"{self.n} labels and {len(self.evidence.per_image)} rows of per_image do not match")

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
        baseline: tuple[str, npt.ArrayLike] | None = None,
    ) -> Predictions:
        """Predictions from each model's logits [n, classes]; ties go to the lower index.

        The logits of reference and deployed model are kept in float16, limited to its range, unless there are more
        than ``MOST_LOGITS`` of them. Of the rungs only how far they are from each other is kept. ``baseline`` is its
        kind (scratch or probe) and its logits.

        Raises:
            CertifyError: as for the class, and if logits are NaN or have another shape than [n, classes].
        """
        shape = (len(paths), len(classes))
        before, after = _logits(reference, "reference", shape), _logits(deployed, "deployed", shape)
        kept = before.size <= MOST_LOGITS
        between = {name: _logits(values, name, shape) for name, values in (rungs or {}).items()}
        models = {"reference": before, **between, "deployed": after}
        truth = paired_indexes(labels=labels)[0]
        return cls(
            labels=truth,
            reference=before.argmax(axis=1),
            deployed=after.argmax(axis=1),
            paths=tuple(paths),
            sha256=tuple(sha256),
            class_names=tuple(classes),
            rungs=tuple((name, values.argmax(axis=1)) for name, values in between.items()),
            reference_logits=_as_half(before) if kept else None,
            deployed_logits=_as_half(after) if kept else None,
            baseline=baseline and Baseline(baseline[0], _logits(baseline[1], "baseline", shape).argmax(axis=1)),
            evidence=logit_evidence(models, truth, list(models)),
        )

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of :func:`edgetl.certify.certify` that the predictions know of."""
        evidence = self.evidence
        if evidence is None and self.reference_logits is not None and self.deployed_logits is not None:
            pair = {"reference": self.reference_logits, "deployed": self.deployed_logits}
            order = ["reference", *(name for name, _ in self.rungs), "deployed"]
            evidence = logit_evidence(pair, self.labels, order)
        return {
            "reference": self.reference,
            "deployed": self.deployed,
            "labels": self.labels,
            "class_names": self.class_names,
            "rungs": self.rungs,
            "logits": evidence,
            "baseline": self.baseline,
        }

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
        write_archive(path, self._arrays())

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what :meth:`save` wrote.

        Raises:
            CertifyError: the file is missing, truncated, altered or something else.
        """
        try:
            return cls(**_fields(read_archive(path)))
        except (KeyError, TypeError, ValueError) as error:
            raise CertifyError(f"the predictions in {path} are of another version or none ({error})", AGAIN) from error

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
        if self.baseline is not None:
            arrays["baseline"] = np.asarray(self.baseline.predictions, dtype="<i4")
            arrays["baseline_kind"] = np.array(self.baseline.kind)
        if self.evidence is not None:
            steps = self.evidence.steps
            arrays["steps"] = np.array(list(steps), dtype="<U" if steps else "<U1")
            arrays["distances"] = np.array([(s.logit_distance, s.kl) for s in steps.values()], "<f8").reshape(-1, 2)
        more = {
            "reference_logits": self.reference_logits,
            "deployed_logits": self.deployed_logits,
            "per_image": None if self.evidence is None else self.evidence.per_image,
        }
        return arrays | {name: values for name, values in more.items() if values is not None}


def _is_hex(digits: str) -> bool:
    try:
        return bytes.fromhex(digits).hex() == digits
    except ValueError:
        return False


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
        "baseline": Baseline(str(arrays["baseline_kind"]), arrays["baseline"]) if "baseline" in arrays else None,
        "evidence": _evidence(arrays) if "steps" in arrays else None,
    }


def _evidence(arrays: Mapping[str, npt.NDArray[Any]]) -> LogitEvidence:
    pairs = zip(arrays["steps"].tolist(), arrays["distances"].tolist(), strict=True)
    return LogitEvidence(arrays.get("per_image"), {name: Step(*figures) for name, figures in pairs})


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
