"""Programs for a POSIX shell, a device's or this machine's: each a file beside this one, and how one is started."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

_FOLDER = Path(__file__).parent


def program(name: str) -> str:
    """The text of ``NAME.sh``."""
    return (_FOLDER / f"{name}.sh").read_text(encoding="utf-8")


def command_line(script: str, arguments: Sequence[str] = ()) -> str:
    """One line, for whatever login shell a device has, that runs a POSIX shell script.

    Args:
        script: its text.
        arguments: its $1, $2, ….
    """
    # Inside single quotes csh takes no line break and reads "!", fish reads backslashes: sh puts these back.
    text = f"{shlex.join(['set', '--', *arguments])}\n{script}".translate({10: 1, 92: 2, 33: 3})
    start = "eval \"$(printf %s \"$1\" | tr '\\001\\002\\003' '\\012\\134\\041')\""
    return shlex.join(["sh", "-c", start, "edgetl", text])
