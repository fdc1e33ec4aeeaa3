"""``edgetl serve`` in a process of its own, and asking it."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Served:
    """A server that runs, and what it said."""

    process: subprocess.Popen[str]
    host: str
    port: int
    models: dict[str, str]
    errors: Path

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers in lower case, body."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {}, encode_chunked=body is not None and iterates(body))
            found = connection.getresponse()
            return found.status, {name.lower(): value for name, value in found.getheaders()}, found.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """The value that a request is answered with, whatever its status."""
        return json.loads(self.ask(method, path, body, headers)[2])


def iterates(body: Any) -> bool:
    return not isinstance(body, bytes | str)


@contextmanager
def serving(*arguments: object) -> Iterator[Served]:
    """``edgetl serve ARGUMENTS`` on a free port; ended by SIGTERM, if it still runs."""
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "stderr"
        command = [sys.executable, "-m", "edgetl", "serve", *map(str, arguments), "--port", "0", "--json"]
        with errors.open("w") as stream:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=stream, text=True, cwd=ROOT, env={**os.environ}
            )
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith('{"host"'), line + errors.read_text()
            told = json.loads(line)
            yield Served(process, told["host"], told["port"], told["models"], errors)
        finally:
            process.terminate()
            process.communicate(timeout=60)
