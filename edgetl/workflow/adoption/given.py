"""A model as its owner gives it, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetl.base.schema import Json
from edgetl.compress.foreign import Foreign

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Given:
    """A model that was read and not changed yet.

    Attributes:
        source: name of what read it.
        model: name of its file or architecture.
        sha256: of its file, or of all of its tensors.
        foreign: the ONNX model, where it is one.
        module: the torch model, in evaluation mode, from prepared inputs (a normalised image (n, channels, height,
            width), arrays, or token numbers and their mask) to outputs; where it is one.
        backbone: name by which edgetl builds the module itself (``timm/NAME``); "" where it cannot.
        takes: kind of its input, where it is known.
        fields: of the definition of its input, as far as it says; ``told_by`` says where each stands.
        folder: where files lie that ``fields`` names.
        classes: names in the order of its outputs; none where it says nothing.
        names_told_by: where these stand.
    """

    source: str
    model: str
    sha256: str
    foreign: Foreign | None = None
    module: nn.Module | None = None
    backbone: str = ""
    fields: Mapping[str, Json] = field(default_factory=dict)
    told_by: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path()
    classes: tuple[str, ...] = ()
    names_told_by: str = ""


@dataclass(frozen=True)
class Reader:
    """One form in which models are given.

    Attributes:
        name: as in records.
        about: one line, for messages.
        takes: whether something that a user gave is of this form: a path, ``kind:rest``, or a module.
        read: it → the model; raises EdgetlError.
    """

    name: str
    about: str
    takes: Callable[[Any], bool]
    read: Callable[[Any], Given]


def named(prefix: str) -> Callable[[Any], bool]:
    """Whether a text begins with this and a colon."""
    return lambda model: isinstance(model, str) and model.startswith(f"{prefix}:")


def suffixed(*suffixes: str) -> Callable[[Any], bool]:
    """Whether a path ends in one of these."""
    return lambda model: isinstance(model, (str, Path)) and Path(model).suffix.lower() in suffixes
