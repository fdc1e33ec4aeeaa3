"""The files of a bundle, which may come from anybody: that they are the ones that its manifest lists, and no others.

Everything is refused before a runtime, which trusts what it loads, sees any of it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from edgetl.base.errors import BundleError
from edgetl.base.names import below, objection
from edgetl.base.storage import read_json, sha256_file
from edgetl.core.manifest import ArtifactEntry, Manifest
from edgetl.core.onnx_file import external_files

AGAIN = "export it again or copy it whole"
#: What a list of samples says of a folder that it does not name, and the file beside bundles that does.
NO_ROOT, DATA_NOTE = ".", ".work/data.json"
#: What each runtime opens. Of another kind of file nothing is known, such as which further files it names.
_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": (".onnx",),
    "tensorrt": (".onnx",),
    "openvino": (".xml", ".onnx"),
    "litert": (".tflite",),
}


def file_of(folder: Path, name: str) -> Path:
    """The path of a bundle's file or record, which may be there or not.

    Raises:
        BundleError: the name leads out of the folder, through a link, or is none.
    """
    try:
        return below(folder, name)
    except ValueError as error:
        raise BundleError(f"{folder}: {error}", "use no bundle that names such files") from error


def samples_root(folder: Path, splits: str) -> Path:
    """Where the samples of a bundle lie, on the machine that exported it; :data:`NO_ROOT` on every other one.

    Args:
        folder: of the bundle.
        splits: digest of its splits.
    """
    note = folder.absolute().parent / DATA_NOTE
    roots = read_json(note, BundleError) if note.is_file() else {}
    return Path(str(roots.get(splits, NO_ROOT)) if isinstance(roots, dict) else NO_ROOT)


def check_files(folder: Path, manifest: Manifest) -> None:
    """Check that a bundle's files are there, unaltered, and name no files that the manifest does not list.

    Raises:
        BundleError: the first that is missing, altered, a link, or refers to something else; the message names it.
    """
    for name, entry in manifest.files.items():
        file = file_of(folder, name)
        if not file.is_file():
            raise BundleError(f"{folder} lacks {name}", AGAIN)
        if file.stat().st_size != entry.bytes or sha256_file(file) != entry.sha256:
            raise BundleError(f"{file} is altered or damaged (its SHA-256 differs)", AGAIN)
    for role, artifact in manifest.artifacts.items():
        _check_artifact(folder, manifest, role, artifact)
    for name in manifest.files:
        if name.endswith(".onnx"):
            _check_references(folder, manifest, name)


def _check_artifact(folder: Path, manifest: Manifest, role: str, entry: ArtifactEntry) -> None:
    suffixes = _SUFFIXES.get(entry.backend)
    if suffixes is not None and not entry.file.endswith(suffixes):
        what = f"{folder} has a {role} model for {entry.backend} that is no {suffixes[0]} file ({entry.file})"
        raise BundleError(what, "export it again")
    for name in companions(entry.file):
        there = file_of(folder, name).exists()
        if name not in manifest.files and (there or name.endswith(".bin")):
            raise BundleError(f"{folder}: {entry.file} needs {name}, which the manifest does not list", AGAIN)


def companions(file: str) -> Iterator[str]:
    """Names of the files that a runtime opens together with a model's: weights, or what it was converted from."""
    path = PurePosixPath(file)
    beside = {".xml": ".bin", ".tflite": ".onnx"}.get(path.suffix)
    if beside:
        yield str(path.with_suffix(beside))


def _check_references(folder: Path, manifest: Manifest, name: str) -> None:
    """Refuse a model that keeps tensors in files that are not this bundle's: a runtime would read them all the same."""
    file = folder / name
    try:
        places = external_files(file)
    except ValueError as error:
        raise BundleError(f"{file} is no ONNX file ({error})", AGAIN) from error
    for place in places:
        found = objection(place)
        if found is None and posixpath.join(posixpath.dirname(name), place) not in manifest.files:
            found = "is no file of the bundle"
        if found is not None:
            what = f"{file} keeps tensors in {place!a:.100}, which {found}"
            raise BundleError(what, "store the tensors in the model, or beside it in a file that the manifest lists")
