"""Nested records as flat lists of name and value, for reading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgetl.base.wording import ABSENT, MINUS, printable

_LIST = 12


def facts(record: object, *, without: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Flatten a JSON value: nested names are joined, long lists are counted.

    Args:
        record: a JSON value, usually an object.
        without: names at the top that are left out.
    """
    if not isinstance(record, Mapping):
        return [("value", _value(record))] if record is not None else []
    return list(_flat({k: v for k, v in record.items() if k not in without}, ""))


def _flat(record: Mapping[str, object], prefix: str) -> Iterator[tuple[str, str]]:
    for key in sorted(record):
        name = f"{prefix}{printable(key).replace('_', ' ')}"
        value = record[key]
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{name}, ")
        elif isinstance(value, list) and 0 < len(value) <= _LIST and all(isinstance(v, Mapping) and v for v in value):
            for position, item in enumerate(value, 1):
                yield from _flat(item, f"{name} {position}, ")
        else:
            yield name, _value(value)


def _value(value: object) -> str:
    if value is None or value in ({}, [], ""):
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        text = f"{value:.6g}"
        return MINUS + text[1:] if text.startswith("-") else text
    if isinstance(value, list | tuple):
        if len(value) > _LIST or any(isinstance(item, list | tuple | Mapping) for item in value):
            return f"{len(value):,} entries"
        return ", ".join(_value(item) for item in value)
    return printable(value)
