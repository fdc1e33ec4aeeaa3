"""The tensor input: the suite, shapes and figures learnt from samples, and files that are none."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.base.errors import DataError
from edgetl.inputs import ArraySpec, Input, Tensors, read_input
from edgetl.inputs import arrays as reading
from edgetl.inputs.tensor import KIND
from tests.inputs.contract import InputContract

SPEC = ArraySpec("x", (3, 4), (1.0, 2.0, 3.0, 4.0), (1.0, 1.0, 2.0, 0.5))
SMALL = Tensors((SPEC,))


def saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


class TestTensor(InputContract):
    def made(self) -> Input:
        return SMALL

    def others(self) -> Mapping[str, Input]:
        changes: dict[str, dict[str, Any]] = {
            "name": {"name": "y"},
            "shape": {"shape": (2, 4)},
            "mean": {"mean": (1.0, 2.0, 3.0, 5.0)},
            "std": {"std": (1.0, 1.0, 2.0, 0.25)},
            "axis": {"axis": 0, "mean": (1.0,), "std": (1.0,)},
            "no figures": {"mean": (), "std": ()},
            "one figure": {"mean": (1.0,), "std": (1.0,)},
        }
        several = Tensors((SPEC, ArraySpec("speed", (1,))))
        return {"several": several, **{name: Tensors((replace(SPEC, **change),)) for name, change in changes.items()}}

    def write(self, folder: Path) -> tuple[Sequence[Path], Sequence[Any]]:
        arrays = [
            np.arange(12.0).reshape(3, 4),
            np.arange(12, dtype=np.int16).reshape(3, 4) - 6,
            np.ones((3, 4), np.float32),
        ]
        files = [folder / "0.npy", folder / "1.npy", folder / "2.npz"]
        np.save(files[0], np.asfortranarray(arrays[0]))
        np.save(files[1], arrays[1])
        np.savez_compressed(files[2], x=arrays[2])
        return files, [arrays[0], {"x": arrays[1]}, arrays[2]]

    def copies(self, folder: Path) -> tuple[Path, Path]:
        np.save(folder / "copy.npy", np.arange(6.0).reshape(2, 3))
        np.savez(folder / "copy.npz", x=np.asfortranarray(np.arange(6.0).reshape(2, 3)).astype(">f8"))
        return folder / "copy.npy", folder / "copy.npz"

    def spoilt(self, folder: Path) -> Sequence[Path]:
        whole = saved(np.ones((3, 4)))
        contents = {
            "text.npy": b"no array",
            "void.npy": b"",
            "cut.npy": whole[:-9],
            "nan.npy": saved(np.full((3, 4), np.nan)),
            "huge.npy": saved(np.full((3, 4), 1e300)),
            "words.npy": saved(np.array(["a", "b"])),
            "complex.npy": saved(np.ones((3, 4), complex)),
            "objects.npy": saved(np.array([{}], dtype=object)),
            "pickle.npy": pickle.dumps(np.ones((3, 4))),
            "cut.npz": b"PK\x03\x04" + bytes(30),
            "large.npy": whole.replace(b"(3, 4), }", b"(9999999, 999999), }")[: len(whole)],
        }
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        return [folder / name for name in contents]


def test_nothing_is_read_that_a_header_only_announces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a few bytes that unpacks to gigabytes is refused before it does."""
    monkeypatch.setattr(reading, "MOST_BYTES", 1000)
    np.save(tmp_path / "a.npy", np.zeros(200))
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", saved(np.zeros(200)))
    for name in ("a.npy", "b.npz"):
        with pytest.raises(DataError, match="more than 1000 bytes"):
            reading.read_arrays(tmp_path / name, "x")


