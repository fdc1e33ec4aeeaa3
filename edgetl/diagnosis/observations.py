"""What a certify run saw, as diagnosis reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]
#: Names of the rungs that diagnosis knows.
REFERENCE, FLOAT, DEPLOYED = "reference", "float ONNX", "deployed"


@dataclass(frozen=True)
class Observations:
    """The answers of a reference, of its float ONNX file and of the deployed artifact to the same image files.

    Attributes:
        paths: the image files, n of them.
        labels: true class indexes, int64 (n,).
        logits: rung → float32 (n, classes); the rungs read here are "reference", "float ONNX" and "deployed".
        simulated: whether the deployed artifact was simulated on this machine; None where another program ran it.
    """

    paths: Sequence[Path]
    labels: npt.NDArray[np.int64]
    logits: Mapping[str, Logits]
    simulated: bool | None
