"""``manifest.json`` of a bundle, as a value: what it was made from and for, and the hash of every file in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgetl.base.errors import BundleError
from edgetl.base.names import check_name
from edgetl.base.schema import Json, from_json
from edgetl.base.storage import read_sealed
from edgetl.core.adaptation import Adaptation
from edgetl.core.adoption import Adoption
from edgetl.core.compression import Quantization, RepairRecord
from edgetl.core.target import Target

SCHEMA: Literal[3] = 3


@dataclass(frozen=True)
class FileEntry:
    """A file of a bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class ArtifactEntry:
    """A model of a bundle: ``file`` is the one that its runtime opens, ``bytes`` are of all that belong to it."""

    backend: str
    file: str
    precision: str
    device: str
    bytes: int


@dataclass(frozen=True)
class OpenHead:
    """A head of class means that stands open in the deployed artifact: classes can be added to it on the device.

    Attributes:
        kind: of the head, as a strategy names it.
        file: of the bundle, with its rows and the rule that makes them (:mod:`edgetl.core.head_file`).
        weight, bias: what they are called in the artifact.
        transposed: whether the artifact has the weight as (features, classes).
        features: numbers that the head reads.
    """

    kind: str
    file: str
    weight: str
    bias: str
    transposed: bool
    features: int


@dataclass(frozen=True)
class TrainedRun:
    """The run that a bundle was made from.

    Attributes:
        digest: :attr:`edgetl.core.run.Run.digest`.
        weights_sha256: of the trained weights.
        backbone, strategy: as in ``edgetl backbones`` and ``edgetl strategies``; "" where it was trained elsewhere.
        settings, metrics: as in ``run.json``.
        input: how a file became the network's input in training, as :func:`edgetl.inputs.input_of` reads it.
        classes: their names, in the order of the outputs that the network was trained with.
        adoption: of a model that was trained elsewhere; None for one of edgetl's own.
        adaptation: of a model that was adapted to a target domain.
    """

    digest: str = ""
    weights_sha256: str = ""
    backbone: str = ""
    strategy: str = ""
    settings: Mapping[str, Json] = field(default_factory=dict)
    metrics: Mapping[str, Json] = field(default_factory=dict)
    input: Mapping[str, Json] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    adoption: Adoption | None = None
    adaptation: Adaptation | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What every certificate of it has to say, a sentence each."""
        return tuple(note for part in (self.adoption, self.adaptation) if part is not None for note in part.notes)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle is.

    Attributes:
        target: what it is made for.
        name: the target as the user named it; the bundle's folder is called so.
        key: SHA-256 over everything that its content depends on; "" where it was not exported from a run.
        task: key into :data:`edgetl.tasks.TASKS`.
        run: what was trained; None where a bundle is only for timing.
        lineage: source of the pretrained weights, their hash and licence, versions, command line.
        quantization: how the deployed model came about; None where nobody knows.
        repair: what was tried to mend it, without times; None where nothing was.
        parity: how closely the exported graph follows the trained model.
        versions: of the packages that made it; None for those that were not installed.
        exported: the trained model as float ONNX, a file of the bundle; "" where there is none.
        source: the float ONNX file that was compressed; it is ``exported`` unless repair changed its weights first.
        request: what export was asked for besides run and target: precision, selection, size, batch, margin, minutes,
            as far as the bundle depends on them; empty in bundles from before this was kept.
        pair: digests of the two bundles whose artifacts this one holds to be timed in turn.
        head: to which classes can be added; None where it is fixed.
        splits: SHA-256 of classes, samples, labels and splits (:attr:`edgetl.core.data.Dataset.digest`).
        files: every file of the bundle, but for the records that are made later.
        artifacts: by role: ``deployed``, ``float``, ``against``.
        digest: SHA-256 of all of this; it names the bundle.
    """

    target: Target
    name: str = ""
    key: str = ""
    task: str = "classification"
    run: TrainedRun | None = None
    lineage: Mapping[str, Json] = field(default_factory=dict)
    quantization: Quantization | None = None
    repair: RepairRecord | None = None
    parity: Mapping[str, Json] = field(default_factory=dict)
    versions: Mapping[str, str | None] = field(default_factory=dict)
    exported: str = ""
    source: str = ""
    request: Mapping[str, Json] = field(default_factory=dict)
    pair: tuple[str, ...] = ()
    head: OpenHead | None = None
    splits: str = ""
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    artifacts: Mapping[str, ArtifactEntry] = field(default_factory=dict)
    schema: Literal[3] = SCHEMA
    digest: str = ""


def read_manifest(file: Path) -> Manifest:
    """Read ``manifest.json``.

    Raises:
        BundleError: altered, of another schema or shape, or it names a file that lies elsewhere or a model that it has
            no hash of.
    """
    record = read_sealed(file, BundleError)
    if record.get("schema") != SCHEMA:
        raise BundleError(
            f"{file.parent} is a bundle of schema {record.get('schema')!r:.20}, and this edgetl reads {SCHEMA}",
            "export it again",
        )
    manifest = from_json(Manifest, record, file, BundleError, "export it again")
    if "deployed" not in manifest.artifacts:
        raise BundleError(f"{file} names no deployed model", "export it again")
    models = [*(entry.file for entry in manifest.artifacts.values()), manifest.exported, manifest.source]
    for name in (*manifest.files, *filter(None, models)):
        try:
            check_name(name)
        except ValueError as error:
            raise BundleError(f"{file}: {error}", "use no bundle that names such files") from error
    if manifest.head is not None and manifest.head.file not in manifest.files:
        raise BundleError(f"{file} names the head {manifest.head.file!a:.100} and has no hash of it", "export it again")
    for name in models:
        if name and name not in manifest.files:
            raise BundleError(f"{file} names the model {name!a} and has no hash of it", "export it again")
    return manifest
