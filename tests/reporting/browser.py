"""A headless Chromium under its own protocol, through a pipe: real keys go in, files that are saved come out."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from .page import CHROMIUM

PATIENCE = 60.0
_PLACED = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
#: Key → the code of its place on the keyboard, and its number.
_NAMED = {"ArrowRight": 39, "ArrowLeft": 37, "Delete": 46, "Enter": 13, "Escape": 27, "Tab": 9}


class Browser:
    """One page in a browser of its own."""

    def __init__(self, profile: Path, downloads: Path) -> None:
        read_there, self._write = os.pipe()
        self._read, write_there = os.pipe()
        # The protocol wants the numbers 3 and 4.
        far = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (read_there, write_there)]
        command = [
            sys.executable, "-c", _PLACED, *map(str, far),
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, pass_fds=far, stdout=quiet, stderr=quiet)
        for end in (read_there, write_there, *far):
            os.close(end)
        self._held, self._number, self._session = b"", 0, ""
        self.faults: list[str] = []
        target = next(t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.downloads = downloads
        self.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command's answer; what the page complains of meanwhile is kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session and not method.startswith("Browser."):
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.faults.append(json.dumps(answer["params"]))
        raise TimeoutError(method)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._held:
            self._held += os.read(self._read, 1 << 16)
        line, _, self._held = self._held.partition(b"\0")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def open(self, page: Path) -> None:
        """Show a file, and wait until its scripts have run."""
        self.ask("Page.navigate", url=page.as_uri())
        self.until("document.readyState === 'complete' && location.protocol === 'file:'")

    def value(self, expression: str) -> Any:
        """What a script in the page says."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until a script says true."""
        until = time.monotonic() + PATIENCE
        while not self.value(expression):
            assert time.monotonic() < until, expression
            time.sleep(0.05)

    def press(self, *keys: str) -> None:
        """Press keys, one after another, as a keyboard does."""
        for key in keys:
            number = _NAMED.get(key, ord(key.upper()) if len(key) == 1 else 0)
            pressed: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": number}
            text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
            self.ask("Input.dispatchKeyEvent", type="keyDown", **pressed, **text)
            self.ask("Input.dispatchKeyEvent", type="keyUp", **pressed)

    def saved(self, name: str) -> Path:
        """A file that the page saved, whole."""
        file, until = self.downloads / name, time.monotonic() + PATIENCE
        while not file.is_file() or list(self.downloads.glob("*.crdownload")):
            assert time.monotonic() < until, f"{name} was not saved"
            time.sleep(0.05)
        return file
