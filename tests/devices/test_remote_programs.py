"""Programs for a device's shell, started through whatever shell answers there."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgetl.devices.remote import command_line, program

SHELLS = ("sh", "dash", "bash", "zsh", "tcsh", "fish")
ODD = ["plain", "two words", "", "don't", '"', "$HOME `id` \\n %s", "a\nb", "ö *?!", "-n"]


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    found = shutil.which(request.param)
    if found is None:
        pytest.skip(f"{request.param} is not installed")
    return found


def test_arguments_and_line_breaks_arrive_as_they_are(shell: str) -> None:
    script = "# a comment isn't code\nprintf '%s\\0' \"$@\"\ncat\nexit 3\n"
    line = command_line(script, ODD)
    assert "\n" not in line
    done = subprocess.run([shell, "-c", line], input=b"from outside", capture_output=True, check=False)
    assert done.returncode == 3, done.stderr
    assert done.stdout == b"".join(word.encode() + b"\0" for word in ODD) + b"from outside"


def test_a_greeting_names_the_cache_and_sweeps_it(shell: str, tmp_path: Path) -> None:
    calls = tmp_path / ".cache/edgetl/calls"
    (calls / "999999999.gone").mkdir(parents=True)
    (calls / f"{os.getpid()}.here").mkdir()
    environment = {**os.environ, "HOME": str(tmp_path)}
    line = command_line(program("greet"))
    done = subprocess.run([shell, "-c", line], input=b"", capture_output=True, check=False, env=environment)
    assert done.stdout.decode() == f"edgetl-ready {tmp_path}/.cache/edgetl\n"
    assert [call.name for call in calls.iterdir()] == [f"{os.getpid()}.here"]