def test_names_and_shapes_must_fit(tmp_path: Path) -> None:
    made = Tensors((ArraySpec("x", (3, 4)), ArraySpec("speed", (1,))))
    sample = {"x": np.ones((3, 4)), "speed": np.ones(1)}
    assert {name: array.shape for name, array in made.feeds(sample).items()} == {"x": (1, 3, 4), "speed": (1, 1)}
    np.savez(tmp_path / "a.npz", **sample)
    assert {name: array.dtype for name, array in made.feeds(tmp_path / "a.npz").items()} == {"x": "f4", "speed": "f4"}
    for bad, hint in [
        ({"x": np.ones((3, 4))}, "the network takes x, speed"),
        ({**sample, "y": np.ones(2)}, "holds x, speed, y"),
        ({**sample, "x": np.ones((4, 3))}, "is 4x3, not 3x4"),
        ({**sample, "speed": np.float64(3)}, "is one number, not 1"),
    ]:
        with pytest.raises(DataError, match=hint):
            made.feeds(bad)
    named = Tensors((ArraySpec("window", (3, 4)),))
    assert list(named.feeds(np.ones((3, 4)))) == ["window"], "a lone array needs no name"


@given(st.integers(1, 6), st.sampled_from([None, 0, 1, -1]), st.floats(-1e4, 1e4), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_figures_are_numpys_own(count: int, axis: int | None, offset: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    arrays = [(draw.normal(offset, 3, (5, 4)) * [1, 10, 0.1, 1]).astype(np.float32) for _ in range(count)]
    (spec,) = Tensors.of(arrays, axis).arrays
    stacked = np.stack(arrays).astype(np.float64)
    over = None if axis is None else tuple(a for a in range(3) if a != axis % 2 + 1)
    np.testing.assert_allclose(spec.mean, np.ravel(stacked.mean(over)), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(spec.std, np.ravel(stacked.std(over)), rtol=1e-5)
    mean, std = spec.scaling or (None, None)
    assert mean is not None
    assert std is not None
    scaled = (stacked - mean) / std
    np.testing.assert_allclose(scaled.mean(over), 0, atol=1e-2)
    np.testing.assert_allclose(scaled.std(over), 1, rtol=1e-3)


def test_a_column_that_never_varies_is_not_divided_by_nothing() -> None:
    (spec,) = Tensors.of([np.array([1.0, 5.0]), np.array([2.0, 5.0])], axis=0).arrays
    assert (spec.mean, spec.std) == ((1.5, 5.0), (0.5, 1.0))


def test_a_sample_of_another_shape_is_named(tmp_path: Path) -> None:
    for index, length in enumerate((4, 4, 5)):
        np.save(tmp_path / f"{index}.npy", np.ones(length))
    with pytest.raises(DataError, match=r"2\.npy is 5, not 4"):
        Tensors.of(sorted(tmp_path.glob("*.npy")))
    with pytest.raises(DataError, match="no array"):
        Tensors.of([])


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": ()},
        {"shape": (0, 4)},
        {"name": ""},
        {"axis": 2},
        {"mean": (1.0, 2.0)},
        {"std": (1.0, 1.0, 1.0, 0.0)},
        {"std": (1.0, 1.0, 1.0, float("nan"))},
    ],
)
def test_definitions_that_mean_nothing(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        replace(SPEC, **changes)
    with pytest.raises(DataError):
        Tensors((SPEC, SPEC))


def test_what_a_user_writes(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps({"kind": "tensor", "arrays": [{"name": "x", "shape": [3, 4]}]}))
    assert read_input(tmp_path / "p.json") == Tensors((ArraySpec("x", (3, 4)),))


@given(st.binary(max_size=200), st.integers(0, 190), st.integers(0, 255))
@settings(deadline=None, max_examples=150)
def test_damaged_bytes_give_an_array_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, place: int, value: int
) -> None:
    content = bytearray(saved(np.arange(8, dtype=np.float32)))
    content[min(place, len(content) - 1)] = value
    file = tmp_path_factory.getbasetemp() / "fuzzed.npy"
    file.write_bytes(bytes(content[:150]) + tail)
    try:
        found = KIND.fingerprint(file)
    except DataError as error:
        found = str(error)
    assert len(found) == 64 or (str(file) in found and "\n" not in found)
