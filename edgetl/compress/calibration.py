"""The samples that a model is calibrated on, and the ranges that they give a recipe."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.extras import version
from edgetl.base.progress import Progress, silent
from edgetl.base.storage import sha256_bytes, sha256_file, sha256_json, write_bytes
from edgetl.compress.layers.ranges import Observed, estimate, extremes, observe
from edgetl.compress.recipes import Recipe
from edgetl.core.npz import read_npz
from edgetl.core.tensors import Arrays

Ranges = dict[str, tuple[float, float]]
#: Values of an asymmetric 8-bit grid, and of one that is symmetric about a zero of its own.
_LEVELS, _SYMMETRIC_LEVELS = 256, 255
_FORMAT = 2


@dataclass(frozen=True, eq=False)
class Calibration:
    """What an engine calibrates with.

    Attributes:
        batches: inputs by name, (n, …) each, n being the model's batch size, or 1 if it takes any.
        cache: folder where observations are kept, so that another recipe on the same samples needs no inference.
        progress: told of each batch.
    """

    batches: tuple[Arrays, ...]
    cache: Path | None = None
    progress: Progress = silent

    def ranges(self, model: Path, prepared: Path, recipe: Recipe) -> Ranges:
        """The range of every float activation, as the recipe estimates it.

        Args:
            model: float ONNX file that is quantized: with the samples, what observations are kept under.
            prepared: the same with the tensors that the engine quantizes.
            recipe: its estimator.

        Raises:
            CompressionError: a tensor is not finite.
        """
        kept = self.cache / f"{self._key(model)}.npz" if self.cache else None
        if recipe.estimator == "min-max" and not (kept and kept.is_file()):
            ends = self._extremes(prepared, kept.with_suffix(".ends.npz") if kept else None)
            return {name: _range(low, high, recipe) for name, (low, high) in ends.items()}
        return {
            name: estimate(observed, recipe.estimator, recipe.percentile, recipe.activations_symmetric, _levels(recipe))
            for name, observed in self._observed(prepared, kept).items()
        }

    def _key(self, model: Path) -> str:
        samples = [{name: _digest(values) for name, values in batch.items()} for batch in self.batches]
        inputs = {"format": _FORMAT, "model": sha256_file(model), "samples": samples}
        return f"ranges-{sha256_json({**inputs, 'onnxruntime': version('onnxruntime')})[:32]}"

    def _extremes(self, prepared: Path, kept: Path | None) -> Ranges:
        if kept and (stored := _read(kept)):
            return {str(n): (float(a), float(b)) for n, (a, b) in zip(stored["names"], stored["ends"], strict=True)}
        found = extremes(prepared, self.batches, self.progress)
        if kept:
            _write(kept, names=np.array(list(found)), ends=np.array(list(found.values())))
        return found

    def _observed(self, prepared: Path, kept: Path | None) -> dict[str, Observed]:
        if kept and (stored := _read(kept)):
            rows = zip(stored["names"], stored["ends"], stored["histograms"], strict=True)
            return {str(n): Observed(float(a), float(b), h, float(c), float(d)) for n, (a, b, c, d), h in rows}
        found = observe(prepared, self.batches, self.progress)
        if kept:
            values = found.values()
            ends = np.array([(o.low, o.high, o.edges_low, o.edges_high) for o in values])
            _write(kept, names=np.array(list(found)), ends=ends, histograms=np.array([o.histogram for o in values]))
        return found


def _digest(values: npt.NDArray[Any]) -> str:
    return f"{values.dtype}{values.shape}{sha256_bytes(np.ascontiguousarray(values).tobytes())}"


def _levels(recipe: Recipe) -> int:
    return _SYMMETRIC_LEVELS if recipe.activations_symmetric else _LEVELS


def _range(low: float, high: float, recipe: Recipe) -> tuple[float, float]:
    limit = max(abs(low), abs(high))
    return (-limit, limit) if recipe.activations_symmetric else (low, high)


def _read(file: Path) -> dict[str, npt.NDArray[Any]]:
    """What was kept; nothing where it is not there, or not whole: it is observed again."""
    try:
        return read_npz(file)
    except (OSError, ValueError):
        return {}


def _write(file: Path, **arrays: npt.NDArray[Any]) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    write_bytes(file, stream.getvalue())
