"""Charts of a run: curves by epoch, a confusion matrix, counts by split, predictions against the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import numpy as np
import numpy.typing as npt

from edgetl.base.wording import count, number, percent, plain
from edgetl.reporting import svg
from edgetl.reporting.runs.rates import Rate

_ROW, _NAME, _RIGHT = 24, 160, 24
#: Letters of a name that fits above a column.
_SHORT = 3
#: The most classes whose counts are written into the cells of a confusion matrix.
WRITTEN_CLASSES = 14
Counts = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """One curve of :func:`curves`: ``style`` is a class of the style sheet; points are (epoch, value)."""

    name: str
    style: str
    points: Sequence[tuple[int, float]]


def curves(chart_id: str, title: str, lines: Sequence[Line], best: int, printed: Callable[[float], str]) -> str:
    """Values by epoch; a vertical line marks the epoch ``best``; ``printed`` writes a value."""
    values = [value for line in lines for _, value in line.points]
    epochs = [epoch for line in lines for epoch, _ in line.points]
    pad = 0.06 * (max(values) - min(values)) or 0.5 * abs(max(values)) or 0.5
    height = svg.Axis(min(values) - pad, max(values) + pad, 196, 12)
    across = svg.Axis(min(epochs), max(*epochs, min(epochs) + 1), 60, svg.WIDTH - 16)
    ends = (f"{line.name}: {printed(line.points[0][1])} to {printed(line.points[-1][1])}" for line in lines)
    root = svg.chart(chart_id, 232, title, f"{'; '.join(ends)}; best epoch {best}")
    for value in svg.ticks(height.low, height.high, 4):
        svg.line(root, across.left, height.at(value), across.right, height.at(value), "grid")
        svg.text(root, across.left - 6, height.at(value) + 4, printed(value), "tick end")
    whole = [tick for tick in svg.ticks(across.low, across.high, 8) if tick == int(tick)]
    for epoch in whole:
        svg.text(root, across.at(epoch), 212, f"{epoch:g}", "tick middle")
    svg.text(root, (across.left + across.right) / 2, 228, "epoch", "tick middle")
    svg.line(root, across.at(best), 12, across.at(best), 196, "best")
    for line in lines:
        path = "L".join(f"{across.at(epoch):.1f} {height.at(value):.1f}" for epoch, value in line.points)
        svg.add(root, "path", d=f"M{path}", class_=f"curve {line.style}")
        for epoch, value in line.points:
            chosen = epoch == best and line.style != "train"
            svg.add(root, "circle", cx=across.at(epoch), cy=height.at(value), r=5 if chosen else 2.5,
                    class_=f"mark {line.style}")  # fmt: skip
    return svg.written(root)


def confusion(chart_id: str, names: Sequence[str], matrix: Counts) -> str:
    """How often each class (rows) was taken for each (columns): counts, int64 [k, k], shaded by their share of the row.

    Columns bear the classes' names where those are short, else the numbers of the rows.
    """
    size = len(names)
    short = max(map(len, names)) <= _SHORT
    cell = min(40.0, (svg.WIDTH - _NAME - 8) / size)
    top = 34
    wrong = [(int(matrix[i, j]), i, j) for i in range(size) for j in range(size) if i != j and matrix[i, j]]
    worst = "; ".join(f"{names[i]} taken for {names[j]}: {n}" for n, i, j in sorted(wrong, reverse=True)[:12])
    right = f"{count(int(np.trace(matrix)))} of {count(int(matrix.sum()))} on the diagonal"
    root = svg.chart(chart_id, top + cell * size + 6, "Confusion matrix", f"{right}; {worst or 'no confusion'}")
    svg.text(root, _NAME - 8, 12, "true, below", "tick end")
    svg.text(root, _NAME, 12, "answered" if short else "answered, by number", "tick")
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    for row in range(size):
        y = top + cell * row
        svg.text(root, _NAME - 8, y + cell / 2 + 4, names[row] if short else f"{names[row]}  {row + 1}", "name end", 26)
        if size <= 24 or row % 5 == 0:
            svg.text(root, _NAME + cell * (row + 0.5), top - 6, names[row] if short else str(row + 1), "tick middle")
        for column in range(size):
            x = _NAME + cell * column
            _cell(root, (x, y, cell), int(matrix[row, column]), float(shares[row, column]), row == column, size)
    return svg.written(root)


def _cell(
    root: ET.Element, place: tuple[float, float, float], counted: int, share: float, right: bool, size: int
) -> None:
    x, y, cell = place
    svg.add(root, "rect", x=x, y=y, width=cell - 1, height=cell - 1, class_="cell")
    if counted:
        # Opacity stays below one half, so that the figure on it can be read in both colour schemes.
        svg.add(root, "rect", x=x, y=y, width=cell - 1, height=cell - 1, class_=f"cell {'right' if right else 'wrong'}",
                fill_opacity=f"{0.08 + 0.42 * share:.2f}")  # fmt: skip
        if size <= WRITTEN_CLASSES:
            svg.text(root, x + cell / 2, y + cell / 2 + 4, str(counted), "figure middle")


def stacked(chart_id: str, title: str, names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> str:
    """A bar for each name, divided by split: ``counts`` holds, for each split, one number a name."""
    totals = [sum(split[i] for split in counts.values()) for i in range(len(names))]
    axis = svg.Axis(0, max(*totals, 1), _NAME, svg.WIDTH - _RIGHT - 24)
    bottom = 8 + _ROW * len(names)
    words = "; ".join(f"{name}: {count(total)}" for name, total in zip(names, totals, strict=True))
    root = svg.chart(chart_id, bottom + 22, title, words)
    for value in (tick for tick in svg.ticks(0, axis.high) if tick == int(tick)):
        svg.line(root, axis.at(value), 4, axis.at(value), bottom, "zero" if value == 0 else "grid")
        svg.text(root, axis.at(value), bottom + 15, count(int(value)), "tick middle")
    for index, name in enumerate(names):
        y, x = 8 + _ROW * index, axis.left
        svg.text(root, _NAME - 8, y + _ROW / 2 + 3, name, "name end", 22)
        for split, numbers in counts.items():
            width = numbers[index] * axis.scale
            if width:
                svg.add(root, "rect", x=x, y=y + 3, width=width, height=_ROW - 7, class_=f"part {split}")
            x += width
        svg.text(root, x + 5, y + _ROW / 2 + 3, count(totals[index]), "tick")
    return svg.written(root)


def histogram(chart_id: str, title: str, unit: str, edges: Values, counts: Mapping[str, Counts]) -> str:
    """Counts by bin, stacked by part; ``edges`` [bins + 1]; the parts' names are classes of the style sheet."""
    totals = np.sum([np.asarray(part) for part in counts.values()], axis=0)
    height = svg.Axis(0, max(float(totals.max()), 1), 190, 12)
    across = svg.Axis(float(edges[0]), float(edges[-1]), 46, svg.WIDTH - 16)
    fullest = int(totals.argmax())
    words = (
        f"{count(int(totals.sum()))} from {number(float(edges[0]))} to {number(float(edges[-1]))}, most of them from "
        f"{number(float(edges[fullest]))} to {number(float(edges[fullest + 1]))}"
    )
    root = svg.chart(chart_id, 226, title, words)
    for value in (tick for tick in svg.ticks(0, height.high, 4) if tick == int(tick)):
        svg.line(root, across.left, height.at(value), across.right, height.at(value), "grid")
        svg.text(root, across.left - 6, height.at(value) + 4, count(int(value)), "tick end")
    _value_ticks(root, across, 206)
    svg.text(root, (across.left + across.right) / 2, 222, unit, "tick middle")
    for index in range(len(edges) - 1):
        base = 0.0
        left, right = across.at(float(edges[index])), across.at(float(edges[index + 1]))
        for part, numbers in counts.items():
            top = base + float(numbers[index])
            if top > base:
                svg.add(root, "rect", x=left + 0.5, y=height.at(top), width=max(right - left - 1, 0.5),
                        height=height.at(base) - height.at(top), class_=f"part {part}")  # fmt: skip
            base = top
    return svg.written(root)


