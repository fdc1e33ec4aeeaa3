"""One process at a time: a folder that only one may write to, a file that processes take in turn.

The operating system holds the locks, so that they end with the process, however it ends: ``flock`` on POSIX, a locked
byte on Windows. Devices use this too, where only Python's own library is at hand.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from edgetl.base.errors import EdgetlError

#: Seconds between two tries of whoever waits.
_PATIENCE = 0.05
#: On Windows, where a folder itself cannot be locked.
_INSIDE = ".lock"


@contextlib.contextmanager
def exclusive(folder: Path, work: str) -> Iterator[None]:
    """Hold a folder, made where there is none, until the block ends or the process does; nothing is left in it.

    Folders that were made go again if nothing is in them at the end. Where a file system has no locks, nothing is held.

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
            stack.enter_context(_held(folder))
            _write_a_block(folder)
        except BlockingIOError as error:
            what = f"another {work} is writing to {folder}"
            raise EdgetlError(what, "wait for it, or choose another --out") from error
        except OSError as error:
            raise EdgetlError(f"cannot write {folder} ({error.strerror or error})", "choose another --out") from error
        yield


@contextlib.contextmanager
def alone(file: Path) -> Iterator[None]:
    """Hold a lock file, which stays there, until the block ends or the process does.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be written.
    """
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _lock(handle)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def in_turn(file: Path) -> Iterator[None]:
    """The same, after whoever holds it.

    Raises:
        OSError: it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(alone(file))
                break
            except BlockingIOError:
                time.sleep(_PATIENCE)
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
def _held(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        while True:
            stack.close()
            folder.mkdir(parents=True, exist_ok=True)
            if sys.platform == "win32":
                # Removed once it is closed, which the stack does first.
                stack.callback(_remove_file, folder / _INSIDE)
                stack.enter_context(alone(folder / _INSIDE))
                break
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            stack.callback(os.close, handle)
            _lock(handle)
            # Whoever held it before may have removed it.
            if folder.exists() and os.path.samestat(os.fstat(handle), folder.stat()):
                break
        yield


def _remove_file(file: Path) -> None:
    with contextlib.suppress(OSError):
        file.unlink()


def _lock(handle: int) -> None:
    """Lock an open file until it is closed.

    Raises:
        BlockingIOError: another process, or another open file of this one, holds it.
    """
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(error.errno, "it is locked") from error
        return
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        # A network's file system may have no locks; work there must still be possible.
        return
