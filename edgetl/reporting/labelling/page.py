"""``to_label.html``: the samples on which two models differ, one at a time, for whoever says what they are.

The page is one file without a request to anywhere. It does not say what either model answered, so that nobody is led.
Whatever comes from file names, texts and classes stands in one JSON block and is only ever shown as text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.base.storage import sha256_json, write_bytes
from edgetl.base.wording import printable
from edgetl.reporting.samples import preview

TEMPLATE = Path(__file__).with_name("page.html")
#: Longest side of a picture, pixels: large enough to label by.
SIDE = 384
#: Samples that are shown; the file that is saved has all, and a page of thousands of pictures would not open.
MOST_SHOWN = 1000
_DATA = "/*DATA*/"


@dataclass(frozen=True)
class Asked:
    """A sample that wants a label.

    Attributes:
        path: as the saved file names it.
        file: on this machine.
        label: that it has already, as a cell; "" without one.
        offered: classes on the number keys, at most nine, in an order that says nothing of the models.
    """

    path: str
    file: Path
    label: str
    offered: tuple[str, ...]


def write_label_page(
    out: Path, classes: Sequence[str], asked: Sequence[Asked], kind: str, noun: str, *, several: bool, digest: str
) -> None:
    """Write the page.

    Args:
        out: the file.
        classes: all of them.
        asked: in the order in which their labels decide soonest.
        kind: of the input, a key of :data:`edgetl.inputs.INPUTS`.
        noun: what a sample is called.
        several: whether a sample may have several labels, or none.
        digest: of what the models answered: what the browser keeps of an unfinished page belongs to it alone.

    Raises:
        EdgetlError: the folder is read-only or the disk is full.
    """
    data = {
        "noun": noun,
        "classes": list(classes),
        "several": several,
        "key": sha256_json([digest, [each.path for each in asked]]),
        "samples": [_shown(each, kind) for each in asked[:MOST_SHOWN]],
        "rest": [[each.path, each.label] for each in asked[MOST_SHOWN:]],
    }
    page = TEMPLATE.read_text(encoding="utf-8").replace(_DATA, _inside_script(data))
    write_bytes(out, page.encode())


def _shown(each: Asked, kind: str) -> dict[str, Any]:
    seen = preview(each.file, kind, SIDE)
    return {
        "path": each.path,
        "shown": printable(each.path),
        "label": each.label,
        "offered": list(each.offered),
        "image": seen.image,
        "small": seen.small,
        "text": seen.text or seen.missing,
    }


def _inside_script(data: Any) -> str:
    """JSON that no content ends the script element of, or begins a comment in."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
