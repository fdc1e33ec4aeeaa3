"""Charts of what was found and repaired: layers, the trials of the repair, corruptions, the gain that was kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from edgetl.base.wording import fixed, percent, plain
from edgetl.reporting import svg

#: Decibels beyond which a bar ends; the figure beside it is exact.
_DB_LOW, _DB_HIGH = -20.0, 60.0
_PANEL_WIDTH, _PANEL_HEIGHT = 240, 172


@dataclass(frozen=True)
class Noise:
    """One bar of :func:`layers`: signal to quantization noise in decibels, and the share of all noise, 0 to 1."""

    name: str
    cause: str
    sqnr_db: float
    share: float


@dataclass(frozen=True)
class Step:
    """One trial of :func:`repair_trials`.

    Attributes:
        label: its number.
        score: on search samples, a share.
        integer: share of multiply-accumulates in integers, or None.
        kept: whether the search went on from it.
    """

    label: str
    score: float
    integer: float | None
    kept: bool


@dataclass(frozen=True)
class Condition:
    """One severity of :func:`severities`: 0 stands for clean samples; ``verdict`` as in the certificate."""

    severity: int
    reference: float
    deployed: float
    verdict: str


def layers(chart_id: str, rows: Sequence[Noise]) -> str:
    """Layers by their signal to quantization noise: the shorter the bar, the noisier."""
    held = [min(max(r.sqnr_db, _DB_LOW), _DB_HIGH) for r in rows]
    axis = svg.Axis(min(0.0, *held), max(30.0, *held), 8, svg.WIDTH - 12)
    row, bottom = 36, 10 + 36 * len(rows)
    words = "; ".join(
        f"{r.name}, {r.cause}: {fixed(r.sqnr_db, 1)} dB, {percent(r.share, 0)} of the noise" for r in rows
    )
    root = svg.chart(chart_id, bottom + 36, "Signal to quantization noise of the noisiest layers", words)
    for value in svg.ticks(axis.low, axis.high):
        svg.line(root, axis.at(value), 6, axis.at(value), bottom, "zero" if value == 0 else "grid")
        svg.text(root, axis.at(value), bottom + 14, plain(value), f"tick {_anchor(value, axis)}")
    svg.text(root, (axis.left + axis.right) / 2, bottom + 31, "decibels: less is noisier", "tick middle")
    for index, (noise, end) in enumerate(zip(rows, held, strict=True)):
        y, zero = 10 + row * index, axis.at(0)
        figure = f"{noise.cause}, {fixed(noise.sqnr_db, 1)} dB, {percent(noise.share, 0)}"
        svg.text(root, axis.left, y + 13, noise.name, "name halo", 32)
        svg.text(root, axis.right, y + 13, figure, "tick end halo")
        svg.add(root, "rect", x=min(zero, axis.at(end)), y=y + 18, width=max(abs(axis.at(end) - zero), 2), height=10,
                class_=f"bar {noise.cause}")  # fmt: skip
    return svg.written(root)


def _anchor(value: float, axis: svg.Axis) -> str:
    return "middle" if axis.low < value < axis.high else "" if value == axis.low else "end"


def repair_trials(chart_id: str, metric: str, trials: Sequence[Step], trained: float, tolerated: float) -> str:
    """A score on search samples and the share of integer arithmetic, trial by trial.

    Args:
        chart_id: unique in the page.
        metric: what the score is, in words.
        trials: in order.
        trained: score of the trained model on the same samples.
        tolerated: the least score that the margin allows.
    """
    levels = [trained, *(t.score for t in trials), tolerated]
    pad = max(0.08 * (max(levels) - min(levels)), 0.004)
    height = svg.Axis(max(min(levels) - pad, 0.0), min(max(levels) + pad, 1.0), 150, 16)
    share = svg.Axis(0.0, 1.0, 236, 190)
    across = svg.Axis(0.5, len(trials) + 0.5, 52, svg.WIDTH - 12)
    words = "; ".join(
        f"trial {t.label}: {percent(t.score)}, {percent(t.integer, 0)} integer{', kept' if t.kept else ''}"
        for t in trials
    )
    title = f"{metric.capitalize()} on search samples and share of integer arithmetic by trial"
    root = svg.chart(chart_id, 274, title, words)
    _levels(root, metric, across, height, share)
    svg.line(root, across.left, height.at(trained), across.right, height.at(trained), "trained")
    svg.line(root, across.left, height.at(tolerated), across.right, height.at(tolerated), "margin")
    _kept(root, trials, across, height)
    for index, trial in enumerate(trials, 1):
        x, kept = across.at(index), " kept" if trial.kept else ""
        svg.add(root, "circle", cx=x, cy=height.at(trial.score), r=5, class_=f"trial{kept}")
        width = min(0.6 * across.scale, 18)
        if trial.integer is not None:
            top = share.at(trial.integer)
            svg.add(
                root, "rect", x=x - width / 2, y=top, width=width, height=share.left - top, class_=f"bar trial{kept}"
            )
        if len(trials) <= 20 or index % 2:
            svg.text(root, x, 252, trial.label, "tick middle")
    svg.text(root, (across.left + across.right) / 2, 269, "trial", "tick middle")
    return svg.written(root)


def _levels(root: ET.Element, metric: str, across: svg.Axis, height: svg.Axis, share: svg.Axis) -> None:
    ticks = svg.ticks(height.low, height.high, 4)
    digits = 0 if len(ticks) < 2 or ticks[1] - ticks[0] >= 0.01 else 1
    for value in ticks:
        svg.line(root, across.left, height.at(value), across.right, height.at(value), "grid")
        svg.text(root, across.left - 6, height.at(value) + 4, percent(value, digits), "tick end")
    for value in (0.0, 1.0):
        svg.line(root, across.left, share.at(value), across.right, share.at(value), "grid")
        svg.text(root, across.left - 6, share.at(value) + 4, percent(value, 0), "tick end")
    svg.text(root, across.left, 182, "executed in integers", "tick")
    svg.text(root, across.left, 11, metric, "tick")


def _kept(root: ET.Element, trials: Sequence[Step], across: svg.Axis, height: svg.Axis) -> None:
    """A staircase through the trials that the search went on from."""
    path = ""
    for index, trial in enumerate(trials, 1):
        if trial.kept:
            x, y = across.at(index), height.at(trial.score)
            path += f"H{x:.1f}V{y:.1f}" if path else f"M{x:.1f} {y:.1f}"
    if path:
        svg.add(root, "path", d=f"{path}H{across.right:.1f}", class_="curve trials")


def severities(chart_id: str, name: str, rows: Sequence[Condition], low: float, high: float) -> str:
    """One panel: accuracy by severity, of the reference and of the deployed model; ``low`` to ``high`` is the scale."""
    height = svg.Axis(low, high, _PANEL_HEIGHT - 34, 10)
    first, last = rows[0].severity, rows[-1].severity
    across = svg.Axis(first, last if last > first else first + 1, 46, _PANEL_WIDTH - 12)
    words = "; ".join(
        f"severity {r.severity}: {percent(r.reference, 1)} reference, {percent(r.deployed, 1)} deployed" for r in rows
    )
    root = svg.chart(chart_id, _PANEL_HEIGHT, f"Accuracy under {name} by severity", words, _PANEL_WIDTH)
    for value in svg.ticks(low, high):
        svg.line(root, across.left - 4, height.at(value), across.right, height.at(value), "grid")
        svg.text(root, across.left - 8, height.at(value) + 4, percent(value, 0), "tick end")
    for row in rows:
        label = str(row.severity) if row.severity else "clean"
        svg.text(root, across.at(row.severity), _PANEL_HEIGHT - 18, label, "tick middle")
    svg.text(root, (across.left + across.right) / 2, _PANEL_HEIGHT - 3, "severity", "tick middle")
    for style, levels in (("floating", [r.reference for r in rows]), ("deployed", [r.deployed for r in rows])):
        points = [f"{across.at(r.severity):.1f} {height.at(v):.1f}" for r, v in zip(rows, levels, strict=True)]
        svg.add(root, "path", d="M" + "L".join(points), class_=f"curve {style}")
    for row in rows:
        svg.add(root, "circle", cx=across.at(row.severity), cy=height.at(row.deployed), r=4.5,
                class_=f"dot {row.verdict}")  # fmt: skip
    return svg.written(root)


def kept(chart_id: str, value: float, low: float | None, high: float | None) -> str:
    """The share of the transfer's gain that the deployed model kept, with its interval; None is an open end."""
    values = [value, 0.0, 1.0, *(v for v in (low, high) if v is not None)]
    # A ratio to a small gain has bounds far out; the figures beside the chart are exact.
    least, most = max(min(values), -2.0), min(max(values), 3.0)
    pad = 0.05 * (most - least)
    axis = svg.Axis(least - pad, most + pad, 24, svg.WIDTH - 24)
    words = f"{percent(value, 1)}, interval {percent(low, 1)} to {percent(high, 1)}"
    root = svg.chart(chart_id, 78, "Share of the transfer's gain that was kept", words)
    for tick in svg.ticks(axis.low, axis.high):
        svg.line(root, axis.at(tick), 8, axis.at(tick), 40, "zero" if tick in (0.0, 1.0) else "grid")
        svg.text(root, axis.at(tick), 54, percent(tick, 0), "tick middle")
    svg.text(root, axis.at((axis.low + axis.high) / 2), 72, "of the gain: 0 % is the baseline, 100 % the trained model",
             "tick middle")  # fmt: skip
    ends = [(axis.left if low is None else _inside(axis, low)), (axis.right if high is None else _inside(axis, high))]
    for bound, end in zip((low, high), ends, strict=True):
        if bound is not None:
            svg.line(root, end, 19, end, 29, "whisker")
    svg.line(root, ends[0], 24, ends[1], 24, "whisker")
    svg.add(root, "circle", cx=_inside(axis, value), cy=24, r=5, class_="dot after")
    return svg.written(root)


def _inside(axis: svg.Axis, value: float) -> float:
    return min(max(axis.at(value), axis.left), axis.right)


def bar(share: float) -> str:
    """A plain bar for a share from 0 to 1; the figure stands beside it in words."""
    root = ET.Element("svg", {"class": "level", "viewBox": "0 0 100 4", "preserveAspectRatio": "none"})
    root.set("aria-hidden", "true")
    svg.add(root, "rect", x=0, y=0, width=100, height=4, class_="empty")
    svg.add(root, "rect", x=0, y=0, width=100 * share, height=4, class_="full")
    return svg.written(root)
