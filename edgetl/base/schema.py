"""Records of a known shape: frozen dataclasses, read from JSON with every value checked, and written back.

The annotations are the schema: dataclasses, ``tuple``, ``Mapping`` or ``dict`` with string keys, ``Literal``, unions,
``str``, ``bool``, ``int``, ``float`` (which takes whole numbers too) and :data:`Json` for what is only shown. A field
that may be absent has a default; one that a record does not know is left out, so that an older reader takes what a
newer writer added. Values that fit their types and make no sense are refused by ``__post_init__`` with a ValueError.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from edgetl.base.errors import EdgetlError

#: A value of any shape that JSON can hold.
Json: TypeAlias = Any

_T = TypeVar("_T")
_NAME, _INLINE = "name", "inline"
#: Metadata of a field that is a dataclass and whose fields stand in the file among those of the record that holds it.
INLINE = {_INLINE: True}
_KINDS = {str: "a string", bool: "true or false", int: "a whole number", float: "a number", type(None): "null"}
#: The largest whole number that records hold, and most libraries take.
LARGEST = 2**63 - 1


def named(name: str) -> dict[str, Any]:
    """Metadata of a field that is called ``name`` in the file."""
    return {_NAME: name}


class _WrongError(Exception):
    """A value of another shape: the steps to it, the innermost first, and what is the matter."""

    def __init__(self, what: str, *steps: str) -> None:
        super().__init__(what)
        self.steps = list(steps)


def from_json(
    cls: type[_T],
    value: Json,
    source: str | Path,
    error: type[EdgetlError] = EdgetlError,
    remedy: str = "make it again",
) -> _T:
    """Read ``value``, which :func:`json.loads` gave, as a record of type ``cls``.

    Args:
        cls: a dataclass, or any other annotation that the module's docstring names.
        value: what to read.
        source: the file or device that it comes from, for the message.
        error: what to raise.
        remedy: what to do about it, for the message.

    Raises:
        error: something is missing or of another kind; the message says where:
            ``manifest.json: artifacts.deployed.precision is 3, not a string: make it again``.
    """
    try:
        read: _T = _value(cls, value)
    except _WrongError as wrong:
        where = ".".join(reversed(wrong.steps)).replace(".[", "[") or "it"
        raise error(f"{source}: {where} {wrong}", remedy) from wrong
    return read


def to_json(record: Json) -> Json:
    """A record, or whatever one holds, as plain JSON values: tuples as lists, names as in the file."""
    if dataclasses.is_dataclass(record):
        written: dict[str, Json] = {}
        for field in dataclasses.fields(record):
            value = to_json(getattr(record, field.name))
            written |= value if _INLINE in field.metadata else {field.metadata.get(_NAME, field.name): value}
        return written
    if isinstance(record, Mapping):
        return {key: to_json(value) for key, value in record.items()}
    return [to_json(value) for value in record] if isinstance(record, (list, tuple)) else record


@functools.cache
def _fields(cls: type[Any]) -> tuple[tuple[str, str, Any, bool], ...]:
    """Attribute, name in the file ("" for an inline one), annotation, and whether it must be there."""
    hints, missing = get_type_hints(cls), dataclasses.MISSING
    found = []
    for f in dataclasses.fields(cls):
        name = "" if _INLINE in f.metadata else f.metadata.get(_NAME, f.name)
        found.append((f.name, name, hints[f.name], f.default is missing and f.default_factory is missing))
    return tuple(found)


def _value(hint: Any, value: Json) -> Any:
    """``value`` as ``hint`` wants it.

    Raises:
        _WrongError: it is something else.
    """
    if hint in _KINDS or hint is Any:
        return _plain(hint, value)
    origin, wanted = get_origin(hint), get_args(hint)
    if origin is Literal:
        return _choice(wanted, value)
    if origin in (Union, types.UnionType):
        return _either(wanted, value)
    if origin is tuple:
        return _tuple(wanted, value)
    if origin in (Mapping, dict):
        return {_at(key, wanted[0], key): _at(key, wanted[1], item) for key, item in _object(value).items()}
    return _record(hint, value)


def _at(step: str, hint: Any, value: Json) -> Any:
    try:
        return _value(hint, value)
    except _WrongError as wrong:
        wrong.steps.append(step if step.isprintable() else repr(step))
        raise


def _object(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise _unlike(value, "an object")
    return value


def _record(cls: Any, value: Json) -> Any:
    given = {}
    for attribute, name, hint, required in _fields(cls):
        if not name:
            given[attribute] = _value(hint, value)
        elif name in _object(value):
            given[attribute] = _at(name, hint, value[name])
        elif required:
            raise _WrongError("is missing", name)
    try:
        return cls(**given)
    except ValueError as error:
        raise _WrongError(f"is impossible ({error})") from error


def _tuple(hints: tuple[Any, ...], value: Json) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _unlike(value, "a list")
    hints = hints[:1] * len(value) if hints[-1] is Ellipsis else hints
    if len(value) != len(hints):
        raise _WrongError(f"has {len(value)} entries, not {len(hints)}")
    return tuple(_at(f"[{i}]", hint, item) for i, (hint, item) in enumerate(zip(hints, value, strict=True)))


def _either(hints: tuple[Any, ...], value: Json) -> Any:
    rest = [hint for hint in hints if hint is not type(None)]
    if value is None and len(rest) < len(hints):
        return None
    for hint in rest[:-1]:
        try:
            return _value(hint, value)
        except _WrongError:
            continue
    return _value(rest[-1], value)


def _choice(choices: tuple[Any, ...], value: Json) -> Any:
    if any(value == choice and type(value) is type(choice) for choice in choices):
        return value
    raise _unlike(value, f"one of {', '.join(map(json.dumps, choices))}")


def _plain(hint: Any, value: Json) -> Any:
    if type(value) in (int, float) and hint in (int, float):
        if (isinstance(value, int) and abs(value) > LARGEST) or not math.isfinite(value):
            raise _WrongError("is a number beyond all bounds")
        # A whole number stays one where a float is wanted, so that a record is written as it was read.
        if hint is float or isinstance(value, int):
            return value
    elif hint is Any or type(value) is hint:
        return value
    raise _unlike(value, _KINDS[hint])


def _unlike(value: Json, wanted: str) -> _WrongError:
    shown = {dict: "an object", list: "a list", type(None): "null"}.get(type(value))
    # TOML has dates besides.
    shown = shown or json.dumps(value, default=str)
    return _WrongError(f"is {shown if len(shown) < 60 else shown[:57] + '...'}, not {wanted}")
