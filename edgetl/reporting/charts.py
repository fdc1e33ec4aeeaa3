"""Charts of what was measured: differences, recalls, latencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgetl.base.wording import bounds, change, number, percent, points, signed_plain
from edgetl.reporting import svg

_ROW = 26
_NAME = 160
_RIGHT = 24
PERCENTILES = ((0.50, "p50"), (0.90, "p90"), (0.99, "p99"))


@dataclass(frozen=True)
class Interval:
    """One row of :func:`intervals`: differences in the metric's unit; ``verdict`` as in the certificate.

    Where the difference is not known, None, the interval is drawn without it.
    """

    name: str
    difference: float | None
    low: float
    high: float
    margin: float
    verdict: str


@dataclass(frozen=True)
class Change:
    """One row of :func:`recalls`: a class's recall before and after, 0 to 1."""

    name: str
    before: float
    after: float


@dataclass(frozen=True)
class Curve:
    """One distribution of :func:`latencies`.

    Attributes:
        name: in words.
        style: class in the page's style sheet.
        samples: milliseconds, in any order.
        marks: (share, milliseconds) of the percentiles that the samples support.
    """

    name: str
    style: str
    samples: Sequence[float]
    marks: Sequence[tuple[float, float]]


def intervals(chart_id: str, metric: str, unit: str, rows: Sequence[Interval]) -> str:
    """Differences of a metric, named in words, with their intervals against zero and against each margin."""
    share = unit == "share"

    def written(value: float) -> str:
        return points(value, 1 if high - low > 0.005 else 2) if share else signed_plain(value)

    low = min(min(r.low, -1.3 * r.margin) for r in rows)
    high = max(max(r.high, 0.6 * r.margin) for r in rows)
    left = _NAME if len(rows) > 1 else 24
    axis, bottom = svg.Axis(low, high, left, svg.WIDTH - _RIGHT), 14 + _ROW * len(rows)
    text = "; ".join(f"{r.name}: {change(r.difference, unit)}, {bounds(r.low, r.high, unit)}" for r in rows)
    chart = svg.chart(chart_id, bottom + 40, f"Difference in {metric} with its interval, and the margin", text)
    for value in svg.ticks(low, high):
        svg.line(chart, axis.at(value), 8, axis.at(value), bottom, "zero" if value == 0 else "grid")
        svg.text(chart, axis.at(value), bottom + 14, written(value), "tick middle")
    scale = f"percentage points of {metric}" if share else f"gain in {metric}"
    svg.text(chart, (axis.left + axis.right) / 2, bottom + 32, scale, "tick middle")
    for index, row in enumerate(rows):
        y = 14 + _ROW * (index + 0.5)
        if len(rows) > 1:
            svg.text(chart, _NAME - 10, y + 4, row.name, "name end", 19)
        edge = _NAME - 4 if len(rows) > 1 else 8
        width = max(axis.at(-row.margin) - edge, 0)
        svg.add(chart, "rect", x=edge, y=y - 10, height=20, width=width, class_="forbidden")
        svg.line(chart, axis.at(-row.margin), y - 11, axis.at(-row.margin), y + 11, "margin")
        for end in (row.low, row.high):
            svg.line(chart, axis.at(end), y - 5, axis.at(end), y + 5, "whisker")
        svg.line(chart, axis.at(row.low), y, axis.at(row.high), y, "whisker")
        if row.difference is not None:
            svg.add(chart, "circle", cx=axis.at(row.difference), cy=y, r=5, class_=f"dot {row.verdict}")
    return svg.written(chart)


def recalls(chart_id: str, what: str, rows: Sequence[Change]) -> str:
    """Recall of each class or label (``what``) before (hollow) and after (filled)."""
    lowest = min(min(r.before, r.after) for r in rows)
    low = max(0.0, math.floor((lowest - 0.02) * 10) / 10)
    axis = svg.Axis(low, 1.0, _NAME, svg.WIDTH - _RIGHT)
    bottom = 14 + _ROW * len(rows)
    text = "; ".join(f"{r.name}: {percent(r.before, 1)} before, {percent(r.after, 1)} after" for r in rows)
    chart = svg.chart(chart_id, bottom + 24, f"Recall of each {what} before and after", text)
    for value in svg.ticks(low, 1.0):
        svg.line(chart, axis.at(value), 8, axis.at(value), bottom, "grid")
        svg.text(chart, axis.at(value), bottom + 14, percent(value, 0), "tick middle")
    for index, row in enumerate(rows):
        y = 14 + _ROW * (index + 0.5)
        svg.text(chart, _NAME - 14, y + 4, row.name, "name end", 19)
        svg.line(chart, axis.at(row.before), y, axis.at(row.after), y, "loss" if row.after < row.before else "gain")
        svg.add(chart, "circle", cx=axis.at(row.after), cy=y, r=4.5, class_="after")
        svg.add(chart, "circle", cx=axis.at(row.before), cy=y, r=6.5, class_="before")
    return svg.written(chart)


def latencies(chart_id: str, curves: Sequence[Curve], unit: str) -> str:
    """Cumulative distribution of every sample on a logarithmic time axis; ``unit`` is what was timed, in words."""
    low = min(min(c.samples) for c in curves) / 1.05
    high = max(max(c.samples) for c in curves) * 1.05
    axis = svg.Axis(math.log10(low), math.log10(high), 44, svg.WIDTH - _RIGHT)
    top, bottom = 14, 234
    text = "; ".join(f"{c.name}: {_spread(c.samples)}" for c in curves)
    chart = svg.chart(chart_id, bottom + 40, "Share of inferences that took at most this long", text)
    for share, label in ((0.0, "0"), *PERCENTILES):
        y = bottom - share * (bottom - top)
        svg.line(chart, axis.left, y, axis.right, y, "grid")
        svg.text(chart, axis.left - 8, y + 4, label, "tick end")
    for value in svg.log_ticks(low, high):
        svg.line(chart, axis.at(math.log10(value)), top, axis.at(math.log10(value)), bottom, "grid")
        svg.text(chart, axis.at(math.log10(value)), bottom + 16, f"{value:g}", "tick middle")
    svg.text(chart, (axis.left + axis.right) / 2, bottom + 34, f"milliseconds for {unit}", "tick middle")
    for curve in curves:
        svg.add(chart, "path", d=_steps(curve.samples, axis, top, bottom), class_=f"curve {curve.style}")
        for share, value in curve.marks:
            y = bottom - share * (bottom - top)
            svg.add(chart, "circle", cx=axis.at(math.log10(value)), cy=y, r=4, class_=f"mark {curve.style}")
    return svg.written(chart)


def _spread(samples: Sequence[float]) -> str:
    return f"{len(samples)} samples from {number(min(samples))} to {number(max(samples))} ms"


def _steps(samples: Sequence[float], axis: svg.Axis, top: float, bottom: float) -> str:
    values = np.sort(np.asarray(samples, np.float64))
    x = np.round(axis.left + (np.log10(values) - axis.low) * axis.scale, 1)
    y = bottom - np.arange(1, len(values) + 1) / len(values) * (bottom - top)
    # Samples that fall on one tenth of a unit draw over each other: the last of them carries the height.
    last = np.append(x[1:] != x[:-1], True)
    return f"M{x[0]:.1f} {bottom}" + "".join(
        f"H{column:.1f}V{height:.1f}" for column, height in zip(x[last], y[last], strict=True)
    )
