"""Predictions kept in a bundle, so that a certificate can be made again without inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CertifyError, UnknownNameError
from edgetl.base.storage import sha256_bytes, sha256_json
from edgetl.certify.archive import AGAIN, read_archive, write_archive
from edgetl.certify.checks import DEPLOYED, REFERENCE, checked
from edgetl.certify.gain import Baseline
from edgetl.certify.groups import group_indexes
from edgetl.certify.paired import Indexes, paired_indexes
from edgetl.certify.predictions_file import from_arrays, kept, to_arrays
from edgetl.certify.probabilities import LogitEvidence, logit_evidence
from edgetl.core.tensors import Arrays
from edgetl.tasks import Task, find_task

Array = npt.NDArray[Any]
Logits = npt.NDArray[np.float16]

_HEX = 64
_LARGEST_HALF = float(np.finfo(np.float16).max)

MOST_LOGITS = 8_000_000
"""More numbers than this for one model are not kept beside its classes, so that a bundle stays small (16 MB)."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What each model said about each sample of the certify split.

    Attributes:
        task: what the models are for, a key of :data:`edgetl.tasks.TASKS`.
        labels: the truth, as the task's kind of label has it.
        models: answers by name: "reference", the rungs below it in order, "deployed"; see
            :func:`edgetl.certify.predictions_file.kept`.
        paths: path of each sample relative to the data folder, with forward slashes.
        sha256: SHA-256 of each sample's file, 64 hexadecimal digits.
        class_names: name of each class or label.
        reference_logits: of classes, float16 [n, classes], or None.
        deployed_logits: likewise.
        baseline: predictions of the model that the transfer is measured against, or None.
        evidence: what the logits of all models said before they were rounded or dropped; without it, as in older
            files, it comes from the logits that were kept.
        groups: of each sample, from 0 up, int64 [n]; None where each is independent of all others.

    Raises:
        CertifyError: lengths differ, an index has no name, a path is absolute, a hash is none, or logits are not finite
            in float16.
    """

    task: str
    labels: Array
    models: Mapping[str, Arrays]
    paths: tuple[str, ...]
    sha256: tuple[str, ...]
    class_names: tuple[str, ...]
    reference_logits: Logits | None = None
    deployed_logits: Logits | None = None
    baseline: Baseline | None = None
    evidence: LogitEvidence | None = None
    groups: Indexes | None = None

    def __post_init__(self) -> None:
        names = kept(self._task)
        # Copies, because they are made read-only.
        own = {name: {key: np.array(answers[key]) for key in names} for name, answers in self.models.items()}
        labels, models, _ = checked(self._task, np.array(self.labels), own, self.class_names)
        for array in (labels, *(array for answers in models.values() for array in answers.values())):
            array.flags.writeable = False
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "models", models)
        self._check_files()
        self._check_more()
        groups = group_indexes(self.groups, self.n)
        if groups is not None:
            groups.flags.writeable = False
        object.__setattr__(self, "groups", groups)
        for name in ("reference_logits", "deployed_logits"):
            object.__setattr__(self, name, self._half(name))

    @property
    def _task(self) -> Task:
        return find_task(self.task)

    def _check_files(self) -> None:
        if len(self.paths) != self.n or len(self.sha256) != self.n:
            raise CertifyError(f"{self.n} labels, {len(self.paths)} paths and {len(self.sha256)} hashes do not match")
        if any(path.startswith("/") for path in self.paths):
            raise CertifyError("the path of a sample is absolute", "give paths relative to the data folder")
        # All at once: a match for each takes 80 ms on 50,000 samples.
        digits = "".join(self.sha256)
        if set(map(len, self.sha256)) != {_HEX} or not _is_hex(digits):
            raise CertifyError("the hash of a sample is not a SHA-256 of 64 hexadecimal digits")

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
    def from_outputs(
        cls,
        task: Task,
        *,
        labels: npt.ArrayLike,
        outputs: Mapping[str, Arrays],
        paths: Sequence[str],
        sha256: Sequence[str],
        classes: Sequence[str],
        options: Mapping[str, Any] | None = None,
        baseline: tuple[str, Arrays] | None = None,
        groups: Indexes | None = None,
    ) -> Predictions:
        """Predictions from each model's outputs.

        Of classes the logits of reference and deployed model are kept in float16, limited to its range, unless there
        are more than ``MOST_LOGITS`` of them; of the rungs only how far they are from each other is kept.

        Args:
            task: what the models are for.
            labels: the truth.
            outputs: of the network, by model: "reference", the rungs below it in order, "deployed".
            paths, sha256: of the samples' files.
            classes: names of the classes or labels.
            options: of ``task.decode``.
            baseline: its kind (scratch or probe) and its outputs; left out where the task has no accuracy.
            groups: of each sample, from 0 up, int64 [n], or None.

        Raises:
            CertifyError: as for the class, and if outputs are NaN or of another shape.
        """
        arrays = {name: _checked(task, given, name, len(paths), classes) for name, given in outputs.items()}
        answers = {name: task.decode(given, options or {}) for name, given in arrays.items()}
        own = None
        if baseline is not None and task.has_accuracy:
            given = _checked(task, baseline[1], "baseline", len(paths), classes)
            own = Baseline(baseline[0], task.decode(given, options or {})["class"])
        logits = _kept_logits(task, arrays, labels)
        return cls(
            task=task.name,
            labels=np.asarray(labels),
            models=answers,
            paths=tuple(paths),
            sha256=tuple(sha256),
            class_names=tuple(classes),
            baseline=own,
            groups=groups,
            **logits,
        )

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of :func:`edgetl.certify.certify_answers` that the predictions know of."""
        evidence = self.evidence
        if evidence is None and self.reference_logits is not None and self.deployed_logits is not None:
            pair = {REFERENCE: self.reference_logits, DEPLOYED: self.deployed_logits}
            evidence = logit_evidence(pair, self.labels, list(self.models))
        return {
            "task": self._task,
            "labels": self.labels,
            "models": self.models,
            "names": self.class_names,
            "logits": evidence,
            "baseline": self.baseline,
            "groups": self.groups,
        }

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.labels)

    @property
    def lost(self) -> Indexes:
        """Positions of the samples that only the reference gets right, int64 [k]; none where nothing is right."""
        before, after = self._right()
        return np.flatnonzero(before & ~after)

    @property
    def gained(self) -> Indexes:
        """Positions of the samples that only the deployed model gets right, int64 [k]."""
        before, after = self._right()
        return np.flatnonzero(~before & after)

    def _right(self) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        right = self._task.metrics[self._task.exact].right if self._task.exact else None
        if right is None:
            return np.zeros(self.n, bool), np.zeros(self.n, bool)
        before, after = (right(self._task.evidence(self.models[m], self.labels)) for m in (REFERENCE, DEPLOYED))
        return before, after

    def digest(self) -> str:
        """SHA-256 of the content, the same wherever and with whatever compression it was saved."""
        return sha256_json({name: sha256_bytes(array.tobytes()) for name, array in to_arrays(self).items()})

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz``, whole or not at all; equal content gives equal bytes.

        Raises:
            EdgetlError: the folder is read-only or the disk is full.
        """
        write_archive(path, to_arrays(self))

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what :meth:`save` wrote.

        Raises:
            CertifyError: the file is missing, truncated, altered or something else.
        """
        try:
            return cls(**from_arrays(read_archive(path)))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, UnknownNameError) as error:
            raise CertifyError(f"the predictions in {path} are of another version or none ({error})", AGAIN) from error


