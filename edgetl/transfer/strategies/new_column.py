"""What a strategy says that learns beside an earlier run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class NewColumn:
    """What learns the data's task beside those of an earlier run, which stay as they are (progressive networks).

    Attributes:
        name: of the task; "" for its number.
        start: its weights: the backbone's "pretrained" ones (or those of ``--weights``), or those of the "previous"
            run's newest column.
    """

    name: str = ""
    start: Literal["pretrained", "previous"] = "pretrained"
