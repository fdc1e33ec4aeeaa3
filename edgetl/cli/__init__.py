"""The command line: parsing and printing only. ``main`` is the console script and the one error handler."""

from __future__ import annotations

import gc
import json
import os
import sys
import traceback
from typing import Any

from edgetl.base.errors import EdgetlError
from edgetl.base.wording import printable

BUG, BAD_INPUT, INTERRUPTED = 1, 2, 130


def main(arguments: list[str] | None = None) -> None:
    """Run ``edgetl ARGUMENTS`` and leave with its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    # Reading 50,000 samples makes 50,000 objects that stay: looking for garbage among them took a sixth of the time.
    gc.set_threshold(50_000, 20, 20)
    sys.exit(run(given))


def run(arguments: list[str]) -> int:
    """Run one command line; every way it can end becomes an exit status and at most one line of error."""
    from edgetl.cli.app import build

    try:
        outcome = build()(args=arguments or ["--help"], prog_name="edgetl", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except BrokenPipeError:
        # The reader of our output has left; a flush at exit must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        status, message = _ending(error)
        message = printable(message)
        if os.environ.get("EDGETL_DEBUG") == "1":
            traceback.print_exception(error)
        if "--json" in arguments:
            print(json.dumps({"error": message, "exit_status": status}))
        print(f"error: {message}", file=sys.stderr)
        return status


def _ending(error: BaseException) -> tuple[int, str]:
    status, message = BUG, f"a bug in edgetl: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if isinstance(error, EdgetlError):
        status, message = error.exit_status, str(error)
    elif isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        status, message = INTERRUPTED, "interrupted: the same command resumes"
    # Usage errors come from the parser that typer carries; where it lives differs between its versions.
    elif hasattr(error, "format_message") and hasattr(error, "exit_code"):
        status, message = BAD_INPUT, _usage(error)
    elif isinstance(error, OSError) and error.filename is not None:
        status, message = BAD_INPUT, f"cannot use {error.filename} ({error.strerror})"
    else:
        message += ": set EDGETL_DEBUG=1 for the traceback and report it"
    return status, message


def _usage(error: Any) -> str:
    message = " ".join(str(error.format_message()).split()).rstrip(".")
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "edgetl"
    return f"{message}: see {command} --help"
