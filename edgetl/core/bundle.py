"""A Bundle: what goes to the device, as a folder.

    manifest.json     sealed: schema, target, artifacts, quantization, lineage, SHA-256 and size of every file
    labels.json       class names in the order of the logits
    preprocess.json   the one definition of the input; what it needs besides (tokenizer.json) lies beside it
    splits.json       classes and every image with hash, label and split
    calibration.json  which images gave the ranges; seen.bin: hashes of those that were trained and validated on
    golden.npz        a few samples (in.NAME) and the outputs that this artifact gave for them (out.NAME): the self-test
    reference.npz     outputs on the certify split: the trained model's (reference.NAME), its float ONNX file's
                      (exported.NAME), its baseline's (baseline.NAME)
    layers.json       what quantization does to each layer by itself, the worst first
    model/            the deployed artifact
    float/            its float twin for the same runtime: the yardstick of ``edgetl bench``
    exported/         the float ONNX file that all was made from, where the twin is not that very file
    kit/              how it is run on its target: README.md, examples in C and C++ with the runner's sources, a service
    certificate.json, predictions.npz, bench.json, repair.json (where the model had to be mended)   records
    sketch.json                 what the certify samples are like, for edgetl monitor: written with the certificate
    agreement.npz, to_label.csv, to_label.html   answers to samples without labels, and those that want one
    head.bin          of a head that stands open: its rows, and the rule that makes them
    enrolled.head     classes that were added to it on the device; in no manifest (:mod:`edgetl.runtime.open_head`)
    bom.cdx.json, MODEL_CARD.md   what the certificate says, for whoever asks for papers: written anew with it
    signature.json, signature.sig   where somebody vouches for it (see :mod:`edgetl.core.signature`)

Records are not in the manifest, because they hold times or are made later, on the device too; each is sealed by itself
and names the manifest's digest, so it belongs to exactly one bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

from edgetl.base.errors import BundleError, CertifyError
from edgetl.base.schema import Json, from_json, to_json
from edgetl.base.storage import read_json, read_sealed, sha256_file, write_sealed
from edgetl.core import artifact as artifacts
from edgetl.core.bench import BenchRecord
from edgetl.core.bill import read_bill
from edgetl.core.bundle_files import NO_ROOT, check_files, file_of, samples_root
from edgetl.core.certificate import Certificate
from edgetl.core.compression import Calibration, LayerNoise, RepairRecord
from edgetl.core.data import Dataset, digest_of
from edgetl.core.manifest import ArtifactEntry, FileEntry, Manifest, read_manifest
from edgetl.core.signature import (
    ENROLLED,
    ENROLLED_PARTIAL,
    SIGNATURE,
    STATEMENT,
    check_signature,
    read_public_key,
)
from edgetl.core.sketch import AGAIN, Sketch

MANIFEST = "manifest.json"
LABELS = "labels.json"
PREPROCESS_FILE = "preprocess.json"
SPLITS_FILE = "splits.json"
CALIBRATION, SEEN = "calibration.json", "seen.bin"
GOLDEN = "golden.npz"
REFERENCE = "reference.npz"
LAYERS = "layers.json"
EXPORTED = "exported/model.onnx"
SOURCE = "exported/source.onnx"
CERTIFICATE = "certificate.json"
PREDICTIONS = "predictions.npz"
BENCH = "bench.json"
REPAIR = "repair.json"
BILL, MODEL_CARD = "bom.cdx.json", "MODEL_CARD.md"
SKETCH = "sketch.json"
AGREEMENT, TO_LABEL, LABEL_PAGE = "agreement.npz", "to_label.csv", "to_label.html"
RECORDS = (CERTIFICATE, PREDICTIONS, BENCH, REPAIR, BILL, MODEL_CARD, SKETCH, AGREEMENT, TO_LABEL, LABEL_PAGE)
HEAD = "head.bin"

#: What a manifest does not list.
_LATER = (MANIFEST, *RECORDS, STATEMENT, SIGNATURE, ENROLLED, ENROLLED_PARTIAL)

Artifact = artifacts.Artifact
_T = TypeVar("_T")
Precision = Literal["int8", "fp16", "fp32"]
PRECISIONS: tuple[Precision, ...] = ("int8", "fp16", "fp32")


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose files match its manifest.

    Attributes:
        path: its folder.
        manifest: what it is.
        signed_by: the public key, 64 hexadecimal digits, by which all of it is signed; "" where nobody asked.
    """

    path: Path
    manifest: Manifest
    signed_by: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 that names this bundle; certificate and benchmark refer to it."""
        return self.manifest.digest

    @property
    def target(self) -> str:
        """Canonical name of the target."""
        return self.manifest.target.name

    @property
    def precision(self) -> str:
        """What the deployed artifact was compressed to."""
        return self.artifact("deployed").precision

    @property
    def input_record(self) -> Mapping[str, Json]:
        """How a file becomes the network's input, as :func:`edgetl.inputs.input_of` reads it."""
        return self._read(PREPROCESS_FILE, dict[str, Json])

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        return self._read(LABELS, tuple[str, ...])

    @cached_property
    def dataset(self) -> Dataset:
        """The samples behind the bundle, with their splits; its root is empty where nobody knows where they lie now."""
        listed = Dataset.from_json(read_json(self.file(SPLITS_FILE), BundleError), self.path / SPLITS_FILE)
        return listed if str(listed.root) != NO_ROOT else replace(listed, root=samples_root(self.path, self.splits))

    @property
    def splits(self) -> str:
        """SHA-256 that names classes, images, labels and splits (:attr:`Dataset.digest`)."""
        return self.manifest.splits or digest_of(read_json(self.file(SPLITS_FILE), BundleError))

    @property
    def calibration(self) -> Calibration:
        """Which samples gave the ranges."""
        return self._read(CALIBRATION, Calibration)

    @property
    def layers(self) -> tuple[LayerNoise, ...]:
        """What quantization does to each layer by itself, the worst first; empty for a float bundle."""
        return self._read(LAYERS, tuple[LayerNoise, ...])

    @property
    def repair(self) -> RepairRecord | None:
        """What was tried to mend the model, with times where they were kept; None where nothing was."""
        record = self.record(REPAIR)
        return self.manifest.repair if record is None else self._checked(RepairRecord, record, REPAIR)

    @property
    def bench(self) -> BenchRecord | None:
        """What was timed; None where nothing was."""
        record = self.record(BENCH)
        return None if record is None else self._checked(BenchRecord, record, BENCH, "bench this bundle again")

    @property
    def sketch(self) -> Sketch | None:
        """What its certify samples are like; None where nobody has looked."""
        record = self.record(SKETCH)
        return None if record is None else self._checked(Sketch, record, SKETCH, AGAIN)

    def write_bench(self, bench: BenchRecord, name: str = BENCH) -> BenchRecord:
        """Seal a benchmark together with this bundle's digest and write it; returns what was written."""
        return self._checked(BenchRecord, self.write_record(name, to_json(bench)), name)

    def file(self, name: str, what: str = "") -> Path:
        """A file of the bundle, which was checked when it was opened.

        Raises:
            BundleError: the manifest does not list it; ``what`` it holds.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.path} has no {what or name}", "export it again")
        return self.path / name

    def _read(self, name: str, cls: type[_T]) -> _T:
        return self._checked(cls, read_json(self.file(name), BundleError), name)

    def _checked(self, cls: type[_T], record: Json, name: str, remedy: str = "export the bundle again") -> _T:
        return from_json(cls, record, self.path / name, BundleError, remedy)

    def artifact(self, role: str = "deployed") -> Artifact:
        """The ``deployed`` artifact, its ``float`` twin, or the ``exported`` float ONNX file for ONNX Runtime.

        Raises:
            BundleError: the bundle has no such artifact.
        """
        if role == "exported":
            return Artifact("onnxruntime", self.exported, "fp32")
        entry = self.manifest.artifacts.get(role)
        if entry is None:
            raise BundleError(f"{self.path} has no {role} artifact", "export it again")
        return Artifact(entry.backend, self.path / entry.file, entry.precision, entry.device)

    @property
    def exported(self) -> Path:
        """The trained model as float32 ONNX."""
        return self._float(self.manifest.exported)

    @property
    def source(self) -> Path:
        """The float ONNX file that was compressed: :attr:`exported`, unless repair changed its weights first."""
        return self._float(self.manifest.source)

    def _float(self, name: str) -> Path:
        if not name:
            raise BundleError(f"{self.path} keeps no float ONNX file", "export it from a run")
        return self.path / name

    def record(self, name: str) -> dict[str, Any] | None:
        """A sealed record (certificate or benchmark) of this bundle, or None if it was not made yet.

        Raises:
            BundleError: it was altered, or it belongs to another bundle.
        """
        file = file_of(self.path, name)
        if not file.is_file():
            return None
        again = "delete it, then verify or bench this bundle again"
        try:
            if (record := read_sealed(file, BundleError)).get("manifest") == self.digest:
                return record
        except BundleError as error:
            raise BundleError(error.what, again) from error
        raise BundleError(f"{file} belongs to another bundle", again)

    @property
    def certificate(self) -> Certificate | None:
        """The bundle's certificate, or None if it was not made yet.

        Raises:
            BundleError: it was altered, or it belongs to another bundle.
            CertifyError: it is of another shape, or of another version of edgetl.
        """
        record = self.record(CERTIFICATE)
        return None if record is None else Certificate.from_json(record, str(self.path / CERTIFICATE))

    def write_record(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Seal ``body`` together with this bundle's digest and write it; returns what was written."""
        write_sealed(self.path / name, {**body, "manifest": self.digest})
        return read_sealed(self.path / name, BundleError)


