"""What every kind of input says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from edgetl.core.data import Content
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

    @property
    def files(self) -> Mapping[str, bytes]:
        """What travels beside the record in a run and in a bundle: name → content; the record holds each one's hash."""
        ...

    def feeds(self, source: Any) -> dict[str, npt.NDArray[Any]]:
        """One sample, from its file or from what a program holds instead (a file's bytes, an image, a text, an array).

        Returns:
            an array for each of :attr:`tensors`, with a first axis of 1.

        Raises:
            DataError: the file is missing or damaged, or no such sample.
        """
        ...

    def batch(self, sources: Iterable[Any]) -> dict[str, npt.NDArray[Any]]:
        """Several samples: as :meth:`feeds`, with a first axis of n.

        Raises:
            DataError: there is no sample, or as :meth:`feeds` does.
        """
        ...

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, ``kind`` among them."""
        ...


@dataclass(frozen=True)
class InputKind:
    """One kind of input.

    Attributes:
        name: as in records.
        about: one line: which files, and what becomes of them.
        noun: one sample, in messages; its plural ends in s.
        suffixes: of its files, in lower case, the commonest first.
        read: the record and the folder that holds its :attr:`Input.files` → the definition; raises DataError.
        fields: that a user may write, but for ``kind``.
        given: the same as ``read`` of what a user wrote, in which what has a sensible value may be left out.
        fingerprint: SHA-256 of what a file holds once it is decoded, equal for copies of one sample in different
            files; raises DataError for a file that is no such sample.
        remark: what the owner of a file should know of how it is read, by a look at its head; "" if nothing.
        taken, look: see :class:`edgetl.core.data.Content`; of pictures alone.
        modules: that reading a sample takes, besides numpy.
    """

    name: str
    about: str
    noun: str
    suffixes: tuple[str, ...]
    read: Callable[[Mapping[str, Any], Path], Input]
    fields: frozenset[str]
    given: Callable[[Mapping[str, Any], Path], Input]
    fingerprint: Callable[[Path], str]
    remark: Callable[[Path], str] | None = None
    taken: Callable[[Path], tuple[str, float] | None] | None = None
    look: Callable[[Path], npt.NDArray[np.bool_]] | None = None
    modules: tuple[str, ...] = ()

    @property
    def content(self) -> Content:
        """What a data set of such files asks of them."""
        return Content(self.noun, self.fingerprint, self.remark, self.taken, self.look)
