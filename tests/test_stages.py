"""A finished stage is not done again, a killed one is, and two exports do not meet in one folder."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetl.base.errors import EdgetlError
from edgetl.workflow.stage_cache import stage, versions, workspace

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def counted() -> tuple[list[int], Callable[[Path], None]]:
    done: list[int] = []

    def build(folder: Path) -> None:
        done.append(1)
        (folder / "f").write_text(str(len(done)))

    return done, build


def test_a_finished_stage_is_kept(tmp_path: Path, counted: tuple[list[int], Callable[[Path], None]]) -> None:
    done, build = counted
    with workspace(tmp_path) as work:
        first = stage(work, "onnx", {"seed": 1, "hash": "ab"}, build)
        assert stage(work, "onnx", {"hash": "ab", "seed": 1}, build) == first
        assert len(done) == 1
        others = [
            stage(work, "onnx", {"seed": 2, "hash": "ab"}, build),
            stage(work, "onnx", {"seed": 1, "hash": "ac"}, build),
            stage(work, "onnx", {"seed": 1, "hash": "ab", "batch": None}, build),
            stage(work, "quantized", {"seed": 1, "hash": "ab"}, build),
        ]
    assert len({first, *others}) == 5
    assert len(done) == 5
    with workspace(tmp_path) as work:
        assert stage(work, "onnx", {"seed": 1, "hash": "ab"}, build) == first
    assert (first / "f").read_text() == "1"


def test_a_stage_that_failed_is_done_again(tmp_path: Path, counted: tuple[list[int], Callable[[Path], None]]) -> None:
    _, build = counted

    def fail(folder: Path) -> None:
        build(folder)
        raise RuntimeError("half way")

    with workspace(tmp_path) as work:
        with pytest.raises(RuntimeError, match="half way"):
            stage(work, "onnx", {}, fail)
        assert not list(work.glob("onnx-*"))
        made = stage(work, "onnx", {}, build)
    assert (made / "f").read_text() == "2"


CHILD = """
import sys, time
from pathlib import Path
from edgetl.workflow.stage_cache import stage, workspace
def build(folder):
    (folder / "half").write_text("half")
    print("building", flush=True)
    time.sleep(60)
with workspace(Path(sys.argv[1])) as work:
    stage(work, "onnx", {}, build)
"""


@pytest.fixture
def exporting(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process in the middle of a stage."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, tmp_path], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert child.stdout is not None
    assert child.stdout.readline() == "building\n"
    return child


def kill(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert child.stdout is not None
    child.stdout.close()


def test_a_killed_stage_is_done_again_and_its_leftovers_go(
    tmp_path: Path, exporting: subprocess.Popen[str], counted: tuple[list[int], Callable[[Path], None]]
) -> None:
    kill(exporting)
    done, build = counted
    (tmp_path / ".x86-generic.abc.partial").mkdir()
    (tmp_path / ".x86-generic.abc.partial" / "model.onnx").touch()
    (tmp_path / ".report.html.xyz.partial").touch()
    (tmp_path / "x86-generic").mkdir()
    with workspace(tmp_path) as work:
        assert not list(work.iterdir())
        made = stage(work, "onnx", {}, build)
    assert [p.name for p in made.iterdir()] == ["f"]
    assert len(done) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [".work", "x86-generic"]


def test_two_exports_into_one_folder(tmp_path: Path, exporting: subprocess.Popen[str]) -> None:
    with pytest.raises(EdgetlError, match="another export is writing") as caught, workspace(tmp_path):
        pass
    assert "\n" not in str(caught.value)
    assert list((tmp_path / ".work").glob(".onnx-*")), "the other's unfinished stage is left alone"
    with workspace(tmp_path / "elsewhere"):
        pass
    kill(exporting)
    with workspace(tmp_path):
        pass


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EdgetlError, match="cannot write ") as caught, workspace(tmp_path / "file" / "out"):
        pass
    assert "\n" not in str(caught.value)


def test_a_read_only_folder(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a read-only file system")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"this machine does not let root mount a tmpfs ({made.stderr.strip()})")
    try:
        with pytest.raises(EdgetlError, match="Read-only file system"), workspace(tmp_path / "out"):
            pass
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=False)


def test_versions_are_part_of_a_key() -> None:
    from edgetl import __version__

    found = versions("numpy", "no_such_package")
    assert found["edgetl"] == __version__
    assert found["numpy"]
    assert found["no_such_package"] is None
