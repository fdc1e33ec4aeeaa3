"""Named arrays on their way from a device: what is written is read, and nothing else is."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgetl.runtime.transport import read_arrays, write_arrays

DTYPES = st.sampled_from(["float32", "float64", "float16", "int64", "uint8", "bool"])
VALUES = DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=4)))


def written(found: dict[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    write_arrays(stream, found)
    return stream.getvalue()


@given(st.dictionaries(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1), VALUES, max_size=3))
def test_what_is_written_is_read(found: dict[str, np.ndarray]) -> None:
    data = written(found)
    again = read_arrays(data)
    assert list(again) == list(found)
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        for name, values in found.items():
            assert again[name].dtype == values.dtype
            np.testing.assert_array_equal(again[name], values)
            np.testing.assert_array_equal(stored[name], values)


def test_other_layouts_are_read() -> None:
    grid = np.arange(12).reshape(3, 4)
    stored = {"fortran": np.asfortranarray(grid), "big": grid.astype(">i4"), "strided": grid[:, ::2]}
    for name, values in read_arrays(written(stored)).items():
        np.testing.assert_array_equal(values, stored[name])
        assert values.dtype.isnative


def npy(values: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=True)  # type: ignore[arg-type]
    return stream.getvalue()


def zipped(compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return stream.getvalue()


def header(shape: str, size: int = 16, descr: str = "'<f4'") -> bytes:
    """An array that says to be of another shape than its bytes are."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + b"\0" * size


def twice() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x.npy", npy(np.zeros(3)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", npy(np.ones(3)))
    return stream.getvalue()


def overlapping() -> bytes:
    """A directory that names one large member many times over."""
    data = zipped(x_npy=npy(np.zeros(1000)))
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry, tail = data[start:end], bytearray(data[end:])
    tail[8:12] = (50).to_bytes(2, "little") * 2
    tail[12:16] = (50 * len(entry)).to_bytes(4, "little")
    entries = b"".join(
        entry.replace(b"x.npy", f"{chr(65 + i % 26)}.np{'y' if i < 26 else 'z'}".encode()) for i in range(50)
    )
    return data[:start] + entries + bytes(tail)


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"no archive",
        lambda: written({"x": np.zeros(100)})[:-40],
        lambda: written({"x": np.zeros(100)})[:60],
        lambda: zipped(x_npy=npy(np.array([{"a": 1}], object))),
        lambda: zipped(x_npy=npy(np.array(["text"]))),
        lambda: zipped(x_npy=npy(np.zeros(3, [("a", "f4")]))),
        lambda: zipped(x_npy=header("(2**62,)")),
        lambda: zipped(x_npy=header("(4611686018427387904, 4)")),
        lambda: zipped(x_npy=header("(-4,)")),
        lambda: zipped(x_npy=header("(5,)")),
        lambda: zipped(x_npy=header("(4,)", descr="'|O'")),
        lambda: zipped(x_npy=b"no array"),
        lambda: zipped(readme_txt=b"hello"),
        lambda: zipped(zipfile.ZIP_DEFLATED, x_npy=npy(np.zeros(1 << 20))),
        twice,
        overlapping,
    ],
)
def test_anything_else_is_refused(make: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        read_arrays(make())
    assert "\n" not in str(caught.value)


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_changed_byte_changes_nothing_unseen(place: int, byte: int) -> None:
    """Whatever a byte is changed to: the same arrays come out, or an error, or a header that says otherwise."""
    found = {"x": np.arange(20, dtype=np.float32)}
    data = bytearray(written(found))
    data[place % len(data)] = byte
    try:
        again = read_arrays(bytes(data))
    except ValueError:
        return
    assert sum(values.nbytes for values in again.values()) <= len(data)
