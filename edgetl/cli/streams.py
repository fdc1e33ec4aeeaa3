"""Standard output and standard error that take whatever is written, in any locale and wherever they lead.

Results hold minus signs, arrows and names in any script; a terminal may know ASCII alone. What reads them may have
left, its disk may be full, or the caller may have closed them: none of that is a reason to lose an hour of work.
"""

from __future__ import annotations

import codecs
import errno
import io
import locale
import os
import sys
from collections.abc import Mapping
from typing import TextIO

from edgetl.base.errors import EdgetlError

#: How :func:`codecs.register_error` knows what spells out the characters that an encoding lacks.
SPELLED = "edgetl-spelled"
_SPELLINGS: Mapping[str, str] = {
    "\u2212": "-",
    "\u2013": "-",
    "\u2014": "-",
    "\u2026": "...",
    "\u2192": "->",
    "\u2264": "<=",
    "\u2265": ">=",
    "\u00d7": "x",
    "\u00b2": "^2",
    "\u00b0": " deg ",
    "\u00b5": "u",
    "\u2500": "-",
    "\ufffd": "?",
}


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    # A letter of a name stays recognisable as an escape; a question mark would make two classes look the same.
    return "".join(_SPELLINGS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking), error.end


codecs.register_error(SPELLED, _spelled)


class _Outcome(io.FileIO):
    """Standard output: it ends in silence where its reader has left, and in one error where it cannot be written."""

    _lost = False

    def write(self, data: object, /) -> int:
        size = memoryview(data).nbytes  # type: ignore[arg-type]
        if self._lost:
            return size
        try:
            return super().write(data) or 0  # type: ignore[arg-type]
        except OSError as error:
            # What stays in the buffer would be tried again, and complained about, while the interpreter ends.
            self._lost = True
            if error.errno in (errno.EPIPE, errno.EINVAL):
                return size
            what = f"cannot write to standard output ({error.strerror or error})"
            raise EdgetlError(what, "free space, or send it elsewhere") from error


class _Prose(io.FileIO):
    """Standard error: progress and notes, without which the work goes on."""

    def write(self, data: object, /) -> int:
        try:
            return super().write(data) or 0  # type: ignore[arg-type]
        except OSError:
            return memoryview(data).nbytes  # type: ignore[arg-type]


def prepare() -> None:
    """Replace this process's standard streams; called once, before anything is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Closed by the caller. The next file that is opened would become standard output, and be written into.
            os.open(os.devnull, os.O_RDWR)
    if sys.platform == "win32" and sys.stdout is not None and sys.stderr is not None:
        # A console there is written to through the system, which takes every character.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors=SPELLED)
        return
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    # Those of before are kept: an interpreter that collects them would close what they write to.
    sys.stdout = _text(_Outcome(1, "wb", closefd=False), sys.stdout)
    sys.stderr = _text(_Prose(2, "wb", closefd=False), sys.stderr)


def outcome(handle: int) -> TextIO:
    """What writes a command's outcome to an open file, which it closes: with standard output's encoding."""
    return _text(_Outcome(handle, "wb"), sys.stdout)


def _text(raw: io.FileIO, before: TextIO | None) -> TextIO:
    encoding = getattr(before, "encoding", None) or locale.getpreferredencoding(False)
    buffered = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffered, encoding=encoding, errors=SPELLED, line_buffering=True)
