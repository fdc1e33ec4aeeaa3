"""Child processes whose progress shows while they run, and whose failures fit on one line."""

from __future__ import annotations

import io
import json
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from edgetl.errors import DeviceError
from edgetl.progress import Progress, silent

#: Asks ``edgetl.runtime`` to write its progress on standard error, in lines of this form:
#: ``progress ["task", done, total, "detail"]``.
PROGRESS_VARIABLE = "EDGETL_PROGRESS"
_PROGRESS_LINE = "progress "
_KEPT_LINES = 200


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


def run_watched(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    feed: Callable[[IO[bytes]], None] | None = None,
    progress: Progress = silent,
    on_line: Callable[[str], None] | None = None,
) -> Finished:
    """Run a command to its end; it is killed if this process is interrupted meanwhile.

    Args:
        command: program and arguments; no shell.
        environment: the whole environment; inherited when None.
        folder: working directory.
        feed: writes to its standard input, which is closed afterwards. Without it, standard input stays open
            and empty until the process ends.
        progress: told of each progress line on standard error; those are not kept.
        on_line: given each line of standard output as well, as it comes.

    Raises:
        DeviceError: the program does not exist or cannot be started.
    """
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd=folder)
    except OSError as error:
        raise DeviceError(f"cannot start {command[0]} ({error.strerror or error})", "install it") from error
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    written: list[bytes] = []
    threads = [threading.Thread(target=_drain, args=(process.stdout, written, on_line), daemon=True)]
    if feed is not None:
        threads.append(threading.Thread(target=_feed, args=(process.stdin, feed), daemon=True))
    for thread in threads:
        thread.start()
    lines: list[str] = []
    try:
        for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip("\n")
            if not _told(line, progress):
                lines = [*lines[1 - _KEPT_LINES :], line]
        status = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        for thread in threads:
            thread.join(timeout=10)
        _close(process)
    return Finished(status, b"".join(written), "\n".join(lines))


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout, process.stderr):
        try:
            if stream is not None:
                stream.close()
        except OSError:  # whatever was still to be flushed to a process that is gone
            continue


def _drain(stream: IO[bytes], into: list[bytes], on_line: Callable[[str], None] | None) -> None:
    for line in stream:
        into.append(line)
        if on_line is not None:
            on_line(line.decode(errors="replace").rstrip())


def _feed(stream: IO[bytes], feed: Callable[[IO[bytes]], None]) -> None:
    try:
        feed(stream)
        stream.close()
    except OSError:  # the process ended early: its exit status and standard error say why
        return


def _told(line: str, progress: Progress) -> bool:
    if not line.startswith(_PROGRESS_LINE):
        return False
    try:
        task, done, total, detail = json.loads(line.removeprefix(_PROGRESS_LINE))
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
        raise DeviceError(f"{name}: {finished.last_line}", _remedy(finished.last_line))
    lines = finished.stdout.decode(errors="replace").strip().splitlines()
    try:
        value = json.loads(lines[-1])
    except (IndexError, ValueError) as error:
        raise DeviceError(f"{name} answered with no JSON object ({finished.last_line})") from error
    if not isinstance(value, dict):
        raise DeviceError(f"{name} answered with no JSON object (but {type(value).__name__})")
    return value


def _remedy(line: str) -> str:
    return "on the device: python -m pip install numpy pillow onnxruntime" if "ModuleNotFoundError" in line else ""


def read_array(name: str, data: bytes) -> npt.NDArray[np.float32]:
    """Decode an array that a device wrote as ``.npy``.

    Raises:
        DeviceError: it is not whole.
    """
    try:
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False), np.float32)
    except (ValueError, OSError, EOFError) as error:
        raise DeviceError(f"{name} wrote no whole array ({error})", "run it again") from error
