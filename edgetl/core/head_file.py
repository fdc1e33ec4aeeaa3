"""Heads of class means in files of one fixed form, which a program in C reads as well: see ``docs/few-shot.md``.

    8 bytes    the magic, :data:`BASE` or :data:`ENROLLED`
    4 bytes    length of the header, little-endian
    header     canonical JSON, UTF-8
    numbers    float32, little-endian, arrays one after the other, whose sizes follow from the header alone
    32 bytes   SHA-256 of all that stands before

A file may come from anybody: its length is compared with what its header asks for before any of it is taken for
numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import BundleError
from edgetl.base.schema import from_json, to_json
from edgetl.base.storage import canonical_json, parse_json
from edgetl.core.class_rule import ClassRule

Floats = npt.NDArray[np.float32]
#: Where features were computed.
Executed = Literal["host", "device", "simulated"]
BASE, ENROLLED = b"ETLHEAD1", b"ETLNEWC1"
_DIGEST, _COUNT = 32, 4
#: Largest header, numbers of features and of classes, and bytes of a file.
MOST_HEADER, MOST_FEATURES, MOST_CLASSES, MOST_BYTES = 16 << 20, 1 << 16, 1 << 16, 1 << 30
#: Characters of a class's name, and pictures of it that are remembered.
MOST_NAME, MOST_PICTURES = 200, 100_000
_AGAIN = "export the bundle again"
_Header = TypeVar("_Header")


@dataclass(frozen=True)
class BaseHead:
    """The head that was certified, and the rule that made its rows.

    Attributes:
        weight, bias: float32 (classes, features) and (classes,).
        rule: from a class's mean to its row.
    """

    weight: Floats
    bias: Floats
    rule: ClassRule


@dataclass(frozen=True)
class EnrolledClass:
    """A class that was added on a device.

    Attributes:
        name: as answers name it.
        pictures: SHA-256 of each sample that its mean is of.
        executed: where their features were computed: host, device or simulated.
    """

    name: str
    pictures: tuple[str, ...]
    executed: Executed


@dataclass(frozen=True)
class EnrolledHead:
    """Classes that were added to a bundle's head; its own rows are not in here.

    Attributes:
        bundle: digest of the manifest whose bundle they were added to.
        base: SHA-256 of that bundle's head file.
        classes: in the order of their rows, which follow the bundle's own.
        means, weight, bias: float32 (classes, features), the same, and (classes,).
    """

    bundle: str
    base: str
    classes: tuple[EnrolledClass, ...]
    means: Floats
    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class _BaseHeader:
    classes: int
    features: int
    unit: bool
    quadratic: bool
    gain: float
    offset: float
    matrix: Literal["identity", "diagonal", "full"]
    schema: Literal[1] = 1

    def __post_init__(self) -> None:
        _check_sizes(self.classes, self.features)

    def shapes(self) -> list[tuple[int, ...]]:
        n, d = self.classes, self.features
        return [(n, d), (n,), (d,), {"identity": (0,), "diagonal": (d,), "full": (d, d)}[self.matrix]]


@dataclass(frozen=True)
class _EnrolledHeader:
    bundle: str
    base: str
    features: int
    classes: tuple[EnrolledClass, ...]
    schema: Literal[1] = 1

    def __post_init__(self) -> None:
        _check_sizes(len(self.classes), self.features)
        names = [one.name for one in self.classes]
        if len(set(names)) < len(names):
            raise ValueError("a class stands there twice")
        for one in self.classes:
            if why := objection(one.name):
                raise ValueError(why)
            if not 0 < len(one.pictures) <= MOST_PICTURES:
                raise ValueError(f"{one.name} is of {len(one.pictures)} pictures")

    def shapes(self) -> list[tuple[int, ...]]:
        n, d = len(self.classes), self.features
        return [(n, d), (n, d), (n,)]


def objection(name: str) -> str | None:
    """Why a class cannot be called so; None if it can."""
    # A folder of held-out samples is called so, too.
    if not name.strip(" .") or name != name.strip() or not name.isprintable() or set(name) & set("/\\"):
        return f"{name!a:.60} is no name of a class"
    return None if len(name) <= MOST_NAME else f"the name {name[:20]}… is longer than {MOST_NAME} characters"


def base_content(head: BaseHead) -> bytes:
    """The bytes of a base head's file."""
    rule, (classes, width) = head.rule, head.weight.shape
    matrix: Literal["identity", "diagonal", "full"] = "identity"
    if rule.matrix.size:
        matrix = "diagonal" if rule.matrix.ndim == 1 else "full"
    header = _BaseHeader(classes, width, rule.unit, rule.quadratic, rule.gain, rule.offset, matrix)
    return _content(BASE, to_json(header), (head.weight, head.bias, rule.centre, rule.matrix))