def write_manifest(folder: Path, manifest: Manifest, artifacts: Mapping[str, Artifact]) -> None:
    """Seal a folder as a bundle: hash every file in it and write ``manifest.json``.

    Args:
        folder: holds all files of the bundle already.
        manifest: target, quantization, lineage and whatever else is known; files, artifacts and splits are filled in.
        artifacts: by role, ``deployed`` and ``float``; their paths lie inside ``folder``.
    """
    # They follow from a certificate, and what one said of the folder before is not said of this bundle.
    for name in (BILL, MODEL_CARD, SKETCH):
        (folder / name).unlink(missing_ok=True)
    files = {
        file.relative_to(folder).as_posix(): FileEntry(sha256_file(file), file.stat().st_size)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.relative_to(folder).as_posix() not in _LATER
    }
    entries = {
        role: ArtifactEntry(a.backend, a.path.relative_to(folder).as_posix(), a.precision, a.device, a.size_bytes)
        for role, a in artifacts.items()
    }
    # Named here because 50,000 rows take a fifth of a second to read, whenever a bundle is judged again.
    splits = digest_of(read_json(folder / SPLITS_FILE, BundleError)) if SPLITS_FILE in files else ""
    write_sealed(folder / MANIFEST, to_json(replace(manifest, splits=splits, files=files, artifacts=entries)))


