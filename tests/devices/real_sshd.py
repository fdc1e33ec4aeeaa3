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
from collections.abc import Callable, Iterator
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
        client: writes an ssh_config with the given key and known_hosts, and returns its path.
    """

    folder: Path
    port: int
    home: Path

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
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None or shutil.which("ssh-keygen") is None:
        pytest.skip("sshd is not installed (Debian: openssh-server)")
    for name in ("host", "user", "stranger", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\n"
        f"HostKey {folder / 'host'}\nAuthorizedKeysFile {folder}/authorized_keys\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nStrictModes no\nUsePAM no\nPidFile none\n"
        f"PermitRootLogin prohibit-password\nSetEnv HOME={home}\n"
    )
    for name, key in (("known_hosts", "host"), ("changed_hosts", "other")):
        public = (folder / f"{key}.pub").read_text()
        (folder / name).write_text(f"[127.0.0.1]:{port} {public}")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        _await_port(port, process, folder / "log")
        yield Sshd(folder, port, home)
    finally:
        process.terminate()
        process.wait()


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        if process.poll() is not None:
            pytest.skip(f"sshd does not start here ({log.read_text().strip()})")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.skip("sshd does not listen within five seconds")
