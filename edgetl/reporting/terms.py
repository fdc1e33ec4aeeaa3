"""Verdicts, places and samples by their names, the same on the console and in the page."""

from __future__ import annotations

from collections.abc import Mapping

from edgetl.base.wording import printable
from edgetl.inputs import INPUTS

VERDICTS: Mapping[str, str] = {
    "pass": "pass",
    "fail": "fail",
    "underpowered": "underpowered",
    "": "not verified",
}
EXECUTED: Mapping[str, str] = {
    "device": "on the device",
    "host": "on the host",
    "simulated": "simulated",
    "claimed": "claimed",
    "": "not executed",
}


def noun(kind: str) -> str:
    """What a sample of a kind of input is called: image, text, array; sample where the kind is unknown."""
    return INPUTS[kind].noun if kind in INPUTS else "sample"


def lines(text: str) -> str:
    """A text of several lines with every other control character replaced."""
    return "\n".join(printable(line) for line in text.splitlines())
