"""How a command can end that did not end well: its exit status, and one line that says what to do."""

from __future__ import annotations

import _thread
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

from edgetl.base.errors import EdgetlError
from edgetl.base.extras import missing
from edgetl.base.memory import shortage

BUG, BAD_INPUT, INTERRUPTED = 1, 2, 130
_MOST_CAUSES = 10
#: Seconds after which it is looked again whether an import is over, and how often.
_SOON_S, _TRIES = 0.05, 10
_LONGEST = 300


class Ended(KeyboardInterrupt):
    """Somebody asked this process to end: Ctrl-C, or a signal that would have killed it halfway through a file.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Signals:
    """Turns what asks a process to end into :class:`Ended`, and remembers it.

    A library that is interrupted may report something else, such as a failed import: what was asked for is what counts.

    Args:
        at_once: ends the process where it stands, for imports that take too long.
    """

    def __init__(self, at_once: Callable[[Ended], NoReturn]) -> None:
        self.seen: Ended | None = None
        self._at_once = at_once
        self._tries = 0
        self._heard: list[int] = []

    def listen(self) -> None:
        """Listen, in the main thread; a signal that the caller had ignored, as ``nohup`` does, stays ignored."""
        if threading.current_thread() is not threading.main_thread():
            return
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, self._end)
                self._heard.append(number)
        if hasattr(os, "register_at_fork"):
            # A process that loads data is ended by whoever forked it, and says nothing.
            os.register_at_fork(after_in_child=self.leave)

    def leave(self) -> None:
        """Hear no more: whoever asks again is obeyed at once, as all that is left is to say how it ended."""
        for number in self._heard:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.seen = self.seen or Ended(number)
        if not _importing(frame):
            raise self.seen
        self._tries += 1
        if self._tries > _TRIES:
            self._at_once(self.seen)
        again = threading.Timer(_SOON_S, _thread.interrupt_main, [number])
        again.daemon = True
        again.start()


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being loaded: C++ that initialises one (torch) does not survive an exception, and aborts."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def ending(error: BaseException, asked: Ended | None = None) -> tuple[int, str]:
    """Exit status and message of whatever a command raised.

    Args:
        error: what it raised.
        asked: what had asked it to end before that, if anything did.
    """
    error = asked or error
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        number = error.number if isinstance(error, Ended) else signal.SIGINT
        word = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
        return 128 + number, f"{word}: the same command resumes"
    if isinstance(error, EdgetlError):
        return error.exit_status, str(error)
    # Usage errors come from the parser that typer carries; where it lives differs between its versions.
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        return BAD_INPUT, _usage(error)
    for cause in _causes(error):
        known = cause if isinstance(cause, EdgetlError) else missing(cause) or shortage(cause)
        if known is not None:
            return known.exit_status, str(known)
    if isinstance(error, OSError) and error.filename is not None:
        return BAD_INPUT, f"cannot use {_name(error.filename)} ({error.strerror})"
    said = " ".join(str(error).split())[:_LONGEST]
    what = f"a bug in edgetl: {type(error).__name__}: {said}"
    return BUG, f"{what}: set EDGETL_DEBUG=1 for the traceback and report it"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what was being handled when it was raised."""
    seen: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def _name(file: Any) -> str:
    return file.decode(errors="backslashreplace") if isinstance(file, bytes) else str(file)


def _usage(error: Any) -> str:
    message = re.sub(r"\s+", " ", str(error.format_message())).strip().rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "edgetl"
    return f"{message}: see {command} --help"
