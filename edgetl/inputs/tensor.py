"""From numpy's files to a network's input: sensor windows, rows of a table, spectrograms, arrays of any fixed shape."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError
from edgetl.base.storage import sha256_json
from edgetl.core.tensors import TensorSpec
from edgetl.inputs.arrays import fingerprint, plain, read_arrays
from edgetl.inputs.base import InputKind

#: What the only array of an .npy file is called.
ONLY = "x"
#: Bytes of the largest number in a file, and of what surrounds the numbers of one array there.
_WIDEST, _AROUND = 16, 1 << 12
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ArraySpec:
    """One array of a sample.

    Attributes:
        name: of the network's input, and in .npz files.
        shape: sizes, without the axis of samples.
        mean, std: none, or one of each, or one for each place along ``axis``; subtracted and divided by inside the
            graph, in the array's own unit.
        axis: of the sample, counted from 0, or from the end if negative.
    """

    name: str
    shape: tuple[int, ...]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    axis: int = -1

    def __post_init__(self) -> None:
        if not self.name or not self.shape or min(self.shape) < 1:
            raise DataError(f"the array '{self.name}' has the shape {list(self.shape)}", "give a name and sizes from 1")
        if not -len(self.shape) <= self.axis < len(self.shape):
            raise DataError(f"the array '{self.name}' has no axis {self.axis}", f"it has {len(self.shape)}")
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        counts = {0, 1, self.shape[self.axis]}
        if (
            len(self.mean) != len(self.std)
            or len(self.mean) not in counts
            or not finite
            or min(self.std, default=1) <= 0
        ):
            wanted = f"none, one, or {self.shape[self.axis]} of each, and std positive"
            raise DataError(f"mean and std of the array '{self.name}' do not fit it", f"give {wanted}")

    @property
    def scaling(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
        """Mean and standard deviation, float32, of as many axes as a batch (n, …) has; None where there are none."""
        if not self.mean:
            return None
        sizes = [1] * len(self.shape)
        sizes[self.axis] = len(self.mean)
        mean, std = (np.array(values, np.float32).reshape(1, *sizes) for values in (self.mean, self.std))
        return mean, std

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        sizes, mean, std = list(self.shape), list(self.mean), list(self.std)
        return {"name": self.name, "shape": sizes, "mean": mean, "std": std, "axis": self.axis}


@dataclass(frozen=True)
class Tensors:
    """What becomes of a file of arrays before the network sees it: it is checked, and is float32.

    Attributes:
        arrays: one for each of the network's inputs.
    """

    kind: ClassVar[str] = "tensor"

    arrays: tuple[ArraySpec, ...]

    def __post_init__(self) -> None:
        if not self.arrays or len({spec.name for spec in self.arrays}) < len(self.arrays):
            raise DataError("a tensor input needs arrays of different names", "name each one once")

    @classmethod
    def of(cls, files: Sequence[Path | Array | Mapping[str, Array]], axis: int | None = None) -> Tensors:
        """The definition that fits samples: shapes of the first one, and mean and standard deviation over all.

        Args:
            files: of the train split, or the arrays themselves.
            axis: of the sample, along which each place has a mean and a standard deviation of its own, such as -1 for
                the columns of a table; None: one of each for all. Where nothing varies, the standard deviation is 1.

        Raises:
            DataError: there is no sample, or one has another shape than the first.
        """
        if not files:
            raise DataError("there is no array to take the shape from", "give at least one sample")
        chosen = -1 if axis is None else axis
        first = {name: ArraySpec(name, values.shape, axis=chosen) for name, values in _held(files[0]).items()}
        plainly = cls(tuple(first.values()))
        sums = {name: _Moments() for name in first}
        for file in files:
            for name, values in plainly.feeds(file).items():
                along = None if axis is None else axis % (values.ndim - 1) + 1
                sums[name].add(values, along)
        specs = (
            ArraySpec(name, spec.shape, *sums[name].mean_and_std(), axis=spec.axis) for name, spec in first.items()
        )
        return cls(tuple(specs))

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The arrays, float32 (n, …)."""
        return tuple(TensorSpec(spec.name, "float32", (None, *spec.shape)) for spec in self.arrays)

    @property
    def files(self) -> Mapping[str, bytes]:
        """None."""
        return {}

    def feeds(self, source: Path | str | bytes | Array | Mapping[str, Array]) -> dict[str, Array]:
        """One sample, from an .npy or .npz file or the bytes of one, or as its array, or as arrays by name.

        Returns:
            an array for each of :attr:`tensors`, float32 (1, …), not yet normalised.

        Raises:
            DataError: missing or damaged, of other names or shapes, or with values that are no finite numbers.
        """
        if isinstance(source, bytes):
            most = sum(math.prod(spec.shape) * _WIDEST + _AROUND for spec in self.arrays)
            held = read_arrays(source, ONLY, most)
        else:
            held = _held(source)
        where = str(source) if isinstance(source, (str, Path)) else "the sample"
        names = [spec.name for spec in self.arrays]
        if list(held) == [ONLY] and len(names) == 1:
            held = {names[0]: held[ONLY]}
        if set(held) != set(names):
            shown = f"{', '.join(held) or 'nothing'}; the network takes {', '.join(names)}"
            raise DataError(f"{where} holds {shown}", "name its arrays so")
        for spec in self.arrays:
            if held[spec.name].shape != spec.shape:
                found, wanted = ("x".join(map(str, sizes)) for sizes in (held[spec.name].shape, spec.shape))
                raise DataError(
                    f"the array '{spec.name}' of {where} is {found or 'one number'}, not {wanted}", "reshape it"
                )
        return {name: plain(held[name], where).astype(np.float32, order="C")[None] for name in names}

    def batch(self, sources: Iterable[Any]) -> dict[str, Array]:
        """Several samples: float32 (n, …).

        Raises:
            DataError: there is none, or as :meth:`feeds` does.
        """
        rows = [self.feeds(source) for source in sources]
        if not rows:
            raise DataError("there is no sample", "give at least one")
        return {spec.name: np.concatenate([row[spec.name] for row in rows]) for spec in self.arrays}

    @property
    def digest(self) -> str:
        """SHA-256 of the definition."""
        return sha256_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"kind": self.kind, "arrays": [spec.to_json() for spec in self.arrays]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Tensors:
        """Read what :meth:`to_json` wrote; mean, std and axis may be left out.

        Raises:
            DataError: a field is missing or of the wrong kind.
        """
        try:
            return cls(
                tuple(
                    ArraySpec(
                        str(entry["name"]),
                        tuple(int(size) for size in entry["shape"]),
                        tuple(float(value) for value in entry.get("mean", ())),
                        tuple(float(value) for value in entry.get("std", ())),
                        int(entry.get("axis", -1)),
                    )
                    for entry in record["arrays"]
                )
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DataError(f"the definition of the tensor input is malformed ({error})", "make it again") from error


class _Moments:
    """Mean and standard deviation of many arrays, one at a time, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.sum: npt.NDArray[np.float64] = np.zeros(1)
        self.squares: npt.NDArray[np.float64] = np.zeros(1)
        self.origin: npt.NDArray[np.float64] | None = None

    def add(self, values: Array, axis: int | None) -> None:
        flat = values.reshape(1, -1) if axis is None else np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
        wide = flat.astype(np.float64)
        # Sums of squares about zero would lose the digits of values that are far from it.
        self.origin = wide.mean(1) if self.origin is None else self.origin
        about = wide - self.origin[:, None]
        self.count += about.shape[1]
        self.sum = self.sum + about.sum(1)
        self.squares = self.squares + (about**2).sum(1)

    def mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        assert self.origin is not None
        about = self.sum / self.count
        std = np.sqrt(np.maximum(self.squares / self.count - about**2, 0))
        mean = self.origin + about
        still = std <= 1e-7 * np.maximum(np.abs(mean), 1e-30)
        return tuple(map(float, mean)), tuple(map(float, np.where(still, 1.0, std)))


def _held(source: Path | str | Array | Mapping[str, Array]) -> dict[str, Array]:
    if isinstance(source, (str, Path)):
        return read_arrays(Path(source), ONLY)
    if isinstance(source, Mapping):
        return {str(name): np.asarray(values) for name, values in source.items()}
    return {ONLY: np.asarray(source)}


KIND = InputKind(
    name=Tensors.kind,
    about="arrays of one shape in .npy or .npz files (sensor windows, table rows, spectrograms); float32",
    noun="array",
    suffixes=(".npy", ".npz"),
    read=lambda record, folder: Tensors.from_json(record),
    fields=frozenset({"arrays"}),
    given=lambda record, folder: Tensors.from_json(record),
    fingerprint=lambda path: fingerprint(path, ONLY),
)
