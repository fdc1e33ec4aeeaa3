"""What every test may use: real data sets where there are any, a small folder of photographs, the command line."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE

import hypothesis
import numpy as np
import pytest
from PIL import Image

from edgetl.base.errors import DeviceError
from edgetl.devices import Device, create_device, find_device, list_devices
from edgetl.devices.rootfs import check_tools
from tests.warm import HEAVY, READ_LATE

ROOT = Path(__file__).resolve().parents[1]
#: Files that take minutes, the longest first: begun last, one of them would keep one core at work and the other idle.
LONGEST = ("test_readme.py", "test_pipeline.py", "test_mend.py", "test_verify.py", "test_journey.py")

# No test asserts a time: a busy machine is no fault. Examples are drawn from the test itself, the same each time.
hypothesis.settings.register_profile("edgetl", deadline=None, derandomize=True)
hypothesis.settings.load_profile("edgetl")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets, or a skip."""
    folder = os.environ.get("EDGETL_TEST_DATA")
    if not folder:
        pytest.skip("EDGETL_TEST_DATA is not set: it names the folder with imagenet-sample and magnetic-tile")
    return Path(folder)


def paint(path: Path, hue: int, seed: int, size: tuple[int, int] = (48, 40)) -> None:
    """A noisy picture whose colour tells its class."""
    rng = np.random.default_rng([hue, seed])
    base = np.zeros((size[1], size[0], 3))
    base[..., hue % 3] = 150
    picture = np.clip(base + rng.normal(60, 25, base.shape), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of twenty pictures each."""
    folder = tmp_path / "photos"
    for hue, name in enumerate(("red", "green", "blue")):
        for index in range(20):
            paint(folder / name / f"{index:02d}.png", hue, index)
    return folder


@pytest.fixture(scope="session")
def warm() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Run a command in a fork of a process that has imported torch (:mod:`tests.warm`), started when first asked."""
    servers: list[subprocess.Popen[str]] = []

    def run(words: list[str], environment: dict[str, str], folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
        if not servers:
            command = [sys.executable, "-m", "tests.warm"]
            servers.append(subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=ROOT))
        asks, answers = servers[0].stdin, servers[0].stdout
        assert asks is not None
        assert answers is not None
        with tempfile.TemporaryDirectory() as held:
            out, err = Path(held) / "out", Path(held) / "err"
            asked = {
                "arguments": words,
                "environment": environment,
                "folder": str(folder),
                "out": str(out),
                "err": str(err),
            }
            asks.write(json.dumps(asked) + "\n")
            asks.flush()
            status = int(answers.readline())
            return subprocess.CompletedProcess(["edgetl", *words], status, out.read_text(), err.read_text())

    yield run
    for server in servers:
        server.communicate()


@pytest.fixture(scope="session")
def edgetl(
    warm: Callable[..., subprocess.CompletedProcess[str]],
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line as a user does: another process, its exit status and both streams."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        words = [str(word) for word in arguments]
        if words and words[0] in HEAVY and set(environment) <= READ_LATE:
            return warm(words, {**os.environ, **environment})
        return subprocess.run(
            [sys.executable, "-c", "from edgetl.cli import main; main()", *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, **environment},
        )

    return run


@pytest.fixture(scope="session")
def tiny_run(edgetl: Callable[..., subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of timm's smallest EfficientNet on three classes of coloured pictures."""
    folder = tmp_path_factory.mktemp("tiny")
    for hue, name in enumerate(("red", "green", "blue")):
        for index in range(40):
            paint(folder / "photos" / name / f"{index:02d}.png", hue, index)
    options = ("--backbone", "timm/test_efficientnet", "--weights", "none", "--image-size", "32", "--epochs", "3")
    done = edgetl("finetune", folder / "photos", "--out", folder / "run", "--quiet", *options)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="session")
def tiny_bundle(edgetl: Callable[..., subprocess.CompletedProcess[str]], tiny_run: Path) -> Path:
    """That run, in float, for ONNX Runtime on x86-64: verified and timed."""
    out = tiny_run.parent / "out"
    done = edgetl("export", tiny_run, "--target", "x86-generic", "--precision", "fp32", "--out", out, "--quiet")
    assert done.returncode == 0, done.stderr
    return out / "x86-generic"


@pytest.fixture(scope="session")
def of_all_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this session share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if base.name.startswith("popen-") else base


@pytest.fixture(scope="session")
def emulated(of_all_processes: Path) -> Device:
    """An emulated Arm machine, made once; ``EDGETL_TEST_ROOTFS`` names a folder that keeps it for the next time."""
    try:
        check_tools()
    except DeviceError as error:
        pytest.skip(str(error))
    home = Path(os.environ.get("EDGETL_TEST_ROOTFS") or of_all_processes / "edgetl-home")
    home.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        patch.setenv("EDGETL_HOME", str(home))
        if "pi" not in [device.name for device in list_devices()]:
            create_device("pi", "arm64", extras=("tokenizers",))
        return find_device("pi")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, and mark what loads the CUDA driver of the tests: ``make test`` runs it apart from
    torch, in its own process."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    for item in items:
        if "gpu" in getattr(item, "fixturenames", ()):
            item.add_marker("driver")
