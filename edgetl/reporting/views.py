"""Pieces that the templates lay out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TableView:
    """A table: the first cell of each row is its heading; a line break in a cell is kept.

    Columns from ``numbers_from`` on, counted from 0, hold figures.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers_from: int = 1


@dataclass(frozen=True)
class Plot:
    """A chart with its title, its caption, and what its colours mean: (style class, name)."""

    title: str
    chart: str
    caption: str = ""
    keys: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Fact:
    """One line below a sample; ``style`` is "right", "wrong" or ""."""

    name: str
    value: str
    style: str = ""
