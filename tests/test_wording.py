"""Figures in words."""

from __future__ import annotations

import pytest

from edgetl.base import wording


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (wording.percent(0.01234), "1.23 %"),
        (wording.percent(1.0, 0), "100 %"),
        (wording.percent(None), "—"),
        (wording.points(-0.01234), "−1.23"),
        (wording.points(0.01), "+1.00"),
        (wording.points(-0.00001), "0.00"),
        (wording.in_points(-0.01), "−1.00 points"),
        (wording.span(-0.02, 0.004), "−2.00 to +0.40"),
        (wording.span(None, 0.004), "—"),
        (wording.number(1234.5), "1,234"),
        (wording.number(-0.012345), "−0.0123"),
        (wording.number(-0.0, "ms"), "0 ms"),
        (wording.number(float("-inf")), "−inf"),
        (wording.signed(0.5), "+0.500"),
        (wording.signed(-0.5), "−0.500"),
        (wording.signed(None), "—"),
        (wording.plain(-2.50), "−2.5"),
        (wording.small(3e-5), "<0.0001"),
        (wording.count(12345), "12,345"),
        (wording.counted(1, "image"), "1 image"),
        (wording.counted(1240, "text"), "1,240 texts"),
        (wording.times(2.0), "2.00x"),
        (wording.figure(0.5, "share"), "50.00 %"),
        (wording.figure(-0.5, ""), "−0.5"),
        (wording.change(-0.0123, "share"), "−1.23 points"),
        (wording.change(-0.0123, "labels"), "−0.0123"),
        (wording.change(0.0, "labels"), "0"),
        (wording.amount(0.01, "share"), "1 point"),
        (wording.amount(0.015, "share"), "1.5 points"),
        (wording.amount(0.25, "labels"), "0.25"),
        (wording.printable("a\x1b[2Jb"), "a\ufffd[2Jb"),
    ],
)
def test_figures(shown: str, expected: str) -> None:
    assert shown == expected