def enrolled_content(head: EnrolledHead) -> bytes:
    """The bytes of an enrolled head's file."""
    header = _EnrolledHeader(head.bundle, head.base, head.means.shape[1], head.classes)
    return _content(ENROLLED, to_json(header), (head.means, head.weight, head.bias))


def _content(magic: bytes, header: Mapping[str, object], arrays: Sequence[Floats]) -> bytes:
    told = canonical_json(header)
    numbers = b"".join(np.ascontiguousarray(array, "<f4").tobytes() for array in arrays)
    whole = magic + len(told).to_bytes(_COUNT, "little") + told + numbers
    return whole + hashlib.sha256(whole).digest()


def read_base(file: Path) -> BaseHead:
    """Read a base head.

    Raises:
        BundleError: missing, too large, damaged, or of another form.
    """
    read = _Reader(file, BASE, _AGAIN)
    header = read.header(_BaseHeader)
    weight, bias, centre, matrix = read.arrays(header.shapes())
    rule = ClassRule(header.unit, header.quadratic, header.gain, header.offset, centre, matrix)
    return BaseHead(weight, bias, rule)


def read_enrolled(file: Path) -> EnrolledHead:
    """Read an enrolled head.

    Raises:
        BundleError: missing, too large, damaged, or of another form.
    """
    read = _Reader(file, ENROLLED, f"remove it: {file.name} holds only what edgetl enroll added")
    header = read.header(_EnrolledHeader)
    means, weight, bias = read.arrays(header.shapes())
    return EnrolledHead(header.bundle, header.base, header.classes, means, weight, bias)


class _Reader:
    """A file's content, of which nothing is believed before it was checked."""

    def __init__(self, file: Path, magic: bytes, remedy: str) -> None:
        self.file, self.remedy = file, remedy
        try:
            size = file.stat().st_size
            if size > MOST_BYTES:
                raise self._refused(f"it has {size} bytes, more than {MOST_BYTES}")
            content = file.read_bytes()
        except OSError as error:
            raise BundleError(f"cannot read {file} ({error.strerror or error})", remedy) from error
        start = len(magic) + _COUNT
        if len(content) < start + _DIGEST or content[: len(magic)] != magic:
            raise self._refused("it is none")
        length = int.from_bytes(content[len(magic) : start], "little")
        if length > min(MOST_HEADER, len(content) - start - _DIGEST):
            raise self._refused(f"its header would have {length} bytes")
        if hashlib.sha256(content[:-_DIGEST]).digest() != content[-_DIGEST:]:
            raise self._refused("it was altered or damaged (its digest does not match)")
        self._header, self._numbers = content[start : start + length], content[start + length : -_DIGEST]

    def header(self, cls: type[_Header]) -> _Header:
        try:
            value = parse_json(self._header)
        except ValueError as error:
            raise self._refused(f"its header is no JSON ({error})") from error
        return from_json(cls, value, self.file, BundleError, self.remedy)

    def arrays(self, shapes: Sequence[tuple[int, ...]]) -> list[Floats]:
        sizes = [math.prod(shape) for shape in shapes]
        if 4 * sum(sizes) != len(self._numbers):
            raise self._refused(f"it holds {len(self._numbers)} bytes of numbers, not {4 * sum(sizes)}")
        values = np.frombuffer(self._numbers, "<f4").astype(np.float32)
        if not np.isfinite(values).all():
            raise self._refused("not all of its numbers are finite")
        parts = np.split(values, np.cumsum(sizes)[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def _refused(self, why: str) -> BundleError:
        return BundleError(f"{self.file} is no head that this edgetl reads: {why}", self.remedy)


def _check_sizes(classes: int, features: int) -> None:
    if not 0 < classes <= MOST_CLASSES or not 0 < features <= MOST_FEATURES:
        raise ValueError(f"{classes} classes of {features} features")
