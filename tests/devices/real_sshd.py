"""An sshd on this machine, made on the spot."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

#: What a progress callback was told, and the callback.
Heard = tuple[list[tuple[str, int, int, str]], Callable[..., None]]


@dataclass(frozen=True)
class Sshd:
    """A running sshd on this machine.

    Attributes:
        folder: holds its keys and its configuration.
        port: on 127.0.0.1.
        home: ``$HOME`` of whoever logs in.
        pid: of the daemon.
        client: writes an ssh_config with the given key and known_hosts, and returns its path.
    """

    folder: Path
    port: int
    home: Path
    pid: int

    def client(self, name: str, *, key: str = "user", known: str = "known_hosts") -> Path:
        """An OpenSSH client configuration."""
        file = self.folder / f"{name}.config"
        file.write_text(
            f"Host *\n IdentityFile {self.folder / key}\n IdentitiesOnly yes\n IdentityAgent none\n"
            f" UserKnownHostsFile {self.folder / known}\n GlobalKnownHostsFile /dev/null\n"
        )
        return file

    def url(self, config: Path, python: str | None = sys.executable) -> str:
        """The device's address."""
        chosen = f"&python={python}" if python else ""
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}?config={config}{chosen}"


@contextlib.contextmanager
def running_sshd(folder: Path, home: Path) -> Iterator[Sshd]:
    """A real sshd on a free port of 127.0.0.1, or a skip with its reason."""
    with running_sshds(folder, [home]) as (one,):
        yield one


@contextlib.contextmanager
def running_sshds(folder: Path, homes: Sequence[Path]) -> Iterator[list[Sshd]]:
    """A real sshd that listens on one free port of 127.0.0.1 for each home, or a skip with its reason."""
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None or shutil.which("ssh-keygen") is None:
        pytest.skip("sshd is not installed (Debian: openssh-server)")
    for name in ("host", "user", "stranger", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    ports = free_ports(len(homes))
    (folder / "sshd_config").write_text(
        "".join(f"Port {port}\n" for port in ports) + f"ListenAddress 127.0.0.1\nMaxStartups 200\n"
        f"HostKey {folder / 'host'}\nAuthorizedKeysFile {folder}/authorized_keys\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nStrictModes no\nUsePAM no\nPidFile none\n"
        f"PermitRootLogin prohibit-password\n"
        + "".join(f"Match LocalPort {port}\n SetEnv HOME={home}\n" for port, home in zip(ports, homes, strict=True))
    )
    for name, key in (("known_hosts", "host"), ("changed_hosts", "other")):
        public = (folder / f"{key}.pub").read_text()
        (folder / name).write_text("".join(f"[127.0.0.1]:{port} {public}" for port in ports))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        _await_port(ports[-1], process, folder / "log")
        yield [Sshd(folder, port, home, process.pid) for port, home in zip(ports, homes, strict=True)]
    finally:
        process.terminate()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 on which nobody listens."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here ({log.read_text().strip()})")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.skip("sshd does not listen within five seconds")


def children(pid: int) -> list[int]:
    """The processes that ``pid`` started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in parentheses may hold spaces.
            if int(stat.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def running_in(home: Path) -> list[str]:
    """The command lines of processes whose ``$HOME`` this is: all that was started by way of one sshd."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"HOME={home}".encode() in environment.read_bytes().split(b"\0"):
                command = (environment.parent / "cmdline").read_bytes()
                found.append(command.replace(b"\0", b" ").decode(errors="replace").strip())
    return found


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until it holds, or give up: the test asserts it."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)


@contextlib.contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of ``size`` bytes mounted on a folder, or a skip with its reason."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here (root and CAP_SYS_ADMIN are needed)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port of 127.0.0.1 that accepts connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield listening.getsockname()[1]


def hanging_python(folder: Path) -> tuple[Path, Path]:
    """A Python whose ONNX Runtime hangs on import, and the file in which it leaves its process id when it does."""
    (folder / "onnxruntime").mkdir(parents=True)
    mark = folder / "hangs"
    (folder / "onnxruntime/__init__.py").write_text(
        f"import os, pathlib, time\nnew = pathlib.Path({str(mark)!r} + '.new')\n"
        f"new.write_text(str(os.getpid()))\nnew.rename({str(mark)!r})\ntime.sleep(600)\n"
    )
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}:$PYTHONPATH" exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python, mark
