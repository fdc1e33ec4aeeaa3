"""A file that another tool compressed, with the input and output that runners know.

Nothing is folded, converted or simplified: what is certified has to be what was given. Where it takes an image as a
network does, the preprocessing is put before it, as edgetl puts it before a network that it exports.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from edgetl.base.errors import CompressionError
from edgetl.base.wording import enumerated
from edgetl.compress.foreign.given import Given, Wanted
from edgetl.compress.foreign.given_ir import read_ir
from edgetl.compress.foreign.given_onnx import read_quantized
from edgetl.compress.foreign.given_tflite import read_tflite
from edgetl.compress.foreign.reading import check_sizes, files_of

#: Suffix → what such a file is, and what reads it.
_READERS: Mapping[str, tuple[str, Callable[[Path, Wanted], Given]]] = {
    ".onnx": ("an ONNX file", read_quantized),
    ".xml": ("an OpenVINO IR", read_ir),
    ".tflite": ("a TFLite file", read_tflite),
}
#: Backend → suffixes of the files that it takes.
FORMATS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": (".onnx",),
    "openvino": (".xml", ".onnx"),
    "tensorrt": (".onnx",),
    "litert": (".tflite", ".onnx"),
}


def artifact_files(file: Path) -> tuple[Path, ...]:
    """The file, and those that hold its weights: an IR's ``.bin``, an ONNX file's external data.

    Raises:
        CompressionError: one of them is missing, no file, or in another place, or they are too large.
    """
    suffix = file.suffix.lower()
    if suffix not in _READERS:
        known = enumerated([f"{what} ({name})" for name, (what, _) in _READERS.items()])
        raise CompressionError(f"{file.name} is no form of artifact that edgetl takes", f"give {known}")
    if suffix == ".onnx":
        return files_of(file)
    files = (file, file.with_suffix(".bin")) if suffix == ".xml" else (file,)
    check_sizes(files)
    return files


def copied(file: Path, folder: Path) -> Path:
    """A copy of the file and of those that hold its weights, in which its suffix is in lower case.

    Raises:
        CompressionError: as :func:`artifact_files`.
        OSError: it cannot be copied.
    """
    for other in artifact_files(file)[1:]:
        there = folder / other.relative_to(file.parent).as_posix()
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(other, there)
    return Path(shutil.copyfile(file, folder / file.with_suffix(file.suffix.lower()).name))


def read_artifact(file: Path, wanted: Wanted) -> Given:
    """Read a file that another tool compressed.

    Args:
        file: ``.onnx``, an OpenVINO ``.xml`` with its ``.bin`` beside it, or ``.tflite``.
        wanted: what it has to be.

    Raises:
        CompressionError: the target's runtime takes no such file, it is damaged, or of another model.
        BackendError: the runtime cannot read it.
    """
    backend, suffix = wanted.target.backend, file.suffix.lower()
    artifact_files(file)
    if suffix not in FORMATS[backend]:
        takes = " or ".join(_READERS[one][0] for one in FORMATS[backend])
        raise CompressionError(
            f"{wanted.target.name} runs {backend}, which takes {takes} here, and {file.name} is {_READERS[suffix][0]}",
            "give the artifact in that form, or name a target of another runtime",
        )
    return _READERS[suffix][1](file, wanted)