def scatter(chart_id: str, title: str, truth: Values, predicted: Values) -> str:
    """Predictions, float64 [n], against the truth, float64 [n], on equal axes with the line of equality."""
    low, high = (float(bound(np.concatenate([truth, predicted]))) for bound in (np.min, np.max))
    pad = 0.04 * (high - low) or 0.5 * abs(high) or 0.5
    side = svg.WIDTH - 76
    across = svg.Axis(low - pad, high + pad, 60, 60 + side)
    height = svg.Axis(low - pad, high + pad, 12 + side, 12)
    worst = int(np.abs(predicted - truth).argmax())
    words = (
        f"{count(len(truth))} samples; the furthest from the line is {number(float(predicted[worst]))} where "
        f"{number(float(truth[worst]))} is true"
    )
    root = svg.chart(chart_id, side + 48, title, words)
    for value in svg.ticks(across.low, across.high):
        svg.line(root, across.left, height.at(value), across.right, height.at(value), "grid")
        svg.line(root, across.at(value), height.right, across.at(value), height.left, "grid")
        svg.text(root, across.left - 6, height.at(value) + 4, plain(value), "tick end")
        svg.text(root, across.at(value), height.left + 15, plain(value), "tick middle")
    svg.text(root, across.left + 4, 9, "predicted", "tick")
    svg.text(root, (across.left + across.right) / 2, height.left + 32, "true", "tick middle")
    svg.line(root, across.left, height.left, across.right, height.right, "equal")
    for x, y in zip(truth.tolist(), predicted.tolist(), strict=True):
        svg.add(root, "circle", cx=across.at(x), cy=height.at(y), r=3, class_="sample")
    return svg.written(root)


def rates(chart_id: str, rows: Sequence[Rate]) -> str:
    """Precision (hollow) and recall (filled) of each label; neither where there is nothing to divide by."""
    axis = svg.Axis(0.0, 1.0, _NAME, svg.WIDTH - _RIGHT)
    bottom = 10 + _ROW * len(rows)
    words = "; ".join(f"{r.name}: precision {percent(r.precision, 1)}, recall {percent(r.recall, 1)}" for r in rows)
    root = svg.chart(chart_id, bottom + 24, "Precision and recall of each label", words)
    for value in svg.ticks(0.0, 1.0):
        svg.line(root, axis.at(value), 6, axis.at(value), bottom, "grid")
        svg.text(root, axis.at(value), bottom + 15, percent(value, 0), "tick middle")
    for index, row in enumerate(rows):
        y = 10 + _ROW * (index + 0.5)
        svg.text(root, _NAME - 10, y + 4, row.name, "name end", 22)
        if row.recall is not None:
            svg.add(root, "circle", cx=axis.at(row.recall), cy=y, r=4.5, class_="after")
        if row.precision is not None:
            svg.add(root, "circle", cx=axis.at(row.precision), cy=y, r=6.5, class_="before")
    return svg.written(root)


def _value_ticks(root: ET.Element, across: svg.Axis, y: float) -> None:
    for value in svg.ticks(across.low, across.high, 6):
        svg.text(root, across.at(value), y, plain(value), "tick middle")
