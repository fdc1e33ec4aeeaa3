"""An ONNX file: it says nothing of its preprocessing and nothing of its classes."""

from __future__ import annotations

from pathlib import Path

from edgetl.base.errors import EdgetlError
from edgetl.base.storage import sha256_file
from edgetl.compress.foreign import read_foreign
from edgetl.workflow.adoption.given import Given, Reader, suffixed


def _read(model: str | Path) -> Given:
    path = Path(model)
    if not path.is_file():
        raise EdgetlError(f"there is no model {path}", "give an ONNX file")
    return Given("onnx", path.name, sha256_file(path), foreign=read_foreign(path))


READER = Reader("onnx", "an ONNX file (model.onnx)", suffixed(".onnx"), _read)
