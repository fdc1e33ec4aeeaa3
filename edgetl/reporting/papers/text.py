"""A model card as a page of Markdown, for people."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from edgetl import __version__
from edgetl.base.wording import bounds, change, figure, percent, printable
from edgetl.reporting.papers.card import Measured, ModelCard

#: What Markdown or HTML would make something else of: names of classes and files may come from anybody.
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~])")
_ROLES = {"weights": "weights that it started from", "data": "data", "tool": "needed to run it"}


def text(card: ModelCard) -> str:
    """The page, each paragraph on one line."""
    return "\n".join(_lines(card)) + "\n"


def _lines(card: ModelCard) -> Iterator[str]:
    certificate, run = card.certified, card.trained
    yield f"# Model card: {plain(card.name)}"
    yield ""
    yield plain(card.use)
    yield ""
    yield f"**Verdict at its margin: {certificate.verdict}.** {plain(card.limits[0])}"
    yield from _part("Measured", _figures(card))
    yield from _part("Limits", _listed(card.limits[1:]))
    if card.worst is not None:
        name, found = card.worst
        yield from _part("Worst class", [f"{plain(name)}: {plain(found)}"])
    if card.tradeoffs:
        yield from _part("Given up", _listed(card.tradeoffs))
    rows = [f"| {_ROLES[each.role]} | {plain(each.name)} | {plain(each.stated)} |" for each in card.sources]
    yield from _part("Licences", ["| what | name | licence |", "| --- | --- | --- |", *rows])
    made = {
        "task": certificate.task,
        "backbone": run.backbone if run is not None else "",
        "strategy": run.strategy if run is not None else "",
        "runtime": certificate.runtime,
        "precision": certificate.precision,
        "bundle (SHA-256)": card.bundle,
        "certificate (SHA-256)": card.certificate,
    }
    yield from _part("Which model this is", _listed(f"{name}: {value}" for name, value in made.items() if value))
    yield ""
    yield f"Written by edgetl {__version__} from certificate.json; bom.cdx.json says the same to programs."


def _part(title: str, lines: Sequence[str] | Iterator[str]) -> Iterator[str]:
    yield from ("", f"## {title}", "", *lines)


def _listed(sentences: Sequence[str] | Iterator[str]) -> Iterator[str]:
    return (f"- {plain(sentence)}" for sentence in sentences)


def _figures(card: ModelCard) -> Iterator[str]:
    yield f"| what | of | value | {percent(card.interval, 0)} interval |"
    yield "| --- | --- | --- | --- |"
    for each in card.figures:
        value = figure(each.value, each.unit) if each.low is None else change(each.value, each.unit)
        yield f"| {plain(each.what)} | {plain(each.part or 'all')} | {value} | {_interval(each)} |"


def _interval(each: Measured) -> str:
    return "" if each.low is None else bounds(each.low, each.high, each.unit)


def plain(words: str) -> str:
    """Words that are printed as they are: Markdown and HTML make nothing else of them."""
    return _SPECIAL.sub(r"\\\1", printable(words))
