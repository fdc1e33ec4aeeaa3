"""Telling a machine that has too little memory from a fault of edgetl's: every library says it in words of its own."""

from __future__ import annotations

import errno
import re

from edgetl.base.errors import OutOfMemoryError

#: Of torch on CPUs and GPUs, of its loaders and processes, of C++ libraries, of ONNX Runtime, of the kernel.
_WORDS = re.compile(
    r"can't allocate memory|not enough memory|out of memory|bad_alloc|bad allocation|cannot allocate memory"
    r"|failed to allocate memory|unable to allocate|insufficient shared memory|could not allocate|std::length_error"
    r"|(worker|process) .{0,60}(is killed by signal: Killed|terminated with signal SIGKILL)",
    re.IGNORECASE,
)
_REMEDY = "free memory, or ask for less at once: a smaller batch, image, duration or number of processes"
_LONGEST = 160


def shortage(error: BaseException) -> OutOfMemoryError | None:
    """What to raise in an error's stead if it says that memory ran out; None if it does not."""
    said = " ".join(str(error).split())
    short = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    # Libraries raise it as a RuntimeError, or as something of their own; what speaks of an input is no such thing.
    found = None if short or isinstance(error, (LookupError, TypeError)) else _WORDS.search(said)
    if not short and found is None:
        return None
    # A process of its own reports its whole traceback: what is the matter stands at the end.
    told = said if found is None else said[max(0, found.start() - _LONGEST // 2) :]
    return OutOfMemoryError(f"there is not enough memory ({told[:_LONGEST] or type(error).__name__})", _REMEDY)
