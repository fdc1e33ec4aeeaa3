"""What is printed arrives in any locale, whatever stands in it, and wherever the streams lead or do not lead."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_architecture import ROOT

Cli = Callable[..., subprocess.CompletedProcess[str]]
#: What a terminal may be set to that has neither minus signs nor arrows.
NARROW = {
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "latin-1": {"PYTHONIOENCODING": "latin-1"},
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "strict": {"PYTHONIOENCODING": "ascii:strict"},
}
#: rich's markup, blanks, and letters of two scripts.
NAME = "[bold]x [/red] grün 青"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with classes and a folder of such a name."""
    return Path(shutil.copytree(ROOT / "tests/golden/bundle", tmp_path_factory.mktemp("golden") / NAME))


def printed(*words: object, redirect: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command line behind a shell's redirections."""
    start = ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-m", "edgetl", *map(str, words)]
    return subprocess.run(start, capture_output=True, check=False, cwd=ROOT, env={**os.environ, **environment})


@pytest.mark.parametrize("locale", ["C", "latin-1"])
def test_a_certificate_without_the_characters(bundle: Path, locale: str) -> None:
    done = printed("verify", bundle, **NARROW[locale])
    assert (done.returncode, done.stderr) == (4, b"")
    text = done.stdout.decode("latin-1" if locale == "latin-1" else "ascii")
    assert re.search(r"-\d+\.\d\d", text), "a minus sign stays one"
    assert "\\u2212" not in text


@pytest.mark.parametrize("locale", NARROW)
def test_an_error_without_the_characters(locale: str) -> None:
    done = printed("verify", f"nowhere/{NAME}—−", "--json", **NARROW[locale])
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: nowhere/[bold]x [/red] gr")
    assert len(done.stderr.splitlines()) == 1
    assert json.loads(done.stdout)["exit_status"] == 2


def test_letters_that_are_lacking_are_told_apart() -> None:
    done = printed("verify", "nowhere/ü–é", PYTHONIOENCODING="ascii")
    assert done.stderr.startswith(rb"error: nowhere/\xfc-\xe9 is not a bundle")


@pytest.mark.parametrize("word", ["--help", "tasks", "targets"])
def test_lists_and_help_in_ascii(word: str) -> None:
    done = printed(word, **NARROW["C"])
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode("ascii")


PROGRESS = r"""
from rich.console import Console
from edgetl.cli.streams import prepare
from edgetl.reporting.console import console_progress

prepare()
for console in (Console(stderr=True, force_terminal=True, force_interactive=True), Console(stderr=True)):
    with console_progress(console) as progress:
        for done in range(3):
            progress("[red]gr\u00fcn \u2192 \u9752", done, 2, "\u22121 \u2026")
"""


@pytest.mark.parametrize("locale", NARROW)
def test_progress_without_the_characters(locale: str) -> None:
    environment = {**os.environ, **NARROW[locale], "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRESS], capture_output=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"[red]gr") >= 2
    assert b"-1 ..." in done.stderr


@pytest.mark.parametrize(
    ("redirect", "words", "status", "said"),
    [
        ("| head -1", ["targets"], 0, b""),
        (">&-", ["targets"], 0, b""),
        ("2>&-", ["targets"], 0, b""),
        ("<&- >&- 2>&-", ["targets"], 0, b""),
        (">&- 2>&-", ["verify", "nowhere"], 2, b""),
        ("2>/dev/full", ["verify", "nowhere"], 2, b""),
        (">/dev/full", ["--help"], 2, b"error: cannot write to standard output (No space left on device)"),
        (">/dev/full", ["--version"], 2, b"error: cannot write to standard output (No space left on device)"),
        (">/dev/full", ["targets"], 2, b"error: cannot write to standard output (No space left on device)"),
        (">/dev/full", ["targets", "--json"], 2, b"error: cannot write to standard output (No space left on device)"),
        (">/dev/full", ["verify", "nowhere", "--json"], 2, b"error: nowhere is not a bundle"),
    ],
)
def test_streams_that_are_closed_or_full(redirect: str, words: list[str], status: int, said: bytes) -> None:
    if "full" in redirect and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = printed(*words, redirect=redirect)
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == bool(said), done.stderr
    assert done.stderr.startswith(said)


def test_a_reader_that_leaves_does_not_change_the_exit_status(bundle: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "edgetl", "verify", str(bundle)],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        cwd=ROOT,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (4, b"")


def test_markup_in_a_path_is_printed_as_it_is(here: Cli, bundle: Path) -> None:
    checked = here("verify", bundle, "--check")
    assert f"{bundle}: the certificate is this bundle's" in checked.stdout
    assert NAME in here("verify", bundle / "nowhere").stderr
    assert json.loads(here("verify", bundle / "nowhere", "--json").stdout)["error"].startswith(str(bundle))
    assert NAME in here("deploy", bundle, "--device", NAME).stderr
