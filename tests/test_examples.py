"""The examples run as they are printed, on a bundle of a tiny network."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

import edgetl
from tests.conftest import ROOT, paint
from tests.serving.conftest import image_bundle


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bundle``, and ``photos`` with seven JPEGs, one of them in a folder below."""
    folder = tmp_path_factory.mktemp("examples")
    image_bundle(folder / "bundle")
    for index in range(7):
        paint(folder / "photos" / ("below" if index == 3 else "") / f"{index}.jpg", index, index)
    return folder


def example(name: str, *arguments: object, given: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, ROOT / "examples" / f"{name}.py", *map(str, arguments)],
        input=given,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )


def test_a_folder(place: Path) -> None:
    done = example("folder", place / "bundle", place / "photos", "--batch", 3)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(done.stdout.decode().splitlines()))
    files = sorted((place / "photos").rglob("*.jpg"))
    model = edgetl.load_bundle(place / "bundle")
    assert [row["path"] for row in rows] == [str(file.relative_to(place / "photos")) for file in files]
    assert [row["label"] for row in rows] == [answer.label for answer in model.predict(files)]


def test_a_camera(place: Path) -> None:
    files = sorted((place / "photos").glob("*.jpg"))
    film = b"".join(file.read_bytes() for file in files)
    model = edgetl.load_bundle(place / "bundle")
    done = example("camera", place / "bundle", "--every", given=film)
    assert done.returncode == 0, done.stderr
    said = [line.split() for line in done.stdout.decode().splitlines()]
    assert [words[:2] for words in said] == [
        [f"{number}:", answer.label] for number, answer in enumerate(model.predict(files), 1)
    ]
    late = example("camera", place / "bundle", given=film).stdout.decode().splitlines()
    assert late[-1] == " ".join(said[-1]), "the newest is looked at, whatever was dropped"
    assert len(late) <= len(said)


@pytest.mark.parametrize("name", ["folder", "camera"])
def test_what_is_no_bundle_is_one_line(name: str, tmp_path: Path) -> None:
    done = example(name, tmp_path, *([tmp_path] if name == "folder" else []), given=b"")
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: ")
    assert done.stderr.count(b"\n") == 1
