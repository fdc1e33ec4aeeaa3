"""A model file of a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class HeadValues:
    """Values for a head that stands open in an artifact, in the place of those that it was exported with.

    Attributes:
        weight_name, bias_name: what they are called in the artifact.
        transposed: whether it has the weight as (features, classes).
        weight, bias: float32 (classes, features) and (classes,), of any number of classes.
    """

    weight_name: str
    bias_name: str
    transposed: bool
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    @property
    def stored(self) -> npt.NDArray[np.float32]:
        """The weight as the artifact has it."""
        return np.ascontiguousarray(self.weight.T if self.transposed else self.weight)


@dataclass(frozen=True)
class Artifact:
    """A model file for one runtime.

    Attributes:
        backend: key into ``edgetl.backends.BACKENDS``.
        path: the file the runtime opens (``.onnx``, ``.xml`` with a ``.bin`` beside it, ``.engine``, ``.tflite`` with
            the ``.onnx`` beside it that edgetl converted it from, if it did).
        precision: what it was compressed to.
        device: the runtime's own device name (OpenVINO: CPU, GPU, NPU); "" where there is no choice.
        head: what its head is fed with; None for what the file has.
    """

    backend: str
    path: Path
    precision: str
    device: str = ""
    head: HeadValues | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that belongs to the artifact."""
        weights = self.path.with_suffix(".bin")
        return (self.path, weights) if self.path.suffix == ".xml" else (self.path,)

    @property
    def graph(self) -> Path:
        """The file that tells how each layer is quantized: the artifact itself, or what it was converted from."""
        beside = self.path.with_suffix(".onnx")
        return beside if self.path.suffix == ".tflite" and beside.is_file() else self.path

    @property
    def size_bytes(self) -> int:
        """Size on disk."""
        return sum(file.stat().st_size for file in self.files)
