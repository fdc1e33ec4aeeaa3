"""An .npz file: ``x`` with a sample in each row; ``y``, ``labels`` or ``target``; ``split`` and ``classes``, if any."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError
from edgetl.core.data.labels import Label
from edgetl.core.data.readers.base import Listing, Reader, numbered, write_samples
from edgetl.core.data.readers.columns import splits_of
from edgetl.core.data.samples import Sample
from edgetl.core.npz import read_npz

FOLDER, SUFFIX = "arrays", ".npy"
#: Array of labels → kind of label.
_KINDS = {"y": "class", "labels": "classes", "target": "number"}
_WANTED = "x (n, …) and y (n,) of classes, labels (n, classes) of 0 and 1, or target (n,) of numbers"
#: Bytes that a file may unpack to: so many and so many times its own, which pictures of few colours can reach; and the
#: most of all.
FREE_BYTES, MOST_RATIO, MOST_BYTES = 64 << 20, 256, 1 << 33
Array = npt.NDArray[Any]


def _read(path: Path, into: Path) -> Listing:
    kind = _kind(path)
    try:
        size = path.stat().st_size
        held = read_npz(path, most=min(MOST_BYTES, FREE_BYTES + MOST_RATIO * size))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error})", "save it again, without Python objects") from error
    name = next(key for key, known in _KINDS.items() if known == kind)
    x, given = held["x"], held[name]
    if x.ndim < 2 or not len(x) or not given.ndim or len(given) != len(x) or x.dtype.kind not in "buif":
        shapes = f"x is {x.dtype} {list(x.shape)} and {name} {given.dtype} {list(given.shape)}"
        raise DataError(f"in {path}, {shapes}", f"give {_WANTED}")
    classes, labels = _LABELS[kind](path, given, held)
    splits = _splits(path, held.get("split"), len(x))
    names = numbered(len(x), SUFFIX)
    write_samples(into / FOLDER, {name: _saved(values) for name, values in zip(names, x, strict=True)})
    rows = zip(names, labels, splits, strict=True)
    listed = tuple(Sample(f"{FOLDER}/{name}", label, "", "", split) for name, label, split in rows)
    return Listing(into, classes, listed, kind)


def _kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError(f"{path} is no .npz file ({error})", f"give {_WANTED}") from error
    names = [member.filename.removesuffix(".npy") for member in members]
    if sum(member.file_size for member in members) > MOST_BYTES:
        raise DataError(f"{path} unpacks to more than {MOST_BYTES} bytes", "save the samples one by one")
    found = [kind for name, kind in _KINDS.items() if name in names]
    if "x" not in names or len(found) != 1:
        raise DataError(f"{path} holds {', '.join(names) or 'nothing'}", f"give {_WANTED}")
    return found[0]


def _saved(values: Array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(values), allow_pickle=False)
    return stream.getvalue()


def _one_class(path: Path, y: Array, held: Mapping[str, Array]) -> tuple[tuple[str, ...], list[Label]]:
    if y.ndim != 1 or y.dtype.kind not in "buiU":
        what = f"in {path}, y holds {y.dtype} {list(y.shape)}, no classes"
        raise DataError(what, "give integers or names, or call numbers target")
    values, indexes = np.unique(y, return_inverse=True)
    classes = tuple(str(value) for value in values)
    if "classes" in held:
        names = _names(held)
        if y.dtype.kind == "U" or values.min() < 0 or values.max() >= len(names):
            raise DataError(f"in {path}, y holds no indexes of its {len(names)} classes", "count them from 0")
        classes, indexes = names, y
    if len(classes) < 2:
        raise DataError(f"{path} names {len(classes)} class", "it needs at least 2")
    return classes, [int(index) for index in indexes]


def _some_classes(path: Path, marks: Array, held: Mapping[str, Array]) -> tuple[tuple[str, ...], list[Label]]:
    if marks.ndim != 2 or not np.isin(marks, (0, 1)).all():
        raise DataError(f"in {path}, labels holds {marks.dtype} {list(marks.shape)}", "give 0 and 1 for each class")
    classes = _names(held) if "classes" in held else tuple(str(index) for index in range(marks.shape[1]))
    if len(classes) != marks.shape[1]:
        raise DataError(f"in {path}, labels has {marks.shape[1]} columns", f"there are {len(classes)} classes")
    return classes, [tuple(int(index) for index in np.flatnonzero(row)) for row in marks]


def _numbers(path: Path, target: Array, held: Mapping[str, Array]) -> tuple[tuple[str, ...], list[Label]]:
    flat = target.reshape(len(target), -1)
    if flat.shape[1] != 1 or target.dtype.kind not in "buif" or not np.isfinite(flat).all():
        what = f"in {path}, target holds {target.dtype} {list(target.shape)}"
        raise DataError(what, "give one finite number for each sample")
    return (), [float(value) for value in flat[:, 0]]


_LABELS = {"class": _one_class, "classes": _some_classes, "number": _numbers}


def _names(held: Mapping[str, Array]) -> tuple[str, ...]:
    return tuple(str(name) for name in held["classes"].reshape(-1))


def _splits(path: Path, names: Array | None, count: int) -> list[str]:
    if names is None:
        return [""] * count
    if names.shape != (count,):
        raise DataError(f"in {path}, split is {list(names.shape)}", "give a name for each sample")
    return splits_of(path, map(str, names), itertools.count())


READER = Reader(
    name="arrays",
    about=f"an .npz file with {_WANTED}",
    takes=lambda source: Path(source).suffix.lower() == ".npz" and Path(source).is_file(),
    sniff=lambda path: (SUFFIX, _kind(path)),
    read=_read,
    writes=True,
)
