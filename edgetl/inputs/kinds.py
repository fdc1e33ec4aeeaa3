"""Every kind of input, and reading a definition of any of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetl.base.errors import DataError, UnknownNameError
from edgetl.base.storage import parse_json, parse_toml, read_json, write_bytes, write_json
from edgetl.core.bundle import Bundle
from edgetl.core.run import PREPROCESS_FILE, Run
from edgetl.inputs import image, tensor, text
from edgetl.inputs.base import Input, InputKind
from edgetl.inputs.image import Preprocess

INPUTS: Mapping[str, InputKind] = {
    kind.name: kind
    for kind in (
        image.KIND,
        text.KIND,
        tensor.KIND,
    )
}


def find_input(name: str) -> InputKind:
    """A kind of input by its name.

    Raises:
        UnknownNameError: there is no such kind; the near ones are offered.
    """
    if name not in INPUTS:
        raise UnknownNameError("kind of input", name, INPUTS)
    return INPUTS[name]


def input_of(owner: Run | Bundle) -> Input:
    """How a file becomes the input of a run's or a bundle's network.

    Raises:
        DataError: the definition is malformed, or a file of it is missing or another.
        UnknownNameError: it is of a kind that this edgetl does not know.
    """
    record = owner.input_record
    return find_input(_kind(record)).read(record, owner.path)


def kind_of(owner: Run | Bundle) -> InputKind:
    """What kind of samples the network of a run or a bundle takes; nothing but the kind is read.

    Raises:
        UnknownNameError: it is one that this edgetl does not know.
    """
    return find_input(_kind(owner.input_record))


def preprocess_of(owner: Run | Bundle) -> Preprocess:
    """The definition of a network that sees images, for what makes sense of images alone.

    Raises:
        DataError: the network sees something else, or as :func:`input_of` does.
    """
    found = input_of(owner)
    if not isinstance(found, Preprocess):
        raise DataError(f"the network of {owner.path} takes a {found.kind}, no image", "give one that takes images")
    return found


def modules_for(bundle: Path) -> tuple[str, ...]:
    """Modules that reading the samples of a bundle's folder takes, besides numpy; none where it names no input.

    Raises:
        DataError: the definition is damaged.
        UnknownNameError: it is of a kind that this edgetl does not know.
    """
    file = bundle / PREPROCESS_FILE
    return find_input(_kind(read_json(file, DataError))).modules if file.is_file() else ()


def read_input(file: str | Path) -> Input:
    """A definition as a user writes it, JSON or TOML: the fields of ``preprocess.json``, the evident ones left out.

    Files that it names lie beside it.

    Raises:
        DataError: no such file, neither JSON nor TOML, or a field is missing, unknown or of the wrong kind.
        UnknownNameError: it is of a kind that this edgetl does not know.
    """
    path = Path(file)
    return defined(read_fields(path), path.parent, str(path))


def read_fields(path: Path) -> dict[str, Any]:
    """The fields that a user wrote, JSON or TOML, all of them known ones of their kind of input.

    Raises:
        DataError: no such file, neither JSON nor TOML, or an unknown field.
        UnknownNameError: it is of a kind that this edgetl does not know.
    """
    try:
        content = path.read_text(encoding="utf-8")
        record = parse_json(content) if path.suffix != ".toml" else parse_toml(content)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error})", "give a JSON or TOML file") from error
    except ValueError as error:
        raise DataError(f"{path} is neither JSON nor TOML ({error})", "correct it") from error
    if not isinstance(record, dict):
        raise DataError(f"{path} holds no fields", "give the fields of preprocess.json")
    kind = find_input(_kind(record))
    unknown = sorted(set(record) - kind.fields - {"kind"})
    if unknown:
        raise DataError(f"{path} has the unknown field {unknown[0]}", f"known are {', '.join(sorted(kind.fields))}")
    return record


def defined(fields: Mapping[str, Any], folder: Path, where: str) -> Input:
    """The definition that fields give, of a user or of another library's records; ``where`` they stand, for messages.

    Raises:
        DataError: a field is missing or of the wrong kind.
        UnknownNameError: it is of a kind that this edgetl does not know.
    """
    try:
        return find_input(_kind(fields)).given(fields, folder)
    except DataError as error:
        raise DataError(f"{where}: {error.what}", error.remedy) from error


def write_input(folder: Path, definition: Input) -> tuple[str, ...]:
    """Write ``preprocess.json`` and what travels beside it, where :func:`input_of` finds them; the files' names."""
    write_json(folder / PREPROCESS_FILE, definition.to_json())
    for name, content in definition.files.items():
        write_bytes(folder / name, content)
    return (PREPROCESS_FILE, *definition.files)


def _kind(record: Mapping[str, Any]) -> str:
    return str(record.get("kind", Preprocess.kind))
