"""Outputs of a run's models on the split that they are measured on, kept in the run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import RunError
from edgetl.base.storage import write_bytes
from edgetl.core.npz import read_npz
from edgetl.core.tensors import Arrays

#: Of the finalized model, of the start of its training, and of the baseline.
VAL_OUTPUTS, START_OUTPUTS, BASELINE_OUTPUTS = "val.npz", "val-start.npz", "val-baseline.npz"
_OUT = "out."


def write_val_outputs(path: Path, outputs: Arrays, name: str = VAL_OUTPUTS) -> None:
    """Keep a model's outputs on the split that it is measured on, (n, …) in its order, before a manifest seals them."""
    stream = io.BytesIO()
    named: dict[str, Any] = {f"{_OUT}{output}": values for output, values in outputs.items()}
    np.savez(stream, **named)
    write_bytes(path / name, stream.getvalue())


def read_val_outputs(file: Path, samples: int) -> dict[str, npt.NDArray[Any]]:
    """What :func:`write_val_outputs` wrote, for a val split of so many samples.

    Raises:
        RunError: the file holds something else.
    """
    try:
        stored = read_npz(file)
    except (OSError, ValueError) as error:
        raise RunError(f"{file} is damaged", "train the run again") from error
    arrays = {name.removeprefix(_OUT): values for name, values in stored.items() if name.startswith(_OUT)}
    fits = all(v.ndim and len(v) == samples and v.dtype.kind == "f" for v in arrays.values())
    if not arrays or not fits:
        raise RunError(f"{file} holds no outputs of the {samples} samples of the val split", "train the run again")
    return arrays
