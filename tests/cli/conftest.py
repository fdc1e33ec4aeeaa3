"""The command line without a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from edgetl import cli


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line in this process: most of what another one does before it refuses is to import torch."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        words = [str(word) for word in arguments]
        status = cli.run(words)
        return subprocess.CompletedProcess(words, status, *capfd.readouterr())

    return run
