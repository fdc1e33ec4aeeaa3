"""What every kind of input says of itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy.typing as npt

from edgetl.core.tensors import TensorSpec


class Input(Protocol):
    """How one sample becomes the arrays that a network is fed: a frozen dataclass of plain values.

    Attributes:
        kind: key into :data:`edgetl.inputs.INPUTS`; absent in older records, where it is ``image``.
    """

    kind: ClassVar[str]

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The network's inputs, in order."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the definition: equal for equal ones, different when anything of them is."""
        ...

    def feeds(self, source: Path | Any) -> dict[str, npt.NDArray[Any]]:
        """One sample, from its file or from what a program holds instead (an image, a text, an array).

        Returns:
            an array for each of :attr:`tensors`, with a first axis of 1.

        Raises:
            DataError: the file is missing or damaged, or no such sample.
        """
        ...

    def batch(self, sources: Iterable[Path | Any]) -> dict[str, npt.NDArray[Any]]:
        """Several samples: as :meth:`feeds`, with a first axis of n."""
        ...

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, ``kind`` among them."""
        ...
