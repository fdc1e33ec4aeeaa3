"""Data as people have it, through the command line: read, trained, read again, exported."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from tests.conftest import paint

Cli = Callable[..., subprocess.CompletedProcess[str]]
TINY = ("--backbone", "timm/test_efficientnet", "--weights", "none", "--image-size", "32", "--quiet")
PROBE = (*TINY, "--strategy", "linear-probe")


def written(path: Path, header: str, rows: Iterable[Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header.split(","), *rows])
    return path


def trained(here: Cli, data: Path, out: Path) -> dict[str, object]:
    done = here("finetune", data, "--out", out, "--json", *PROBE)
    assert done.returncode == 0, done.stderr
    record: dict[str, object] = json.loads(done.stdout)
    return record


def test_splits_are_said_and_shown(here: Cli, tmp_path: Path) -> None:
    for split, size, first in (("Training", 20, 0), ("Testing", 6, 50)):
        for hue, name in enumerate(("red", "green")):
            for index in range(size):
                paint(tmp_path / "data" / split / name / f"{index}.png", hue, first + index, (12, 10))
    (tmp_path / "data" / "Thumbs.db").write_bytes(b"junk")
    done = here("finetune", tmp_path / "data", "--out", tmp_path / "run", "--json", *PROBE)
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert sum(shown["splits"]["certify"].values()) == 12
    assert shown["ignored"] == {"Thumbs.db": 1}
    assert "taken from train's 40 images: val 4, calibration 4 and search 4; train keeps 28" in done.stderr
    assert "ignored Thumbs.db (1)" in done.stderr
    (tmp_path / "data" / "masks").mkdir()
    paint(tmp_path / "data" / "masks" / "0.png", 0, 99)
    done = here("finetune", tmp_path / "data", "--out", tmp_path / "other", *PROBE)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "beside them masks" in line
    assert not (tmp_path / "other").exists()


def odd(photos: Path) -> Path:
    """A folder with all that a second look must find as the first did."""
    for name in (".ipynb_checkpoints", "@eaDir"):
        (photos / "red" / name).mkdir()
        shutil.copy(photos / "red" / "00.png", photos / "red" / name / "00-checkpoint.png")
    for name in (b"caf\xe9.png", b"two\nlines.png"):
        shutil.copy(photos / "red" / "00.png", os.fsencode(photos / "red") + b"/" + name)
    (photos / "green" / "more").symlink_to(photos / "blue")
    (photos / "blue" / "gone.png").symlink_to("nowhere.png")
    (photos / "README").write_text("mine")
    return photos


@pytest.mark.parametrize("form", ["folder", "part of a tree", "absolute"])
def test_the_same_command_again_is_the_same(here: Cli, photos: Path, tmp_path: Path, form: str) -> None:
    data = odd(photos)
    if form != "folder":
        files = [file for file in sorted(photos.glob("*/[01]?.png")) if int(file.stem) < 15]
        named = [(file if form == "absolute" else file.relative_to(photos), file.parent.name) for file in files]
        data = written(photos / "list.csv", "path,label", named)
    first = trained(here, data, tmp_path / "run")
    assert trained(here, data, tmp_path / "run") == first
    paint(photos / "red" / "new.png", 0, 77)
    again = here("finetune", data, "--out", tmp_path / "run", *PROBE)
    assert again.returncode == (2 if form == "folder" else 0), again.stderr
    assert ("red/new.png is new since the run began" in again.stderr) == (form == "folder")


def test_absolute_paths_train_export_and_move(here: Cli, photos: Path, tmp_path: Path) -> None:
    rows = [(file, file.parent.name) for file in sorted(photos.glob("*/*.png"))]
    trained(here, written(tmp_path / "lists.csv", "path,label", rows), tmp_path / "run")
    target = ("--target", "x86-generic", "--precision", "fp32", "--no-bench", "--quiet", "--json")
    done = here("export", tmp_path / "run", *target, "--out", tmp_path / "out")
    assert done.returncode in (0, 3), done.stderr
    before = json.loads(done.stdout)["bundles"][0]["certificate"]
    (tmp_path / "elsewhere").mkdir()
    for index, file in enumerate(sorted(photos.glob("*/*.png"))):
        shutil.move(file, tmp_path / "elsewhere" / f"{index}.png")
    done = here("export", tmp_path / "run", *target, "--out", tmp_path / "again")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert "60 of 60 samples of" in error
    assert "say where they are now: --data FOLDER" in error
    done = here("export", tmp_path / "run", *target, "--out", tmp_path / "again", "--data", tmp_path / "elsewhere")
    assert done.returncode in (0, 3), done.stderr
    after = json.loads(done.stdout)["bundles"][0]["certificate"]
    assert {key: after[key] for key in ("n", "reference_accuracy", "deployed_accuracy", "flips")} == {
        key: before[key] for key in ("n", "reference_accuracy", "deployed_accuracy", "flips")
    }
    done = here("export", tmp_path / "run", *target, "--out", tmp_path / "gone", "--data", photos)
    assert done.returncode == 2
    assert "60 of 60 samples are missing" in json.loads(done.stdout)["error"]


def test_bundles_inside_the_data_are_refused(here: Cli, photos: Path, tmp_path: Path) -> None:
    trained(here, photos, tmp_path / "run")
    done = here("export", tmp_path / "run", "--target", "x86-generic", "--out", photos / "out", "--quiet")
    assert done.returncode == 2
    assert "lies inside the data" in done.stderr
    assert not (photos / "out").exists()
