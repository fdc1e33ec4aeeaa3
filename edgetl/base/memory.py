"""Telling a machine that has too little memory from a fault of edgetl's: every library says it in words of its own."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from edgetl.base.errors import OutOfMemoryError

#: Of torch on CPUs and GPUs, of its loaders and processes, of C++ libraries, of ONNX Runtime, of the kernel.
_WORDS = re.compile(
    r"can't allocate memory|not enough memory|out of memory|bad_alloc|bad allocation|cannot allocate memory"
    r"|failed to allocate memory|unable to allocate|insufficient shared memory|could not allocate|std::length_error"
    r"|(worker|process) .{0,60}(is killed by signal: Killed|terminated with signal SIGKILL)",
    re.IGNORECASE,
)
#: Limit, use and cache of files, by version 2 and version 1 of control groups.
_GROUPS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
_REMEDY = "free memory, or ask for less at once: a smaller batch, image, duration or number of processes"
_LONGEST = 160


def available(groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that this process may still take: by the kernel, its control group and its own limit; None where untold.

    Args:
        groups: where the kernel tells of control groups.
    """
    found = [size for size in (_of_machine(), _of_group(groups), _of_process()) if size is not None]
    return min(found) if found else None


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    told = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(told[0]) << 10 if told else None


def _of_process() -> int | None:
    """What ``ulimit -v`` leaves."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except (ImportError, OSError, ValueError):
        return None
    return None if limit == resource.RLIM_INFINITY else max(limit - pages * resource.getpagesize(), 0)


def _of_group(root: Path) -> int | None:
    """What the limit of the control group leaves, its cache of files counted as free."""
    for folder in (_own_group(root), root):
        for most, used, cached in _GROUPS:
            try:
                limit, taken = (
                    (folder / most).read_text(encoding="ascii").strip(),
                    int((folder / used).read_text(encoding="ascii")),
                )
                rows = (
                    row.split()
                    for row in (folder / used).with_name("memory.stat").read_text(encoding="ascii").splitlines()
                )
                cache = sum(int(row[1]) for row in rows if row[0] == cached)
                if limit != "max":
                    return max(int(limit) - taken + cache, 0)
            except (OSError, ValueError, IndexError):
                continue
    return None


def _own_group(root: Path) -> Path:
    """The folder of this process's group of version 2; a container sees it as the root."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return root
    return root / next((line[3:] for line in lines if line.startswith("0::")), "/").lstrip("/")


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
