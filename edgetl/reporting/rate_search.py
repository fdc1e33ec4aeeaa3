"""The picture of a learning rate range test: a file of its own, readable in any browser, light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgetl.reporting import svg

_HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 260.0, 50.0, 465.0, 18.0, 220.0
_STYLE = """
  svg { font: 11px sans-serif; background: #fff; color: #222 } text { fill: currentColor }
  .axis { stroke: #bbb } .raw { fill: #9ab } .smooth { fill: none; stroke: #06c; stroke-width: 2 }
  .chosen { stroke: #c50; stroke-dasharray: 4 3 } .end { text-anchor: end } .middle { text-anchor: middle }
  @media (prefers-color-scheme: dark) { svg { background: #181a1b; color: #ddd } .smooth { stroke: #6af } }
"""


def picture(rates: Sequence[float], losses: Sequence[float], smooth: Sequence[float], suggested: float | None) -> str:
    """An SVG file: the loss of each batch, their average, and the suggested rate, over a logarithmic axis."""
    told = "no rate at which the loss falls" if suggested is None else f"it falls fastest at {suggested:.2g}"
    root = svg.chart("rates", _HEIGHT, "Loss while the learning rate rises", f"{told}.")
    root.set("xmlns", "http://www.w3.org/2000/svg")
    svg.add(root, "style", class_="").text = _STYLE
    across = svg.Axis(math.log10(rates[0]), math.log10(rates[-1]), _LEFT, _RIGHT)
    low, high = min(smooth), max(smooth)
    room = 0.15 * (high - low) or 1.0
    up = svg.Axis(low - room, high + room, _BOTTOM, _TOP)
    for value in svg.ticks(low - room, high + room):
        svg.line(root, _LEFT, up.at(value), _RIGHT, up.at(value), "axis")
        svg.text(root, _LEFT - 6, up.at(value) + 4, f"{value:g}", "end")
    for decade in range(math.ceil(across.low), math.floor(across.high + 1e-9) + 1):
        svg.text(root, across.at(decade), _BOTTOM + 16, f"1e{decade}", "middle")
    for rate, loss in zip(rates, losses, strict=True):
        if up.low <= loss <= up.high:
            svg.add(root, "circle", cx=across.at(math.log10(rate)), cy=up.at(loss), r=1.6, class_="raw")
    points = " ".join(f"{across.at(math.log10(r)):.1f},{up.at(x):.1f}" for r, x in zip(rates, smooth, strict=True))
    svg.add(root, "polyline", points=points, class_="smooth")
    if suggested is not None:
        at = across.at(math.log10(suggested))
        svg.line(root, at, _TOP, at, _BOTTOM, "chosen")
        svg.text(root, at, _TOP - 5, f"{suggested:.2g}", "middle")
    svg.text(root, (_LEFT + _RIGHT) / 2, _BOTTOM + 33, "learning rate of the head", "middle")
    return svg.written(root)
