"""Figures in words: one minus sign and one way to print points, in certificates, reports and on the console.

Numbers in prose have the true minus sign (U+2212); in files they are JSON's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

#: Stands wherever nothing was measured.
ABSENT = "—"
MINUS = "\u2212"


def percent(share: float | None, digits: int = 2) -> str:
    """A share from 0 to 1 as a percentage: ``0.0123`` as ``1.23 %``."""
    return ABSENT if share is None else _minus(f"{100 * share:.{digits}f} %")


def points(difference: float | None, digits: int = 2) -> str:
    """A difference of two shares as the number of percentage points, with its sign: ``-0.0123`` as ``−1.23``."""
    if difference is None:
        return ABSENT
    return shifted(100 * difference, digits)


def in_points(difference: float) -> str:
    """The same with the word: ``−1.23 points``."""
    return f"{points(difference)} points"


def span(low: float | None, high: float | None) -> str:
    """An interval of a difference of two shares: ``−1.23 to +0.40``."""
    return ABSENT if low is None or high is None else f"{points(low)} to {points(high)}"


def number(value: float | None, unit: str = "") -> str:
    """Three significant digits, never in scientific notation."""
    if value is None:
        return ABSENT
    if value == 0 or not math.isfinite(value):
        return _minus(f"{value + 0.0:g} {unit}".strip())
    digits = max(0, min(6, 2 - math.floor(math.log10(abs(value)))))
    return _minus(f"{value:,.{digits}f}") + (f" {unit}" if unit else "")


def signed(value: float | None) -> str:
    """A difference that is no share, with its sign, to three significant digits."""
    text = number(value)
    return f"+{text}" if value is not None and value > 0 else text


def fixed(value: float, digits: int) -> str:
    """So many digits after the point."""
    return _minus(f"{value + 0.0:.{digits}f}")


def shifted(value: float, digits: int) -> str:
    """A difference with its sign and so many digits after the point; 0 has no sign."""
    text = f"{value:+.{digits}f}"
    return _minus(text) if float(text) else text[1:]


def plain(value: float) -> str:
    """A round value, such as an axis bears: without trailing zeros."""
    return _minus(f"{value:g}")


def signed_plain(value: float) -> str:
    """A round difference with its sign, such as an axis bears."""
    return f"+{plain(value)}" if value > 0 else plain(value)


def small(value: float | None) -> str:
    """A figure that may be next to nothing."""
    return "<0.0001" if value is not None and 0 < abs(value) < 1e-4 else number(value)


def count(value: int | None) -> str:
    """A whole number with thousands separated."""
    return ABSENT if value is None else _minus(f"{value:,}")


def counted(value: int, noun: str) -> str:
    """``1`` as ``1 image``, ``1240`` as ``1,240 images``."""
    return f"{count(value)} {noun}" + ("" if value == 1 else "s")


def enumerated(names: Iterable[object], most: int = 4) -> str:
    """Names in a sentence: ``a``, ``a and b``, ``a, b, c, d and 7 more``."""
    shown = [printable(name) for name in names]
    if len(shown) > most + 1:
        shown[most:] = [f"{count(len(shown) - most)} more"]
    return " and ".join(part for part in (", ".join(shown[:-1]), *shown[-1:]) if part)


def times(value: float | None) -> str:
    """A ratio, such as a speed-up: ``2.04x``."""
    return ABSENT if value is None else f"{value:.2f}x"


def figure(value: float | None, unit: str) -> str:
    """A metric: a percentage where its unit is ``share``, else a number of four digits."""
    if value is None:
        return ABSENT
    return percent(value) if unit == "share" else _minus(f"{value:.4g}")


def change(difference: float | None, unit: str) -> str:
    """A difference of a metric, with its sign: ``−1.23 points`` where its unit is ``share``, else ``−0.1234``."""
    if difference is None:
        return ABSENT
    return in_points(difference) if unit == "share" else _minus(f"{difference:+.4g}" if difference else "0")


def difference(value: float | None, unit: str) -> str:
    """The same without the word, where what stands around it names the unit: ``−1.23`` or ``−0.1234``."""
    return ABSENT if value is None else change(value, unit).removesuffix(" points")


def bounds(low: float | None, high: float | None, unit: str) -> str:
    """An interval of such a difference: ``−1.23 to +0.40``."""
    return ABSENT if low is None or high is None else f"{difference(low, unit)} to {difference(high, unit)}"


def amount(size: float, unit: str) -> str:
    """A difference of a metric without a sign, such as a margin: ``1.5 points``, ``1 point``, or ``0.1234``."""
    if unit != "share":
        return _minus(f"{size:.4g}")
    text = _minus(f"{100 * size:.4g}")
    return f"{text} point" + ("" if text == "1" else "s")


def printable(text: object) -> str:
    """``text`` with every control character replaced, so that a file name cannot steer a terminal or a page."""
    return "".join(c if c.isprintable() else "\ufffd" for c in str(text))


def _minus(text: str) -> str:
    return text.replace("-", MINUS)
