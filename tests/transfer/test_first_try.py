"""A first try that fails blocks nothing: what is wrong is known before anything is written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl import cli
from edgetl.base.errors import DataError, EdgetlError
from edgetl.base.lock import exclusive
from edgetl.base.storage import write_json
from edgetl.core.run import SPLITS_FILE, load_run, read_splits
from edgetl.transfer.backbones import find
from edgetl.transfer.definitions import preprocess_for
from edgetl.transfer.finetune import finetune
from edgetl.transfer.fitting import refusal
from edgetl.transfer.weights import WeightsSource

from .conftest import TINY

PROBE: dict[str, Any] = {**TINY, "strategy": "linear-probe"}
COMMAND = ("--backbone", "timm/test_efficientnet", "--weights", "none", "--image-size", "32", "--quiet")


ROWS: dict[str, Any] = {"backbone": "mlp", "epochs": 1, "workers": 0, "accelerator": "cpu"}


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eighty arrays in one file, which a reader writes below the run's folder."""
    file = tmp_path_factory.mktemp("rows") / "a.npz"
    np.savez(file, x=np.random.default_rng(0).normal(size=(80, 5)), y=np.arange(80) % 2)
    return file


@pytest.fixture
def little_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes, or a skip."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"this machine does not let root mount a tmpfs ({made.stderr.strip()})")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def refused(data: str | Path, out: Path, **options: Any) -> str:
    with pytest.raises(EdgetlError) as caught:
        finetune(data, out, **{**PROBE, **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_size_that_the_backbone_cannot_take(tmp_path: Path, few_digits: Path) -> None:
    for backbone, reason, sizes in (
        ("timm/test_vit", "divisible by patch size", (16, 32)),
        ("timm/test_convnext", "Kernel size", (32,)),
    ):
        text = refused(few_digits, tmp_path / "a" / "run", backbone=backbone, image_size=20)
        assert f"'{backbone}' cannot take images of 20x20 pixels" in text
        assert reason in text
        assert text.endswith(f": give --image-size {' or '.join(map(str, sizes))}")
        for size in sizes:
            assert refusal(find(backbone), WeightsSource("none"), preprocess_for(backbone, size)) is None
    assert not (tmp_path / "a").exists()


def test_weights_that_do_not_fit(tmp_path: Path, few_digits: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"no weights")
    assert "cannot read the weights" in refused(few_digits, tmp_path / "run", weights=tmp_path / "w.pth")
    assert not (tmp_path / "run").exists()


def test_data_that_cannot_be_used_leave_a_finished_run_alone(tmp_path: Path, few_digits: Path) -> None:
    run = finetune(few_digits, tmp_path / "run", **PROBE)
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*")}
    (tmp_path / "few" / "a").mkdir(parents=True)
    (tmp_path / "few" / "b").mkdir()
    assert "is empty" in refused(tmp_path / "few", run.path, fresh=True)
    refused(few_digits, run.path, fresh=True, backbone="timm/test_vit", image_size=20)
    assert {p: p.stat().st_mtime_ns for p in run.path.rglob("*")} == before
    assert load_run(run.path).digest == run.digest


def test_a_full_disk_is_known_at_once(little_disk: Path, few_digits: Path) -> None:
    text = refused(few_digits, little_disk / "run", strategy="fine-tune")
    assert "MB are free" in text
    assert "training takes about" in text
    assert not list(little_disk.iterdir())
    (little_disk / "filler").write_bytes(bytes(2 << 20))
    assert "No space left" in refused(few_digits, little_disk / "run")
    assert [p.name for p in little_disk.iterdir()] == ["filler"]


def test_a_run_inside_the_data(tmp_path: Path, few_digits: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(few_digits, data)
    for out in (data, data / "run", data / "0" / "run", tmp_path / "other" / ".." / "data" / "run"):
        (tmp_path / "other").mkdir(exist_ok=True)
        assert "lies inside the data" in refused(data, out)
    (tmp_path / "link").symlink_to(data)
    assert "lies inside the data" in refused(data, tmp_path / "link" / "run")
    assert sorted(p.name for p in data.iterdir()) == ["0", "1", "2", "3"]


class UnexpectedError(Exception):
    """What no one expects."""


def interrupting(calls: int, error: type[BaseException]) -> Any:
    left = [calls]

    def progress(task: str, done: int, total: int, detail: str = "") -> None:
        left[0] -= 1
        if left[0] < 0:
            raise error

    return progress


@pytest.mark.parametrize("kind", ["folder", "rows"])
def test_whatever_fails_at_first_other_settings_find_no_trace(
    tmp_path: Path, few_digits: Path, rows: Path, kind: str
) -> None:
    source, options = (few_digits, PROBE) if kind == "folder" else (rows, ROWS)
    for calls in (0, 1, 50, 82, 100, 163):
        try:
            finetune(source, tmp_path / "run", **options, progress=interrupting(calls, UnexpectedError))
        except UnexpectedError:
            assert not (tmp_path / "run").exists(), calls
    assert finetune(source, tmp_path / "run", **{**options, "seed": 7}, fresh=True).settings["seed"] == 7


def test_after_a_divergence_other_data_are_read(tmp_path: Path, few_digits: Path, rows: Path) -> None:
    assert "learning rate" in refused(few_digits, tmp_path / "run", strategy="fine-tune", learning_rate=1e30)
    assert not (tmp_path / "run").exists()
    assert finetune(rows, tmp_path / "run", **ROWS).classes == ("0", "1")


def test_interrupted_while_reading_other_settings_find_no_trace(tmp_path: Path, few_digits: Path) -> None:
    for calls in (0, 1, 60):
        with pytest.raises(KeyboardInterrupt):
            finetune(few_digits, tmp_path / "run", **PROBE, progress=interrupting(calls, KeyboardInterrupt))
        assert not (tmp_path / "run").exists()
    assert finetune(few_digits, tmp_path / "run", **PROBE, seed=5).settings["seed"] == 5


HOLD = """
import sys
from pathlib import Path
from edgetl.base.lock import exclusive
with exclusive(Path(sys.argv[1]), "training"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_of_two_trainings_into_one_folder_the_second_is_refused(
    tmp_path: Path, few_digits: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    begun, go = threading.Event(), threading.Event()

    def waiting(task: str, done: int, total: int, detail: str = "") -> None:
        begun.set()
        assert go.wait(60)

    first = threading.Thread(target=finetune, args=(few_digits, out), kwargs={**PROBE, "progress": waiting})
    first.start()
    assert begun.wait(60)
    capfd.readouterr()
    try:
        assert cli.run(["finetune", str(few_digits), "--out", str(out), *COMMAND]) == 2
        shown = capfd.readouterr()
        assert shown.out == ""
        assert shown.err.splitlines() == [
            f"error: another training is writing to {out}: wait for it, or choose another --out"
        ]
    finally:
        go.set()
        first.join()
    assert load_run(out).metrics.epochs_run == 0


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    out = tmp_path / "new" / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(EdgetlError, match="another training"), exclusive(out, "training"):
        pass
    holder.kill()
    holder.communicate()
    with exclusive(out, "training"):
        (out / "file").touch()
    assert out.is_dir()
    with pytest.raises(DataError), exclusive(tmp_path / "x" / "y", "training"):
        raise DataError("no")
    assert not (tmp_path / "x").exists()


def test_what_a_finder_leaves_in_a_run_is_no_matter(tmp_path: Path, rows: Path) -> None:
    run = finetune(rows, tmp_path / "run", **ROWS)
    (run.path / ".DS_Store").write_bytes(b"junk")
    assert finetune(rows, tmp_path / "run", **ROWS).digest == run.digest
    shutil.rmtree(run.path / "samples")
    assert finetune(rows, tmp_path / "run", **ROWS).digest == run.digest
    assert (run.path / "samples").is_dir(), "what a reader wrote, it writes again"


def test_a_moved_run_keeps_its_own_samples(tmp_path: Path, rows: Path) -> None:
    run = finetune(rows, tmp_path / "first" / "run", **ROWS)
    (tmp_path / "first").rename(tmp_path / "second")
    moved = load_run(tmp_path / "second" / "run")
    assert moved.digest == run.digest
    assert moved.dataset.root == tmp_path / "second" / "run" / "samples"
    assert all(file.is_file() for file in moved.dataset.paths("certify"))
    # Older runs wrote down where their samples were.
    write_json(moved.path / SPLITS_FILE, run.dataset.to_json())
    assert json.loads((moved.path / SPLITS_FILE).read_text())["root"] == str(tmp_path / "first" / "run" / "samples")
    assert read_splits(moved.path) == moved.dataset
