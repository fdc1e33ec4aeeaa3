"""How a sample becomes an adopted model's input: declared by its owner, or told by the model; never guessed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetl.base.errors import DataError
from edgetl.compress.foreign.simplifying import shape_of
from edgetl.inputs import defined, read_fields
from edgetl.inputs.base import Input
from edgetl.workflow.adoption.given import Given

#: Fields that mean something only beside the ones that they go with.
_TOGETHER = {"resize": ("height", "width", "mode"), "pad": ("mode",)}
#: Of every record of a kind, whatever anybody declares.
_FIXED = ("kind", "layout", "version", "tokenizer_sha256")
_IMAGE: Mapping[str, Any] = {
    "mode": "shorter",
    "resize": 256,
    "interpolation": "bilinear",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "channels": "RGB",
}


def define(given: Given, declared: str | Path | Input | None) -> tuple[Input, dict[str, str]]:
    """The definition of a model's input, and where each field of it was told.

    Args:
        given: the model.
        declared: by its owner, a file or the definition; what stands there overrules what the model says.

    Raises:
        DataError: nothing tells it, or what does is no definition.
    """
    if declared is not None and not isinstance(declared, (str, Path)):
        return declared, {name: "declared" for name in declared.to_json() if name not in _FIXED}
    file = None if declared is None else Path(declared)
    told: dict[str, Any] = dict(given.fields)
    told_by = dict(given.told_by)
    folder, where = given.folder, given.model
    if file is not None:
        own = read_fields(file)
        if own.get("kind", "image") != told.get("kind", "image"):
            told, told_by = {}, {}
        for name, others in _TOGETHER.items():
            if any(other in own for other in others):
                told.pop(name, None)
                told_by.pop(name, None)
        told |= own
        told_by |= dict.fromkeys(own, f"declared in {file.name}")
        folder, where = (file.parent if "tokenizer" in own or not given.fields else folder), str(file)
    if not told:
        raise DataError(f"nothing tells how a sample becomes the input of {given.model}", _what_to_write(given))
    definition = defined(told, folder, where)
    left_out = [name for name in definition.to_json() if name not in told_by and name not in _FIXED]
    told_by.pop("kind", None)
    return definition, told_by | dict.fromkeys(left_out, "left out: the default")


def _what_to_write(given: Given) -> str:
    """A definition of the shape that the model takes, in which its owner corrects what is not so."""
    example: dict[str, Any] = {"height": 224, "width": 224, **_IMAGE}
    if given.foreign is not None:
        example = _of_graph(given.foreign.model)
    return f"declare it with --preprocess FILE, such as {json.dumps(example)}, each value as in training"


def _of_graph(model: Any) -> dict[str, Any]:
    inputs = list(model.graph.input)
    sizes = [size or 224 for size in shape_of(inputs[0])]
    if any(value.name == "input_ids" for value in inputs):
        return {"kind": "text", "tokenizer": "tokenizer.json", "length": 128}
    if len(sizes) == 4 and len(inputs) == 1 and {sizes[1], sizes[3]} & {1, 3}:
        planes = sizes[1] in (1, 3)
        channels, height, width = sizes[1:] if planes else (sizes[3], *sizes[1:3])
        side = max(height, width)
        image = {"height": height, "width": width, **_IMAGE, "resize": round(side / 0.875)}
        return image if channels == 3 else {**image, "mean": [0.5], "std": [0.5], "channels": "L"}
    arrays = [{"name": value.name, "shape": [size or 1 for size in shape_of(value)[1:]]} for value in inputs]
    return {"kind": "tensor", "arrays": arrays}