def _checked(task: Task, outputs: Arrays, model: str, n: int, classes: Sequence[str]) -> dict[str, Array]:
    """A model's outputs, in the shapes that the task names."""
    found = {}
    for spec in task.outputs(classes):
        expected = (n, *spec.shape[1:])
        array = found[spec.name] = np.asarray(outputs.get(spec.name, ()))
        if array.shape != expected:
            raise CertifyError(f"the {spec.name} of {model} have the shape {array.shape} instead of {expected}")
        broken = int(np.isnan(array).any(axis=1).sum()) if array.dtype.kind == "f" else 0
        if broken:
            raise CertifyError(
                f"the {spec.name} of {model} are NaN for {broken} of {n} samples",
                "the model is numerically broken: try another precision",
            )
    return found


def _kept_logits(task: Task, outputs: Mapping[str, dict[str, Array]], labels: npt.ArrayLike) -> dict[str, Any]:
    """What is kept of logits beside the classes that they give."""
    if task.labels != "class":
        return {}
    logits = {name: given["logits"] for name, given in outputs.items()}
    half = logits[REFERENCE].size <= MOST_LOGITS
    return {
        "reference_logits": _as_half(logits[REFERENCE]) if half else None,
        "deployed_logits": _as_half(logits[DEPLOYED]) if half else None,
        "evidence": logit_evidence(logits, paired_indexes(labels=labels)[0], list(logits)),
    }


def _as_half(logits: Array) -> Logits:
    return np.asarray(np.clip(logits, -_LARGEST_HALF, _LARGEST_HALF), dtype=np.float16)


def _is_hex(digits: str) -> bool:
    try:
        return bytes.fromhex(digits).hex() == digits
    except ValueError:
        return False
