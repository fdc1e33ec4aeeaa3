"""Every way a command can end: one line, the right status, and one JSON object where that was asked for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgetl.base.errors import MissingExtraError, OutOfMemoryError
from edgetl.base.extras import missing
from edgetl.base.memory import shortage
from edgetl.cli.endings import Ended, ending
from tests.conftest import paint
from tests.test_architecture import ROOT

Cli = Callable[..., subprocess.CompletedProcess[str]]

#: Interrupts the process halfway through an import, where C++ code is being initialised.
DURING_IMPORT = """
import os, sys
from edgetl.cli import main

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            os.kill(os.getpid(), int(sys.argv[2]))

sys.meta_path.insert(0, Interrupting())
main(sys.argv[3:])
"""


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "ended by SIGTERM")])
@pytest.mark.parametrize("module", ["typer.main", "torch.autograd.function"])
def test_interrupted_during_an_import(tmp_path: Path, number: int, word: str, module: str) -> None:
    out = tmp_path / "run"
    command = ["finetune", "digits", "--out", str(out), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", DURING_IMPORT, module, str(int(number)), *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        # Whoever runs the tests in the background has SIGINT ignored, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    message = f"{word}: the same command resumes"
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr == f"error: {message}\n"
    assert json.loads(done.stdout) == {"error": message, "exit_status": 128 + number}
    assert not out.exists()


def test_interrupted_while_processes_start(tmp_path: Path) -> None:
    """A terminal interrupts every process; those that import torch just then have nothing to say."""
    for hue, name in enumerate(("red", "green")):
        for index in range(20):
            paint(tmp_path / "photos" / name / f"{index}.png", hue, index)
    options = ["--backbone", "timm/test_efficientnet", "--weights", "none", "--image-size", "32", "--devices", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgetl", "finetune", "photos", "--out", "run", "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        # Whoever runs the tests in the background has SIGINT ignored, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("fitting the head"):
            break
    _children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert err == "error: interrupted: the same command resumes\n"
    assert json.loads(out)["exit_status"] == 130
    assert not _children(process.pid, wait=False)


def _children(parent: int, wait: bool = True) -> list[int]:
    """Processes that train below another one, once there are any."""
    while True:
        listed = subprocess.run(["pgrep", "-g", str(parent), "-f", "spawn_main"], capture_output=True, check=False)
        found = [int(number) for number in listed.stdout.split()]
        if found or not wait:
            return found


def test_what_asked_for_the_end_counts_and_not_what_broke_of_it() -> None:
    asked = Ended(signal.SIGINT)
    assert ending(ImportError("numpy.core.multiarray failed to import"), asked)[0] == 130
    assert ending(KeyboardInterrupt())[0] == 130
    assert ending(Ended(signal.SIGTERM))[0] == 143


def caught(work: Callable[[], object]) -> BaseException:
    try:
        work()
    except Exception as error:
        return error
    raise AssertionError("it went well")


def _wrapped() -> None:
    try:
        np.empty(2**60, np.uint8)
    except MemoryError as error:
        raise RuntimeError("cannot load") from error


@pytest.mark.parametrize(
    "work",
    [
        lambda: np.empty(2**60, np.uint8),
        lambda: torch.empty(2**60, dtype=torch.uint8),
        lambda: bytearray(2**62),
        _wrapped,
    ],
    ids=["numpy", "torch", "python", "cause"],
)
def test_too_little_memory_is_no_bug(work: Callable[[], object]) -> None:
    status, message = ending(caught(work))
    assert status == 2
    assert message.startswith("there is not enough memory (")
    assert "a smaller batch" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "words",
    [
        "CUDA out of memory. Tried to allocate 20.00 MiB",
        "std::bad_alloc",
        "bad allocation",
        "Failed to allocate memory for requested buffer of size 800",
        "DataLoader worker (pid 31) is killed by signal: Killed.",
        "process 1 terminated with signal SIGKILL",
        "unable to allocate shared memory(shm) for file </torch_1>: Resource temporarily unavailable (11)",
    ],
)
def test_libraries_say_it_in_words_of_their_own(words: str) -> None:
    elsewhere = f"-- Process 0 failed:\nTraceback\n{'x ' * 300}\n{words}"
    assert isinstance(shortage(RuntimeError(words)), OutOfMemoryError)
    assert isinstance(shortage(RuntimeError(elsewhere)), OutOfMemoryError)


def test_what_is_a_bug_stays_one() -> None:
    for error in (ValueError("shapes differ"), KeyError("memory"), RuntimeError("size mismatch")):
        assert shortage(error) is None
        assert ending(error)[0] == 1
        assert ending(error)[1].startswith("a bug in edgetl: ")


def test_a_package_that_is_missing_names_its_extra() -> None:
    lacking = ModuleNotFoundError("No module named 'torch'", name="torch.nn")
    assert ending(lacking) == (2, "this needs the package torch, which is not installed: pip install 'edgetl[train]'")
    assert isinstance(missing(ImportError("libcudart.so: no such file", name="torch")), MissingExtraError)
    assert missing(ModuleNotFoundError("No module named 'edgetl.x'", name="edgetl.x")) is None


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seed", 2**70), ("--seed", -1), ("--epochs", 2**70), ("--batch-size", 2**64), ("--image-size", 2**70)],
)
def test_numbers_beyond_all_bounds(here: Cli, photos: Path, tmp_path: Path, option: str, value: int) -> None:
    start = ("finetune", photos, "--out", tmp_path / "run", "--backbone", "timm/test_efficientnet", "--weights", "none")
    done = here(*start, option, value)
    assert done.returncode == 2
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert str(value) in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("bench", "--threads", 2**70),
        ("bench", "--threads", 100_000),
        ("bench", "--scenario", "multi-stream", "--streams", 100_000),
        ("deploy", "--device", "local", "--timeout", "1e300"),
    ],
)
def test_more_than_any_device_has(here: Cli, words: tuple[object, ...]) -> None:
    done = here(words[0], ROOT / "tests/golden/bundle", *words[1:])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "give" in done.stderr
