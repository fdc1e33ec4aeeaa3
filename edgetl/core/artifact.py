"""A model file of a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Artifact:
    """A model file for one runtime.

    Attributes:
        backend: key into ``edgetl.backends.BACKENDS``.
        path: the file the runtime opens (``.onnx``, ``.xml`` with a ``.bin`` beside it, ``.engine``, ``.tflite`` with
            the ``.onnx`` beside it that edgetl converted it from, if it did).
        precision: what it was compressed to.
        device: the runtime's own device name (OpenVINO: CPU, GPU, NPU); "" where there is no choice.
    """

    backend: str
    path: Path
    precision: str
    device: str = ""

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
