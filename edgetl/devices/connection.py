"""One authenticated OpenSSH connection that several commands share.

The system's own ``ssh`` does everything, so the user's ``~/.ssh/config``, agent, jump hosts and known hosts count
as they do at the prompt; host keys are checked as OpenSSH does by default, and nothing is ever asked (BatchMode).
The connection lives as long as a command on the device that waits for this process: whatever ends this process
ends the connection too.
"""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from edgetl.base.errors import DeviceError
from edgetl.base.progress import Progress, silent
from edgetl.devices.process import FULL_DISK, Finished, end_group, killed_in_time, run_watched
from edgetl.devices.remote import command_line, program

CONNECT_SECONDS = 10
_GREETING_SECONDS = 60
#: What ``remote/greet.sh`` says before the cache folder.
_READY = "edgetl-ready "


@dataclass(frozen=True)
class Address:
    """Where a device is reached.

    Attributes:
        host: name, address, or alias of ``~/.ssh/config``.
        user, port: as OpenSSH chooses when None.
        python: the command that starts Python there.
        config: an OpenSSH client configuration to use instead of the user's.
    """

    host: str
    user: str | None = None
    port: int | None = None
    python: str = "python3"
    config: str | None = None

    @property
    def url(self) -> str:
        """As :func:`parse_url` reads it."""
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        chosen = {"python": self.python if self.python != "python3" else None, "config": self.config}
        query = urlencode({key: value for key, value in chosen.items() if value}, quote_via=quote, safe="/")
        return f"ssh://{user}{host}{f':{self.port}' if self.port else ''}{f'?{query}' if query else ''}"

    @property
    def shown(self) -> str:
        """What to type after ``ssh`` to reach it by hand."""
        options = [*(["-F", self.config] if self.config else []), *(["-p", str(self.port)] if self.port else [])]
        return shlex.join([*options, f"{self.user}@{self.host}" if self.user else self.host])


def parse_url(url: str) -> Address:
    """Read ``ssh://[USER@]HOST[:PORT][?python=COMMAND&config=FILE]``.

    Raises:
        DeviceError: it is malformed, names another scheme, or holds a password.
    """
    wanted = "write ssh://user@host:port, with ?python=/path/to/python if need be"
    try:
        parts = urlsplit(url)
        port = parts.port
        query = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise DeviceError(f"'{url}' is not the address of a device ({error})", wanted) from error
    host, user = parts.hostname or "", unquote(parts.username or "")
    if parts.password:
        raise DeviceError("an address must not hold a password", f"use a key (ssh-copy-id), and {wanted}")
    if parts.scheme != "ssh" or not host or host.startswith("-") or user.startswith("-") or parts.path.strip("/"):
        raise DeviceError(f"'{url}' is not the address of a device", wanted)
    if set(query) - {"python", "config"} or any(len(values) != 1 or not values[0] for values in query.values()):
        raise DeviceError(f"'{url}' has options other than python=COMMAND and config=FILE", wanted)
    config = query.get("config", [None])[0]
    resolved = str(Path(config).expanduser().absolute()) if config else None
    return Address(host, user or None, port, query.get("python", ["python3"])[0], resolved)