def load_bundle(path: str | Path | Bundle, public_key: str | Path | None = None) -> Bundle:
    """Open a bundle and check every file against the manifest, and its records; an open one is returned as it is.

    Args:
        path: its folder.
        public_key: that must have signed all of it (:func:`edgetl.core.signature.read_public_key`); None asks for no
            signature. It is checked before anything is parsed, also of an open bundle.

    Raises:
        BundleError: missing, of another schema, incomplete, altered or not signed; the message names the file.
    """
    key = "" if public_key is None else read_public_key(public_key)
    if isinstance(path, Bundle) and key in ("", path.signed_by):
        return path
    folder = path.path if isinstance(path, Bundle) else Path(path)
    if not file_of(folder, MANIFEST).is_file():
        raise BundleError(
            f"{folder} is not a bundle (it has no {MANIFEST})", "make one with: edgetl export RUN --target T --out DIR"
        )
    if key:
        check_signature(folder, key)
    manifest = read_manifest(folder / MANIFEST)
    check_files(folder, manifest)
    bundle = Bundle(folder, manifest, key)
    bundle.record(BENCH)
    if file_of(folder, BILL).is_file():
        read_bill(folder / BILL, bundle.digest)
    _refuse_other_predictions(bundle, bundle.certificate)
    return bundle


def _refuse_other_predictions(bundle: Bundle, certificate: Certificate | None) -> None:
    for name, key in ((PREDICTIONS, "predictions"), (AGREEMENT, "agreement")):
        file, expected = file_of(bundle.path, name), certificate and certificate.hashes.get(key)
        if expected and (not file.is_file() or sha256_file(file) != expected):
            raise BundleError(f"{file} is not what {CERTIFICATE} was made from", "delete both, then verify it again")


def check_certificate(bundle: Bundle) -> Certificate:
    """The bundle's certificate, if it is unaltered and speaks of this very bundle and its saved predictions.

    Raises:
        CertifyError: there is none, it was altered, is of another shape, or belongs to another bundle.
    """
    try:
        certificate = bundle.certificate
        _refuse_other_predictions(bundle, certificate)
    except BundleError as error:
        raise CertifyError(error.what, error.remedy) from error
    if certificate is None:
        raise CertifyError(f"{bundle.path} has no certificate", "make one with: edgetl verify BUNDLE")
    return certificate
