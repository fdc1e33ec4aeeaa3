"""The command line: parsing and printing only. ``main`` is the console script and the one error handler."""

from __future__ import annotations

import json
import os
import sys
import traceback

from edgetl.errors import EdgetlError

BUG, BAD_INPUT, INTERRUPTED = 1, 2, 130


def main(arguments: list[str] | None = None) -> None:
    """Run ``edgetl ARGUMENTS`` and leave with its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    sys.exit(run(given))


def run(arguments: list[str]) -> int:
    """Run one command line; every way it can end becomes an exit status and at most one line of error."""
    # While a pipe's reader may be gone and a library may print what it likes, standard output carries results only.
    from edgetl.cli.app import build

    try:
        outcome = build()(args=arguments, prog_name="edgetl", standalone_mode=False)
        return outcome if isinstance(outcome, int) else 0
    except EdgetlError as error:
        return _fail(str(error), error.exit_status, arguments, error)
    except KeyboardInterrupt:
        return _fail("interrupted; the same command resumes", INTERRUPTED, arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        # Usage errors come from the parser that typer carries; where it lives differs between its versions.
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            return _fail(_usage(error), BAD_INPUT, arguments)
        if type(error).__name__ == "Abort":
            return _fail("interrupted", INTERRUPTED, arguments)
        if isinstance(error, OSError) and error.filename is not None:
            return _fail(f"cannot use {error.filename} ({error.strerror})", BAD_INPUT, arguments, error)
        what = f"a bug in edgetl: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return _fail(f"{what}: set EDGETL_DEBUG=1 for the traceback and report it", BUG, arguments, error)


def _usage(error: Exception) -> str:
    message = " ".join(str(error.format_message()).split()).rstrip(".")  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "edgetl"
    return f"{message}: see {command} --help"


def _fail(message: str, status: int, arguments: list[str], error: BaseException | None = None) -> int:
    if error is not None and os.environ.get("EDGETL_DEBUG") == "1":
        traceback.print_exception(error)
    if "--json" in arguments:
        print(json.dumps({"error": message, "exit_status": status}))
    print(f"error: {message}", file=sys.stderr)
    return status
