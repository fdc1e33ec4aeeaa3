"""Which other files an ONNX file names, read from its bytes: a device has no ``onnx`` package.

A model may keep a tensor's data in another file, relative to its own. A runtime follows that name while it loads the
model, so it is judged before any runtime sees it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

#: Message → field → message that stands in it, of those that lead to tensors (onnx/onnx.proto).
_INSIDE: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
_DATA_LOCATION, _EXTERNAL = 14, 1
_KEY, _VALUE = 1, 2
#: Sizes of fields by their wire type; those of the other types say their own.
_FIXED = {1: 8, 5: 4}
#: More fields than this are no model: looking at them would take minutes.
MOST_FIELDS = 5_000_000
Bytes = bytes | mmap.mmap


def external_files(path: Path) -> tuple[str, ...]:
    """Names of the files in which an ONNX file keeps tensors, as it has them; "" where it names none for one.

    Raises:
        ValueError: it is no ONNX file.
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        if not path.stat().st_size:
            raise ValueError("it is empty")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return tuple(dict.fromkeys(_locations(data)))


def _locations(data: Bytes) -> Iterator[str]:
    waiting, seen = [("Model", 0, len(data))], 0
    while waiting:
        message, begin, end = waiting.pop()
        external, named = False, []
        for field, value in _fields(data, begin, end):
            seen += 1
            if seen > MOST_FIELDS:
                raise ValueError(f"it has more than {MOST_FIELDS} fields")
            inside = _INSIDE[message].get(field)
            if message == "Tensor" and field == _DATA_LOCATION:
                external = external or value == _EXTERNAL
            elif inside is None or not isinstance(value, tuple):
                continue
            elif inside == "Entry":
                named.append(_location(data, *value))
            else:
                waiting.append((inside, *value))
        places = [name for name in named if name is not None]
        yield from places or ([""] if external or named else [])


def _location(data: Bytes, begin: int, end: int) -> str | None:
    """The value of an entry of a tensor's external data, if that entry says where they are."""
    key, values = b"", [""]
    for field, value in _fields(data, begin, end):
        if isinstance(value, tuple) and field in (_KEY, _VALUE):
            text = data[slice(*value)]
            if field == _KEY:
                key = text
            else:
                values.append(text.decode(errors="backslashreplace"))
    return values[-1] if key == b"location" else None


def _fields(data: Bytes, begin: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Number and value of each field of a protobuf message: where its bytes begin and end, or a number."""
    at = begin
    while at < end:
        tag, at = _number(data, at, end)
        kind, field = tag & 7, tag >> 3
        if kind == 0:
            value, at = _number(data, at, end)
            yield field, value
            continue
        if kind == 2:
            size, at = _number(data, at, end)
        elif kind in _FIXED:
            size = _FIXED[kind]
        else:
            raise ValueError(f"byte {at} begins no field")
        if size > end - at:
            raise ValueError(f"a field at byte {at} is cut off")
        yield field, (at, at + size)
        at += size


def _number(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """A number of up to ten bytes, and where the next field begins."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError("it is cut off")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ValueError(f"byte {at} ends no number")
