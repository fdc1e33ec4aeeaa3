"""Files of heads: what was written is read, and what anybody else wrote is refused in one line."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgetl.base.errors import BundleError
from edgetl.base.storage import canonical_json
from edgetl.core.class_rule import ClassRule
from edgetl.core.head_file import (
    BASE,
    BaseHead,
    EnrolledClass,
    EnrolledHead,
    base_content,
    enrolled_content,
    objection,
    read_base,
    read_enrolled,
)

ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, shape).astype(np.float32)


def base(seed: int = 0, classes: int = 3, width: int = 4, matrix: tuple[int, ...] = (4, 4)) -> BaseHead:
    rule = ClassRule(bool(seed % 2), True, 0.5, -1.25, drawn(seed, width), drawn(seed + 1, *matrix))
    return BaseHead(drawn(seed + 2, classes, width), drawn(seed + 3, classes), rule)


def added(names: tuple[str, ...] = ("cup", "größe 2"), width: int = 4) -> EnrolledHead:
    classes = tuple(EnrolledClass(name, (f"{n:064d}", "f" * 64), "device") for n, name in enumerate(names))
    rows = len(classes)
    return EnrolledHead("d" * 64, "b" * 64, classes, drawn(1, rows, width), drawn(2, rows, width), drawn(3, rows))


def sealed(magic: bytes, header: bytes, numbers: bytes) -> bytes:
    whole = magic + len(header).to_bytes(4, "little") + header + numbers
    return whole + hashlib.sha256(whole).digest()


@ONE_FOLDER
@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 6), st.sampled_from(["identity", "diagonal", "full"]))
def test_a_base_head_is_read_as_it_was_written(tmp_path: Path, seed: int, classes: int, width: int, kind: str) -> None:
    matrix = {"identity": (0,), "diagonal": (width,), "full": (width, width)}[kind]
    head = base(seed, classes, width, matrix)
    (tmp_path / "h").write_bytes(base_content(head))
    read = read_base(tmp_path / "h")
    assert base_content(read) == base_content(head)
    assert (read.rule.unit, read.rule.quadratic, read.rule.gain) == (head.rule.unit, True, 0.5)
    assert np.array_equal(read.weight, head.weight)
    assert read.rule.matrix.shape == matrix


@ONE_FOLDER
@given(st.lists(st.text(min_size=1, max_size=12).filter(lambda name: objection(name) is None), min_size=1, unique=True))
def test_added_classes_are_read_as_they_were_written(tmp_path: Path, names: list[str]) -> None:
    head = added(tuple(names))
    (tmp_path / "h").write_bytes(enrolled_content(head))
    read = read_enrolled(tmp_path / "h")
    assert read.classes == head.classes
    assert np.array_equal(read.means, head.means)
    assert enrolled_content(read) == enrolled_content(head)


@ONE_FOLDER
@given(st.data())
def test_no_byte_can_be_changed_or_left_out(tmp_path: Path, data: st.DataObject) -> None:
    content = enrolled_content(added())
    at = data.draw(st.integers(0, len(content) - 1))
    cut = data.draw(st.booleans())
    flipped = bytes([content[at] ^ data.draw(st.integers(1, 255))])
    (tmp_path / "h").write_bytes(content[:at] if cut else content[:at] + flipped + content[at + 1 :])
    with pytest.raises(BundleError, match="no head that this edgetl reads"):
        read_enrolled(tmp_path / "h")


@ONE_FOLDER
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    for whole in (content, BASE + content, sealed(BASE, b"{}", content), sealed(BASE, content, b"")):
        (tmp_path / "h").write_bytes(whole)
        with pytest.raises(BundleError) as refused:
            read_base(tmp_path / "h")
        assert "\n" not in str(refused.value)


HEADER: dict[str, Any] = {
    "classes": 2, "features": 3, "unit": False, "quadratic": True, "gain": 1.0, "offset": 0.0, "matrix": "identity",
    "schema": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "floats", "words"),
    [
        ({}, 10, "holds 40 bytes of numbers, not 44"),
        ({"matrix": "full"}, 11, "holds 44 bytes of numbers, not 80"),
        ({"classes": 1 << 40}, 11, "is impossible"),
        ({"classes": -1}, 11, "is impossible"),
        ({"features": 0}, 11, "is impossible"),
        ({"features": 1 << 16, "matrix": "full"}, 11, "bytes of numbers, not"),
        ({"matrix": "cubic"}, 11, "matrix is"),
        ({"gain": "much"}, 11, "gain is"),
        ({"schema": 2}, 11, "schema is"),
    ],
)
def test_sizes_that_are_not_there_are_refused_before_they_are_taken(
    tmp_path: Path, change: dict[str, Any], floats: int, words: str
) -> None:
    file = tmp_path / "head.bin"
    file.write_bytes(sealed(BASE, canonical_json({**HEADER, **change}), np.ones(floats, "<f4").tobytes()))
    with pytest.raises(BundleError, match=words):
        read_base(file)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, number: float) -> None:
    head = added()
    head.weight[1, 2] = number
    (tmp_path / "h").write_bytes(enrolled_content(head))
    with pytest.raises(BundleError, match="not all of its numbers are finite"):
        read_enrolled(tmp_path / "h")


@pytest.mark.parametrize("names", [("a", "a"), ("",), (" cup",), ("..",), ("a/b",), ("a\nb",), ("x" * 201,)])
def test_names_that_no_class_can_have_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    whole = added(("p", "q")[: len(names)])
    header = {
        "bundle": "", "base": "", "features": 4, "schema": 1,
        "classes": [{"name": name, "pictures": ["0"], "executed": "host"} for name in names],
    }  # fmt: skip
    numbers = b"".join(np.ascontiguousarray(a, "<f4").tobytes() for a in (whole.means, whole.weight, whole.bias))
    (tmp_path / "h").write_bytes(sealed(b"ETLNEWC1", canonical_json(header), numbers))
    with pytest.raises(BundleError, match="is impossible"):
        read_enrolled(tmp_path / "h")


def test_one_kind_of_head_is_not_the_other(tmp_path: Path) -> None:
    (tmp_path / "h").write_bytes(base_content(base()))
    with pytest.raises(BundleError, match="it is none"):
        read_enrolled(tmp_path / "h")
    with pytest.raises(BundleError, match="cannot read"):
        read_base(tmp_path / "absent")


def test_a_direction_has_no_length() -> None:
    rule = replace(
        base().rule, unit=True, quadratic=False, centre=np.zeros(4, np.float32), matrix=np.zeros(0, np.float32)
    )
    weight, bias = rule.rows(np.array([[3, 0, 4, 0], [0, 0, 0, 0]], np.float32))
    assert weight.tolist() == [[0.30000001192092896, 0, 0.4000000059604645, 0], [0, 0, 0, 0]]
    assert bias.tolist() == [-1.25, -1.25]
