"""What a file may hold instead of what it holds: hypothesis strategies, from its bytes."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

Contents = st.SearchStrategy[bytes]
Step = str | int
GONE = object()

#: What has harmed readers of files before: paths, terminals, parsers, sums.
WORDS = (
    "", " ", "..", "../../outside", "/etc/passwd", "a/../b", "a\\b", "C:\\x", "\x00", "\x1b[2J\x1b]0;gone\x07",
    "\u202egnp.exe", "\ud800", "[/bold red]", "{0}{x!r}", "%s%n", "a\nb\rc", "<script>alert(1)</script>", "Ⅷ",
    "é" * 300, "nan", "-0", "1e999", "true", "null", "x" * 100_000, "model/model.onnx", "manifest.json",
    "classification", "int8",
)  # fmt: skip
NUMBERS = (0, -1, 1, 2, 255, 256, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308, 1e-320, 2.0)
_NESTED = st.sampled_from([json.loads("[" * 300 + "]" * 300), {"a": {"a": {"a": {}}}}, [[]] * 3, {"": None}])

values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(WORDS), st.integers(), st.text(max_size=12),
        st.floats(allow_nan=True, allow_infinity=True),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(WORDS[:12]), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip
_values = st.one_of(values, _NESTED)


def damaged(original: bytes) -> Contents:
    """Bytes changed, cut, doubled, put in, or all others."""
    end = max(1, len(original))
    place = st.integers(0, end - 1)

    def flipped(at: list[tuple[int, int]]) -> bytes:
        changed = bytearray(original or b"\x00")
        for where, by in at:
            changed[where] ^= by
        return bytes(changed)

    def spliced(where: int, length: int, what: bytes) -> bytes:
        return original[:where] + what + original[where + length :]

    chunk = st.one_of(st.binary(max_size=64), st.sampled_from([b"\xff" * 16, b"\x00" * 16, b"PK\x03\x04", b"\n" * 4]))
    return st.one_of(
        st.lists(st.tuples(place, st.integers(1, 255)), min_size=1, max_size=8).map(flipped),
        place.map(lambda where: original[:where]),
        st.builds(spliced, place, st.integers(0, 64), chunk),
        st.tuples(place, place).map(lambda ends: original[: max(ends)] + original[min(ends) :]),
        st.binary(max_size=256),
    )


def places(value: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """Where each value of a record stands; of a list its first and last entry."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    if isinstance(value, list) and value:
        for index in sorted({0, len(value) - 1}):
            yield from places(value[index], (*path, index))


def edited(record: Any, path: tuple[Step, ...], value: Any) -> Any:
    """A copy with another value in one place, or without it; what is not there any more stays as it is."""
    changed = copy.deepcopy(record)
    holder = changed
    try:
        for step in path[:-1]:
            holder = holder[step]
        last = str(path[-1]) if isinstance(holder, dict) else path[-1]
        if value is GONE:
            del holder[last]
        else:
            holder[last] = value
    except (LookupError, TypeError):
        return changed
    return changed


