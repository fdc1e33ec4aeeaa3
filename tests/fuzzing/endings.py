"""How a question may end: done, or refused in one line that steers no terminal."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from edgetl.base.errors import EdgetlError
from edgetl.cli import run
from edgetl.devices.payload import write_payload

#: Done, bad input, a certificate that fails or is underpowered.
STATUSES = frozenset({0, 2, 3, 4})
SECONDS = 30


@dataclass(frozen=True)
class Ended:
    """How one question ended: exit status, and what was written."""

    status: int
    out: str = ""
    err: str = ""

    @property
    def refused(self) -> bool:
        """Whether it was bad input."""
        return self.status == 2


def objection(ended: Ended) -> str:
    """What is wrong with an ending, in one line; "" if nothing is."""
    said = ended.err.strip("\n")
    lines = [line for line in said.split("\n") if line]
    if ended.status not in STATUSES:
        return f"status {ended.status}: {lines[-1] if lines else 'without a word'}"
    if ended.refused and (len(lines) != 1 or not lines[0].startswith("error: ")):
        return f"refused in {len(lines)} lines: {lines[:2]}"
    if ended.refused and len(lines[0]) > 4000:
        return f"a line of {len(lines[0])} characters: {lines[0][:80]}"
    if not all(line.isprintable() for line in (*lines, *ended.out.split("\n"))):
        return f"a character that steers a terminal: {said!a:.200}{ended.out!a:.200}"
    return ""


class _TooLongError(BaseException):
    """No Exception, so that nothing on the way takes it for one of its own."""


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def late(*_: object) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _captured() -> Iterator[Callable[[], str]]:
    """Standard output as the process writes it, not only as Python does."""
    sys.stdout.flush()
    before = os.dup(1)
    with tempfile.TemporaryFile() as stream:
        os.dup2(stream.fileno(), 1)
        try:
            yield lambda: os.pread(1, 1 << 24, 0).decode(errors="replace")
        finally:
            sys.stdout.flush()
            os.dup2(before, 1)
            os.close(before)


def command(*words: object) -> Ended:
    """The command line, in this process."""
    err = io.StringIO()
    with _captured() as out:
        try:
            with contextlib.redirect_stderr(err), _limited():
                status = run([str(word) for word in words])
        except _TooLongError:
            return Ended(-1, err=f"not done within {SECONDS} s")
        except BaseException as error:  # whatever leaves the command line is a bug of it
            return Ended(1, err=f"{type(error).__name__}: {str(error)[:300]}")
        sys.stdout.flush()
        return Ended(status, out(), err.getvalue())


def call(function: Callable[[], object], *, refusals: tuple[type[BaseException], ...] = (EdgetlError,)) -> Ended:
    """A function of edgetl's: it returns, or raises what says that the input is bad."""
    try:
        with _limited():
            function()
    except _TooLongError:
        return Ended(-1, err=f"not done within {SECONDS} s")
    except refusals as error:
        return Ended(2, err=f"error: {error}")
    except BaseException as error:
        return Ended(1, err=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return Ended(0)


#: Only what a device has can be imported.
_ALONE = """
import sys
HERE = {"edgetl", "numpy", "PIL", "tokenizers", "onnxruntime", "openvino"}
class Refuse:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names | HERE and not top.startswith("_"):
            raise ModuleNotFoundError(f"No module named '{top}'", name=top)
sys.meta_path.insert(0, Refuse())
"""
#: Asks the device's end for each line of arguments, and prints how it ended.
_END = """
import contextlib, io, json, sys
from edgetl.runtime.__main__ import main
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(json.loads(line))
        except Exception as error:
            status = 1
            print(type(error).__name__, " ".join(str(error).split())[:300], file=err)
    print(json.dumps([status, out.getvalue(), err.getvalue()]), flush=True)
"""


class DeviceEnd:
    """The device's share of edgetl in a Python of its own, started anew when a file has ended it.

    Args:
        folder: for its code and its releases.
        python: the command that starts its Python; this one's when None.
        environment: the whole environment, but for the import path.
    """

    def __init__(
        self, folder: Path, python: tuple[str, ...] | None = None, environment: dict[str, str] | None = None
    ) -> None:
        self.folder, self.python = write_payload(folder), python or (sys.executable,)
        if python is None:
            (folder / "sitecustomize.py").write_text(_ALONE)
        own = {**os.environ, "OMP_NUM_THREADS": "1"} if environment is None else environment
        self.environment = {**own, "PYTHONPATH": str(folder), "XDG_DATA_HOME": str(folder / "releases")}
        self.process: subprocess.Popen[str] | None = None

    def ask(self, *words: object) -> Ended:
        """``python -m edgetl.runtime WORDS``."""
        if self.process is None:
            self.process = subprocess.Popen(
                [*self.python, "-c", _END],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=self.folder,
                env=self.environment,
            )
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], 4 * SECONDS)
        line = process.stdout.readline() if ready else ""
        if not line:
            self.close()
            why = f"ended by itself ({process.returncode})" if ready else f"not done within {4 * SECONDS} s"
            return Ended(-1, err=f"the device's end was {why}")
        return Ended(*json.loads(line))

    def close(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for stream in (self.process.stdin, self.process.stdout):
                if stream is not None:
                    stream.close()
        self.process = None
