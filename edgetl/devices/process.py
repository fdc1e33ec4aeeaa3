"""Child processes whose progress shows while they run, and whose failures fit on one line."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy.typing as npt

from edgetl.base.errors import DeviceError
from edgetl.base.progress import Progress, silent
from edgetl.base.storage import parse_json
from edgetl.runtime.transport import read_arrays

#: Asks ``edgetl.runtime`` to write its progress on standard error, in lines of this form:
#: ``progress ["task", done, total, "detail"]``.
PROGRESS_VARIABLE = "EDGETL_PROGRESS"
#: Seconds after which ``edgetl.runtime`` ends itself, wherever it hangs.
DEADLINE_VARIABLE = "EDGETL_DEADLINE"
#: Names the file in which ``edgetl.runtime`` lists what must be removed if it is killed.
LEFTOVERS_VARIABLE = "EDGETL_LEFTOVERS"
#: Names folders, one a line. ``edgetl.runtime`` removes them and ends when its standard input does: whoever waited for
#: its answer is gone.
SCRATCH_VARIABLE = "EDGETL_SCRATCH"
_PROGRESS_LINE = "progress "
_KEPT_LINES = 200
#: What a process may write to standard output, bytes: a device that writes without end must not take all memory here.
MOST_BYTES = 4 << 30
_PIECE = 1 << 16
#: How a full disk shows, whoever says so.
FULL_DISK = ("No space left on device", "Disk quota exceeded", "File too large")
#: Numbers as POSIX devices report them, whatever system asks.
_ALARM = 14
_KILLED = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 9: "SIGKILL", 10: "SIGBUS", 11: "SIGSEGV", 15: "SIGTERM"}
_ends: ContextVar[tuple[float, float] | None] = ContextVar("ends", default=None)
_running: set[subprocess.Popen[bytes]] = set()


@dataclass(frozen=True)
class Finished:
    """How a process ended: exit status (negative: the signal that killed it) and what it wrote."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def last_line(self) -> str:
        """The last line of standard error that says something, without edgetl's own ``error:``."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        return lines[-1].removeprefix("error: ") if lines else f"exit status {self.status}, no message"


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Whatever this thread runs in the block is killed when ``seconds`` have passed, counted from now."""
    token = _ends.set((time.monotonic() + seconds, seconds))
    try:
        yield
    finally:
        _ends.reset(token)


def remaining() -> float | None:
    """Seconds left of this thread's time limit, 0 or more; None without one."""
    limit = _ends.get()
    return None if limit is None else max(0.0, limit[0] - time.monotonic())


def out_of_time() -> DeviceError | None:
    """The error that says so, if this thread's time limit has passed."""
    limit = _ends.get()
    if limit is None or remaining():
        return None
    return DeviceError(f"not done within {limit[1]:g} s", "allow more with --timeout, or look what hangs there")


def stop_all() -> None:
    """Kill every process that :func:`run_watched` waits for, in whatever thread."""
    for process in tuple(_running):
        kill_group(process)


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children; it leads a group of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask a process and its children to end; it leads a group of its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGTERM)
        else:
            process.terminate()


@contextlib.contextmanager
def killed_in_time(process: subprocess.Popen[bytes], most: float | None = None) -> Iterator[None]:
    """Kill ``process`` when the time limit passes, or ``most`` seconds from now, while the block runs."""
    limits = [seconds for seconds in (remaining(), most) if seconds is not None]
    timer = threading.Timer(min(limits), kill_group, [process]) if limits else None
    _running.add(process)
    try:
        if timer is not None:
            timer.daemon = True
            timer.start()
        yield
    finally:
        _running.discard(process)
        if timer is not None:
            timer.cancel()