def _json(record: Any) -> bytes:
    return json.dumps(record, sort_keys=True, indent=1, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"


def record(original: bytes) -> Contents:
    """A JSON file with a few values changed, moved, doubled or gone; now and then, damaged bytes."""
    held = json.loads(original)
    everywhere = [path for path in places(held) if path != ("digest",)]
    where = st.sampled_from(everywhere)
    # What stands elsewhere in the same record is of a kind that is read somewhere.
    elsewhere = where.map(lambda path: _at(held, path))
    edit = st.tuples(where, st.one_of(_values, elsewhere, st.just(GONE)))

    def with_edits(edits: list[tuple[tuple[Step, ...], Any]]) -> bytes:
        changed = held
        for path, value in edits:
            changed = edited(changed, path, value)
        return _json(changed)

    def with_key(path: tuple[Step, ...], key: str, value: Any) -> bytes:
        return _json(edited(held, (*path[:-1], key), value))

    return _mostly(
        st.lists(edit, min_size=1, max_size=4).map(with_edits),
        st.builds(with_key, where, st.sampled_from(WORDS), _values),
        _values.map(_json),
        damaged(original),
    )


def _mostly(first: Contents, *others: Contents) -> Contents:
    return st.integers(0, 9).flatmap(lambda turn: first if turn < 7 else st.one_of(*others))


def _at(held: Any, path: tuple[Step, ...]) -> Any:
    for step in path:
        held = held[step]
    return held


_DTYPES = ("f4", "f8", "i8", "u1", "?", "U3", "S3", "c8", "f2", ">f4", "M8[s]")
Array = npt.NDArray[Any]


def arrays(original: bytes) -> Contents:
    """An ``.npz`` with another array, name or count of them, a claim that is not so, a pickle; or damaged bytes."""
    with np.load(io.BytesIO(original)) as stored:
        held: dict[str, Array] = dict(stored)
    name = st.sampled_from(sorted(held))
    odd = st.sampled_from([np.nan, np.inf, -np.inf, 1e38, -1.0, 0.0])

    def changed(of: str, by: Callable[[Array], Array | None]) -> bytes:
        # A change that this array cannot take leaves it out.
        with np.errstate(all="ignore"):
            try:
                new = by(held[of])
            except (ValueError, TypeError, IndexError, OverflowError):
                new = None
        kept = {key: value for key, value in held.items() if key != of}
        return _npz(kept if new is None else {**kept, of: new})

    def all_of(value: Any) -> Callable[[Array], Array | None]:
        return lambda array: np.full_like(array, value)

    def one_of(value: Any) -> Callable[[Array], Array | None]:
        return lambda array: np.where(np.arange(array.size).reshape(array.shape) == 0, value, array)

    change = st.one_of(
        st.just(lambda array: None),
        odd.map(all_of),
        odd.map(one_of),
        st.sampled_from(_DTYPES).map(lambda dtype: lambda array: array.astype(dtype)),
        st.integers(0, 3).map(lambda count: lambda array: array[:count]),
        st.just(lambda array: array[..., None]),
        st.just(lambda array: array.T),
        st.just(lambda array: np.concatenate([array, array])),
        st.just(lambda array: array.astype(object)),
        st.sampled_from(WORDS[:20]).map(lambda word: lambda array: np.array([word] * len(array))),
        st.sampled_from([(), (0,), (1,), (2**40, 0)]).map(lambda shape: lambda array: np.zeros(shape, array.dtype)),
    )
    return _mostly(
        st.builds(changed, name, change),
        st.sampled_from(WORDS[:20]).map(lambda word: _npz({**held, word or "x": np.zeros(2)})),
        st.tuples(name, st.sampled_from(["<f4", "|O", "U1", "f4" * 50])).map(lambda c: _claim(held, c[0], c[1])),
        damaged(original),
    )


def _npz(held: dict[str, Array]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, value in held.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asanyarray(value), allow_pickle=True)
            # zipfile itself cuts a name at a zero byte.
            kept = name.replace("\x00", "0").encode(errors="replace").decode()
            archive.writestr(f"{kept}.npy", member.getvalue())
    return stream.getvalue()


def _claim(held: dict[str, Array], name: str, dtype: str) -> bytes:
    """A member that says to be of a type and a size that it is not."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': (1000000000, 3), }}".encode()
    stream = io.BytesIO(_npz({key: value for key, value in held.items() if key != name}))
    with zipfile.ZipFile(stream, "a") as archive:
        start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little")
        archive.writestr(f"{name}.npy", start + header + b"\x00" * 64)
    return stream.getvalue()


def lines(original: bytes) -> Contents:
    """A text with lines and cells changed, doubled, moved or gone; now and then, damaged bytes."""
    held = original.decode().splitlines()
    row = st.integers(0, len(held) - 1)
    marks = st.sampled_from(['"', '""', ",,,", "=", "[", "]]", "'"])
    word = st.one_of(st.sampled_from(WORDS), st.text(max_size=8), marks)

    def with_cell(at: int, cell: int, new: str, by: str) -> bytes:
        cells = held[at].split(by)
        cells[cell % len(cells)] = new
        return _text([*held[:at], by.join(cells), *held[at + 1 :]])

    def moved(at: int, to: int) -> bytes:
        rest = [*held[:at], *held[at + 1 :]]
        return _text([*rest[:to], held[at], *rest[to:]])

    return _mostly(
        st.builds(with_cell, row, st.integers(0, 5), word, st.sampled_from([",", "=", " "])),
        st.builds(moved, row, row),
        row.map(lambda at: _text([*held[:at], *held[at + 1 :]])),
        st.tuples(row, word).map(lambda new: _text([*held[: new[0]], new[1], *held[new[0] :]])),
        row.map(lambda at: _text([*held, held[at]])),
        damaged(original),
    )


def _text(held: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in held).encode(errors="surrogatepass")
