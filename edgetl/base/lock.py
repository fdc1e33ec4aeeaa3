"""A folder that one process at a time may write to."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgetl.base.errors import EdgetlError


@contextlib.contextmanager
def exclusive(folder: Path, work: str) -> Iterator[None]:
    """Hold a folder, made where there is none, until the block ends or the process does; nothing is written into it.

    Folders that were made go again if nothing is in them at the end. Where the file system has no locks, and on
    Windows, nothing is held.

    Args:
        folder: to hold.
        work: what writes to it, for the message: "training".

    Raises:
        EdgetlError: another process holds it, or it cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        try:
            made = [path for path in (folder, *folder.parents) if not path.exists()]
            stack.callback(_remove, made)
            stack.enter_context(_held(folder, work))
            _write_a_block(folder)
        except OSError as error:
            raise EdgetlError(f"cannot write {folder} ({error.strerror or error})", "choose another --out") from error
        yield


def _remove(made: list[Path]) -> None:
    """Remove what is empty of these folders, the innermost first."""
    with contextlib.suppress(OSError):
        for path in made:
            path.rmdir()


def _write_a_block(folder: Path) -> None:
    # Root may ignore permission bits, but not a read-only file system or a full one: only a real write tells.
    with tempfile.TemporaryFile(dir=folder, buffering=0) as probe:
        probe.write(bytes(4096))
        os.fsync(probe.fileno())


@contextlib.contextmanager
def _held(folder: Path, work: str) -> Iterator[None]:
    if sys.platform == "win32":
        folder.mkdir(parents=True, exist_ok=True)
        yield
        return
    import fcntl

    with contextlib.ExitStack() as stack:
        mine = False
        while not mine:
            stack.close()
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                what = f"another {work} is writing to {folder}"
                raise EdgetlError(what, "wait for it, or choose another --out") from error
            except OSError:
                # A network's file system may have no locks; training there must still be possible.
                mine = True
            # Whoever held it before may have removed it.
            mine = mine or (folder.exists() and os.path.samestat(os.fstat(handle), folder.stat()))
        yield
