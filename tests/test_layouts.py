"""Folders as people have them: class folders, or splits that hold class folders, and what else lies there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from edgetl.base.errors import DataError
from edgetl.core.data import SPLITS
from edgetl.core.data.layout import SPLIT_FOLDERS
from edgetl.core.data.walk import SYSTEM_NAMES, walk
from edgetl.inputs import load_dataset
from tests.conftest import ROOT, paint

Cli = Callable[..., subprocess.CompletedProcess[str]]
CLASSES = ("red", "green", "blue")


def sorted_photos(root: Path, sizes: Mapping[str, int], classes: tuple[str, ...] = CLASSES) -> Path:
    """``root/SPLIT/CLASS`` with so many pictures of each class in each split, no two of them alike."""
    for place, (split, size) in enumerate(sizes.items()):
        for hue, name in enumerate(classes):
            for index in range(size):
                paint(root / split / name / f"{index:02d}.png", hue, 1000 * place + index, (12, 10))
    return root


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("names", "means"),
    [
        (("train", "val", "test"), ("train", "val", "certify")),
        (("Training", "Validation", "Testing"), ("train", "val", "certify")),
        (("TRAIN", "valid", "TEST"), ("train", "val", "certify")),
        (("train", "dev"), ("train", "val")),
        (("train", "eval"), ("train", "val")),
        (("train", "test"), ("train", "certify")),
        (("train", "val", "calibration", "search", "certify"), SPLITS),
        (("train",), ("train",)),
    ],
)
def test_folders_that_are_splits(tmp_path: Path, names: tuple[str, ...], means: tuple[str, ...]) -> None:
    sizes = {name: 20 if name.lower().startswith("train") else 3 for name in names}
    dataset = load_dataset(sorted_photos(tmp_path / "data", sizes))
    assert dataset.classes == tuple(sorted(CLASSES))
    for name, split in zip(names[1:], means[1:], strict=True):
        assert {s.path for s in dataset.samples if s.path.startswith(f"{name}/")} == {
            s.path for s in dataset.split(split)
        }
    own = {s.split for s in dataset.samples if s.path.startswith(f"{names[0]}/")}
    assert own == set(SPLITS) - set(means[1:]), "what is missing is taken from train"
    assert all(dataset.classes[s.label] == s.path.split("/")[1] for s in dataset.samples)  # type: ignore[index]
    assert not dataset.skipped


def test_what_is_missing_is_said_with_numbers(tmp_path: Path) -> None:
    dataset = load_dataset(sorted_photos(tmp_path / "data", {"train": 20, "Test": 5}))
    sizes = dataset.sizes()
    assert dataset.notes == (
        f"the data name train and certify; taken from train's 60 images: val {sizes['val']}, "
        f"calibration {sizes['calibration']} and search {sizes['search']}; train keeps {sizes['train']}",
    )
    assert sizes["train"] + sizes["val"] + sizes["calibration"] + sizes["search"] == 60
    assert sizes["certify"] == 15
    whole = load_dataset(sorted_photos(tmp_path / "plain", {".": 20}))
    assert whole.notes == ()


def test_a_class_may_be_missing_outside_train(tmp_path: Path) -> None:
    data = sorted_photos(tmp_path / "data", {"train": 20, "val": 5, "test": 5})
    shutil.rmtree(data / "val" / "red")
    shutil.rmtree(data / "test" / "blue")
    (data / "test" / "blue").mkdir()
    counts = load_dataset(data).counts()
    assert counts["val"] == {"blue": 5, "green": 5, "red": 0}
    assert counts["certify"] == {"blue": 0, "green": 5, "red": 5}
    shutil.rmtree(data / "train" / "green")
    (data / "train" / "green").mkdir()
    assert f"{data / 'train' / 'green'} is empty" in refusal(data)


def test_stray_folders_and_odd_ones_are_asked_about(tmp_path: Path) -> None:
    data = sorted_photos(tmp_path / "data", {"train": 5, "test": 3})
    paint(data / "masks" / "00.png", 0, 99)
    assert "beside them masks: it is not clear what is meant: take masks away" in refusal(data)
    shutil.rmtree(data / "masks")
    paint(data / "test" / "violet" / "0.png", 0, 98)
    assert "holds the folders violet, which" in refusal(data)
    shutil.rmtree(data / "test")
    paint(data / "test" / "0.png", 0, 97)
    assert "test holds no class folder" in refusal(data)
    shutil.rmtree(data / "test")
    sorted_photos(data, {"val": 3, "Valid": 2})
    assert "Valid and val both mean val" in refusal(data)
    shutil.rmtree(data / "train")
    shutil.rmtree(data / "Valid")
    assert "holds the split val and no train" in refusal(data)
    flat = tmp_path / "flat"
    paint(flat / "train" / "0.png", 0, 0)
    paint(flat / "test" / "0.png", 0, 1)
    assert "splits, not classes" in refusal(flat)
    sorted_photos(tmp_path / "outer" / "inner", {".": 2})
    assert f"did you mean {tmp_path / 'outer' / 'inner'}?" in refusal(tmp_path / "outer")


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    data = sorted_photos(tmp_path / "data", {".": 20}, ("bus", "train"))
    paint(data / "train" / "steam" / "0.png", 1, 55, (12, 10))
    dataset = load_dataset(data)
    assert dataset.classes == ("bus", "train")
    assert len(dataset.samples) == 41
    assert {name for name in SPLIT_FOLDERS if name != name.casefold()} == set()


def test_copies_in_two_splits_stay_where_they_are_held_out(tmp_path: Path) -> None:
    data = sorted_photos(tmp_path / "data", {"train": 20, "val": 5, "test": 5})
    shutil.copy(data / "test" / "red" / "00.png", data / "train" / "red" / "again.png")
    shutil.copy(data / "val" / "blue" / "01.png", data / "train" / "blue" / "again.png")
    shutil.copy(data / "val" / "blue" / "02.png", data / "test" / "blue" / "again.png")
    dataset = load_dataset(data)
    assert {(s.path, s.reason) for s in dataset.skipped} == {
        ("train/red/again.png", "a copy of test/red/00.png, which is held out"),
        ("train/blue/again.png", "a copy of val/blue/01.png, which is held out"),
        ("val/blue/02.png", "a copy of test/blue/again.png, which is held out"),
    }
    assert len({s.pixels for s in dataset.samples}) == len(dataset.samples) == 3 * 30


def test_classes_that_differ_by_case_or_blanks_are_named(tmp_path: Path) -> None:
    classes = ("Cat", "cat ", "dog")
    dataset = load_dataset(sorted_photos(tmp_path / "data", {".": 12}, classes))
    assert dataset.classes == classes
    assert dataset.notes == ("the classes 'Cat' and 'cat ' differ by case or blanks alone: is that one class?",)


def test_system_folders_are_ignored_and_counted(photos: Path) -> None:
    before = load_dataset(photos)
    for name in ("@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__MACOSX", ".ipynb_checkpoints"):
        for folder in (photos, photos / "red"):
            (folder / name).mkdir()
            shutil.copy(photos / "red" / "00.png", folder / name / "junk.png")
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._00.png"):
        (photos / "red" / name).write_bytes(b"junk")
    dataset = load_dataset(photos)
    assert dataset.samples == before.samples
    assert dataset.classes == before.classes
    assert not dataset.skipped
    assert dataset.ignored == {
        **{"#recycle": 2, "$RECYCLE.BIN": 2, "@eaDir": 2, "lost+found": 2, "__MACOSX": 2},
        **{"Thumbs.db": 1, "desktop.ini": 1, "hidden": 4},
    }
    assert {name.casefold() for name in SYSTEM_NAMES} == SYSTEM_NAMES


def test_linked_folders_are_followed_once(photos: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (photos / "red").rename(elsewhere)
    (photos / "red").symlink_to(elsewhere)
    (elsewhere / "up").symlink_to(photos)
    (photos / "green" / "round").symlink_to(photos / "green")
    (photos / "green" / "itself").symlink_to("itself")
    dataset = load_dataset(photos)
    assert dataset.classes == ("blue", "green", "red")
    assert len(dataset.samples) == 60
    assert {(s.path, s.reason) for s in dataset.skipped} >= {
        ("red/up", "it links to a folder that is read already"),
        ("green/round", "it links to a folder that is read already"),
    }
    assert "green/itself" in {s.path for s in dataset.skipped}


def test_a_pipe_is_not_waited_for(photos: Path) -> None:
    os.mkfifo(photos / "red" / "pipe.png")
    dataset = load_dataset(photos)
    assert [(s.path, s.reason) for s in dataset.skipped] == [("red/pipe.png", "it is no file")]


def test_folders_that_cannot_be_read_are_named(photos: Path) -> None:
    if os.geteuid() != 0:
        shut = photos / "red" / "shut"
        shut.mkdir(0)
        assert [s.path for s in walk(photos).skipped] == ["red/shut"]
        return
    # Root reads everything: another user looks.
    for folder in (photos, *photos.parents):
        if folder != Path(tempfile.gettempdir()) and folder.is_relative_to(tempfile.gettempdir()):
            folder.chmod(0o755)
    (photos / "red" / "shut").mkdir(0)
    look = "import sys; from pathlib import Path; from edgetl.core.data.walk import walk\n"
    look += "print([(s.path, s.reason) for s in walk(Path(sys.argv[1])).skipped])"
    preparation = "import os; os.setuid(65534)\n"
    code = look.replace("\n", "\n" + preparation, 1)
    done = subprocess.run(
        [sys.executable, "-c", code, str(photos)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[('red/shut', 'it cannot be read (Permission denied)')]"


def test_a_walk_stops_where_it_is_told(photos: Path) -> None:
    assert len(walk(photos).files) == 60
    assert walk(photos, 7).files == tuple(f"blue/{index:02d}.png" for index in range(7))
