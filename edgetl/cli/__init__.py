"""The command line: parsing and printing only. ``main`` is the console script and the one error handler."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import traceback
import warnings
from typing import NoReturn

from edgetl.base.errors import EdgetlError
from edgetl.base.wording import printable
from edgetl.cli.endings import BAD_INPUT, BUG, INTERRUPTED, Ended, Signals, ending
from edgetl.cli.streams import prepare

__all__ = ["BAD_INPUT", "BUG", "INTERRUPTED", "main", "run"]


def main(arguments: list[str] | None = None) -> None:
    """Run ``edgetl ARGUMENTS`` and leave with its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    prepare()
    stdout = os.dup(1)

    def at_once(asked: Ended) -> NoReturn:
        os.dup2(stdout, 1)
        os._exit(_told(asked, "--json" in given, asked))

    signals = Signals(at_once)
    signals.listen()
    if not sys.warnoptions and os.environ.get("EDGETL_DEBUG") != "1":
        # Other packages' words of odd files and of their own futures: what matters to a user edgetl says itself.
        warnings.simplefilter("ignore")
    # Reading 50,000 samples makes 50,000 objects that stay: looking for garbage among them took a sixth of the time.
    gc.set_threshold(50_000, 20, 20)
    sys.exit(run(given, signals))


def run(arguments: list[str], signals: Signals | None = None) -> int:
    """Run one command line; every way it can end becomes an exit status and at most one line of error."""
    try:
        from edgetl.cli.app import build

        outcome = build()(args=arguments or ["--help"], prog_name="edgetl", standalone_mode=False)
        sys.stdout.flush()
        # typer makes an exit status of an interruption, and says nothing.
        if outcome == INTERRUPTED:
            raise KeyboardInterrupt
        return outcome if isinstance(outcome, int) else 0
    except (Exception, KeyboardInterrupt) as error:
        if signals is not None:
            signals.leave()
        return _told(error, "--json" in arguments, signals.seen if signals is not None else None)


def _told(error: BaseException, json_wanted: bool, asked: Ended | None) -> int:
    status, message = ending(error, asked)
    message = printable(message)
    if os.environ.get("EDGETL_DEBUG") == "1":
        traceback.print_exception(error)
    if json_wanted:
        # Standard output may be what failed.
        with contextlib.suppress(EdgetlError, OSError):
            print(json.dumps({"error": message, "exit_status": status}), flush=True)
    print(f"error: {message}", file=sys.stderr, flush=True)
    return status