def run_watched(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    feed: Callable[[IO[bytes]], None] | None = None,
    progress: Progress = silent,
    on_line: Callable[[str], None] | None = None,
) -> Finished:
    """Run a command to its end; it is killed, with its children, if this process is interrupted or time is up.

    Args:
        command: program and arguments; no shell.
        environment: the whole environment; inherited when None.
        folder: working directory.
        feed: writes to its standard input, and closes that if nothing more may come. Otherwise it stays open until
            the process ends.
        progress: told of each progress line on standard error; those are not kept.
        on_line: given each line of standard output as well, as it comes.

    Raises:
        DeviceError: the program does not exist or cannot be started, writes more than :data:`MOST_BYTES`, or the
            thread's time limit has passed.
    """
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd=folder, process_group=0
        )
    except OSError as error:
        raise DeviceError(f"cannot start {command[0]} ({error.strerror or error})", "install it") from error
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    written: list[bytes] = []
    threads = [threading.Thread(target=_drain, args=(process, written, on_line), daemon=True)]
    if feed is not None:
        threads.append(threading.Thread(target=_feed, args=(process.stdin, feed), daemon=True))
    for thread in threads:
        thread.start()
    lines: list[str] = []
    try:
        with killed_in_time(process):
            for raw in iter(partial(process.stderr.readline, _PIECE), b""):
                line = raw.decode(errors="replace").rstrip("\n")
                if not _is_progress(line, progress):
                    lines = [*lines[1 - _KEPT_LINES :], line]
            status = process.wait()
    except BaseException:
        kill_group(process)
        process.wait()
        raise
    finally:
        for thread in threads:
            thread.join(timeout=10)
        _close(process)
    if status < 0 and (late := out_of_time()) is not None:
        raise late
    if sum(map(len, written)) > MOST_BYTES:
        raise DeviceError(f"{command[0]} wrote more than {MOST_BYTES} bytes and was killed", "look what it does there")
    return Finished(status, b"".join(written), "\n".join(lines))


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout, process.stderr):
        try:
            if stream is not None:
                stream.close()
        except OSError:  # whatever was still to be flushed to a process that is gone
            continue


def _drain(process: subprocess.Popen[bytes], into: list[bytes], on_line: Callable[[str], None] | None) -> None:
    assert process.stdout is not None
    left = MOST_BYTES
    for line in iter(partial(process.stdout.readline, _PIECE), b""):
        into.append(line)
        left -= len(line)
        if left < 0:
            kill_group(process)
            return
        if on_line is not None:
            on_line(line.decode(errors="replace").rstrip())


def _feed(stream: IO[bytes], feed: Callable[[IO[bytes]], None]) -> None:
    try:
        feed(stream)
        if not stream.closed:
            stream.flush()
    except (OSError, ValueError):  # the process ended early: its exit status and standard error say why
        return


def _is_progress(line: str, progress: Progress) -> bool:
    if not line.startswith(_PROGRESS_LINE):
        return False
    try:
        task, done, total, detail = parse_json(line.removeprefix(_PROGRESS_LINE))
        progress(str(task), int(done), int(total), str(detail))
    except (ValueError, TypeError):
        return False
    return True


def answer(name: str, finished: Finished) -> dict[str, Any]:
    """The JSON object that ``edgetl.runtime`` printed as its last line.

    Args:
        name: of the device, for the message.
        finished: how the call ended.

    Raises:
        DeviceError: it failed, or printed no JSON object.
    """
    if finished.status:
        raise _failure(name, finished)
    lines = finished.stdout.decode(errors="replace").strip().splitlines()
    try:
        value = parse_json(lines[-1])
    except (IndexError, ValueError) as error:
        raise DeviceError(f"{name} answered with no JSON object ({finished.last_line})") from error
    if not isinstance(value, dict):
        raise DeviceError(f"{name} answered with no JSON object (but {type(value).__name__})")
    return value


def _failure(name: str, finished: Finished) -> DeviceError:
    line = finished.last_line
    # A shell reports 128 plus the signal.
    number = -finished.status if finished.status < 0 else finished.status - 128
    if number == _ALARM:
        return out_of_time() or DeviceError(f"{name}: not done in time", "allow more with --timeout")
    if number in _KILLED:
        what = f"{name}: the work was killed there ({_KILLED[number]})"
        return DeviceError(what, "look at its memory (dmesg), then run it again")
    if any(words in line for words in FULL_DISK):
        return DeviceError(f"{name} has no space left ({line})", "free space there")
    remedy = "on the device: python -m pip install numpy pillow onnxruntime" if "ModuleNotFoundError" in line else ""
    return DeviceError(f"{name}: {line}", remedy)


def read_outputs(name: str, data: bytes) -> dict[str, npt.NDArray[Any]]:
    """Decode the outputs that a device wrote.

    Raises:
        DeviceError: they are not whole, or something else.
    """
    try:
        return read_arrays(data)
    except ValueError as error:
        raise DeviceError(f"{name} wrote no whole outputs ({error})", "run it again") from error
