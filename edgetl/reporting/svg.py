"""SVG as an element tree: no dependency, no script, colours from the page's style sheet, the same bytes every time.

Every label is escaped by the serializer. Each chart carries a title and a description for readers who do not see it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from edgetl.base.wording import printable

WIDTH = 480


@dataclass(frozen=True)
class Axis:
    """From values ``low`` to ``high`` to places ``left`` to ``right`` (which may be a bottom and a top)."""

    low: float
    high: float
    left: float
    right: float

    @property
    def scale(self) -> float:
        """Places for each unit."""
        return (self.right - self.left) / max(self.high - self.low, 1e-9)

    def at(self, value: float) -> float:
        """The place of a value."""
        return self.left + (value - self.low) * self.scale


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values from ``low`` to ``high``, about ``most`` of them."""
    rough = max(high - low, 1e-9) / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = unit * next(m for m in (1, 2, 5, 10) if m * unit >= rough * 0.999)
    return [round(i * step, 10) + 0.0 for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round values on a logarithmic axis, four or more where there are so many."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for leading in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        round_values = [m * 10.0**d for d in decades for m in leading if low <= m * 10.0**d <= high]
        if len(round_values) >= 4:
            return round_values
    return round_values if len(round_values) > 1 else [tick for tick in ticks(low, high) if tick > 0]


def chart(chart_id: str, height: float, title: str, description: str, width: float = WIDTH) -> ET.Element:
    """An empty chart with its title and description."""
    root = ET.Element("svg", {
        "class": "chart", "role": "img", "viewBox": f"0 0 {width:g} {height:g}",
        "aria-labelledby": f"{chart_id}-title {chart_id}-desc",
    })  # fmt: skip
    for tag, words in (("title", title), ("desc", description)):
        child = ET.SubElement(root, tag, id=f"{chart_id}-{tag}")
        child.text = printable(words)
    return root


def add(parent: ET.Element, tag: str, *, class_: str, **attributes: float | str) -> ET.Element:
    """Append an element; numbers are rounded to a tenth, and an underscore in a name stands for a hyphen."""
    written = {k.replace("_", "-"): v if isinstance(v, str) else f"{round(v, 1):g}" for k, v in attributes.items()}
    return ET.SubElement(parent, tag, {"class": printable(class_), **written})


def line(parent: ET.Element, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
    """Append a line."""
    add(parent, "line", x1=x1, y1=y1, x2=x2, y2=y2, class_=style)


def text(parent: ET.Element, x: float, y: float, words: str, style: str, limit: int = 0) -> None:
    """Append a text, cut after ``limit`` characters if that is not 0."""
    whole = printable(words)
    short = whole if not limit or len(whole) <= limit else whole[: limit - 1] + "…"
    add(parent, "text", x=x, y=y, class_=style).text = short


def written(root: ET.Element) -> str:
    """The chart as text."""
    return ET.tostring(root, encoding="unicode")