class Connection:
    """An open connection to a device.

    Attributes:
        cache: absolute path of edgetl's cache folder there.
        checked: commands that start a Python that edgetl can use, each with the modules that it was found to have.

    Raises:
        DeviceError: unreachable, host key unknown or changed, not let in, or ssh is not installed.
    """

    def __init__(self, name: str, address: Address) -> None:
        if shutil.which("ssh") is None:
            raise DeviceError(f"{name} needs ssh, not installed here", "apt-get install openssh-client (on Debian)")
        self.name, self.address = name, address
        self.checked: set[tuple[str, ...]] = set()
        # A socket's path must be shorter than 104 characters, with what ssh adds to it.
        base = tempfile.gettempdir()
        self._folder = Path(tempfile.mkdtemp(prefix="edgetl-ssh-", dir=base if len(base) < 60 else "/tmp"))
        self._owner = os.getpid()
        master = [*self._ssh("-M", "-o", "ControlPersist=no"), command_line(program("greet"))]
        watched = ["sh", "-c", program("connect"), "edgetl", str(self._folder), *master]
        pipe = subprocess.PIPE
        # A file without a name: when ssh has ended, its folder is gone.
        with tempfile.TemporaryFile() as log:
            self._process = subprocess.Popen(watched, stdin=pipe, stdout=pipe, stderr=log, process_group=0)
            try:
                self.cache = self._await_greeting(log)
            except BaseException:
                self.close()
                raise

    def _ssh(self, *options: str) -> list[str]:
        address = self.address
        command = ["ssh", "-T", "-x", "-S", str(self._folder / "s"), "-o", "BatchMode=yes", *options]
        command += ["-o", f"ConnectTimeout={CONNECT_SECONDS}", "-o", "ClearAllForwardings=yes"]
        command += ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"]
        command += ["-F", address.config] if address.config else []
        command += ["-p", str(address.port)] if address.port else []
        command += ["-l", address.user] if address.user else []
        return [*command, "--", address.host]

    def _await_greeting(self, log: IO[bytes]) -> str:
        assert self._process.stdout is not None
        began = time.monotonic()
        with killed_in_time(self._process, _GREETING_SECONDS):
            # A login script may print lines of its own first.
            for raw in self._process.stdout:
                line = raw.decode(errors="replace").rstrip("\r\n")
                if line.startswith(_READY):
                    return line.removeprefix(_READY)
            status = self._process.wait()
        log.seek(0)
        said = log.read().decode(errors="replace")
        waited = time.monotonic() - began
        if status < 0 and not said.strip():
            said = f"no answer within {waited:.0f} s"
        elif status > 128 and status - 128 in set(signal.Signals):  # as a shell tells of a signal; ssh's own is 255
            raise self._killed_here(status - 128)
        raise refusal(self.name, self.address, said)

    @property
    def alive(self) -> bool:
        """Whether commands can still be sent."""
        return self._process.poll() is None

    def run(
        self,
        script: str,
        arguments: Sequence[str] = (),
        *,
        feed: Callable[[IO[bytes]], None] | None = None,
        progress: Progress = silent,
    ) -> Finished:
        """Run a POSIX shell script there, with ``arguments`` as $1, $2, ….

        Args:
            script: its text.
            arguments: taken as they are.
            feed: see :func:`edgetl.devices.process.run_watched`.
            progress: see :func:`edgetl.devices.process.run_watched`.

        Raises:
            DeviceError: the connection was lost.
        """
        command = [*self._ssh("-o", "ControlMaster=no"), command_line(script, arguments)]
        done = run_watched(command, feed=feed, progress=progress)
        if done.status < 0:
            raise self._killed_here(-done.status)
        if done.status == 255:
            raise self._lost(done)
        return done

    def _killed_here(self, number: int) -> DeviceError:
        return DeviceError(
            f"{self.name}: the ssh program on this machine was killed ({signal.Signals(number).name})",
            "look at the memory here (dmesg), then run it again: what has arrived there stays",
        )

    def _lost(self, done: Finished) -> DeviceError:
        error = refusal(self.name, self.address, done.stderr)
        if not error.what.startswith(f"{self.name} cannot be reached"):
            return error
        said = f" ({done.last_line})" if done.stderr.strip() else ""
        return DeviceError(
            f"{self.name}: the connection was lost in the middle{said}", "run it again: what has arrived stays there"
        )

    def close(self) -> None:
        """End the connection. A copy of this object in a forked process leaves it alone."""
        if os.getpid() != self._owner:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        end_group(self._process)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def refusal(name: str, address: Address, log: str) -> DeviceError:
    """What ssh's messages mean, as one error.

    Args:
        name: of the device.
        address: where it should be.
        log: ssh's standard error.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    last = lines[-1] if lines else "ssh said nothing"
    by_hand = f"ssh {address.shown}"
    if "HOST IDENTIFICATION HAS CHANGED" in log:
        return DeviceError(
            f"{name}: the host key of {address.host} is not the one that is known", f"find out why; see {by_hand}"
        )
    if "Host key verification failed" in log or "host key is known" in log:
        return DeviceError(
            f"{name}: the host key of {address.host} is not known yet", f"check and accept it once by hand: {by_hand}"
        )
    if any(words in log for words in FULL_DISK):
        return DeviceError(f"{name} has no space left ({last})", "free space there")
    if "Permission denied (" in log or "Too many authentication failures" in log:
        remedy = f"give it your public key: ssh-copy-id {address.shown}"
        return DeviceError(f"{name} does not let you in ({last})", remedy)
    return DeviceError(f"{name} cannot be reached ({last})", f"check that it is on and that this works: {by_hand}")


_open: dict[tuple[str, Address], Connection] = {}
_opening: dict[tuple[str, Address], threading.Lock] = {}
_guard = threading.Lock()


def connect(name: str, address: Address) -> Connection:
    """The open connection to a device, made if there is none.

    Raises:
        DeviceError: see :class:`Connection`.
    """
    # One lock for each device: one that does not answer must not keep the others waiting.
    with _guard:
        opening = _opening.setdefault((name, address), threading.Lock())
    with opening:
        connection = _open.get((name, address))
        if connection is None or not connection.alive:
            if connection is not None:
                connection.close()
            connection = _open[name, address] = Connection(name, address)
        return connection


def close_connection(name: str, address: Address) -> None:
    """Close the connection to a device, if one is open."""
    connection = _open.pop((name, address), None)
    if connection is not None:
        connection.close()


@atexit.register
def disconnect() -> None:
    """Close every connection."""
    for name, address in tuple(_open):
        close_connection(name, address)
