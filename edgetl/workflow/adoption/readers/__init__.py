"""What reads models that were trained elsewhere: one file a form, one line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgetl.base.errors import EdgetlError
from edgetl.workflow.adoption.given import Reader
from edgetl.workflow.adoption.readers import checkpoint, exported_program, hugging_face, module, onnx_file

#: The first one that takes what was given reads it.
READERS: Mapping[str, Reader] = {
    reader.name: reader
    for reader in (
        checkpoint.TIMM,
        checkpoint.TORCHVISION,
        hugging_face.READER,
        onnx_file.READER,
        exported_program.READER,
        module.READER,
    )
}


def find_reader(model: Any) -> Reader:
    """What reads a model.

    Raises:
        EdgetlError: nothing does.
    """
    found = next((reader for reader in READERS.values() if reader.takes(model)), None)
    if found is None:
        what = f"a {type(model).__name__}" if not isinstance(model, str) else f"'{model}'"
        raise EdgetlError(
            f"{what} is no form of model that edgetl adopts", f"give {'; or '.join(r.about for r in READERS.values())}"
        )
    return found


__all__ = ["READERS", "find_reader"]
