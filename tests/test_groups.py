"""What belongs together stays together: groups from columns, folders, names, times and looks, in splits and in runs."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from edgetl.base.errors import DataError
from edgetl.core.data import SHARES, SPLITS, Dataset, Sample, assign_splits
from edgetl.core.data.splits import assign_unlearned
from edgetl.inputs import load_dataset
from edgetl.inputs.look import look, taken
from edgetl.workflow.portable import for_certifying

DATE = 0x9003


def scene(seed: int) -> Image.Image:
    """A picture of soft random patches."""
    patches = np.random.default_rng(seed).integers(0, 200, (12, 12, 3), np.uint8)
    return Image.fromarray(patches).resize((96, 96), Image.Resampling.BICUBIC)


def bursts(root: Path, scenes: int = 24, frames: int = 4) -> Path:
    """Two classes of scenes, a folder each, of frames that differ in brightness and compression."""
    for number in range(scenes):
        folder = root / f"class-{number % 2}" / f"scene-{number:02d}"
        folder.mkdir(parents=True)
        for frame in range(frames):
            picture = ImageEnhance.Brightness(scene(number)).enhance(1 + 0.04 * frame)
            picture.save(folder / f"cam-{frame}.jpg", quality=90 - 5 * frame)
    return root


def made(groups: list[tuple[int, int]], alone: int = 0) -> list[Sample]:
    """Samples of groups, each of a class and a size, and others by themselves."""
    found = [
        Sample(
            f"g{g}/{i}.png",
            label,
            "",
            hashlib.sha256(f"{g}/{i}".encode()).hexdigest(),
            group=f"g{g}" if size > 1 else "",
        )
        for g, (label, size) in enumerate(groups)
        for i in range(size)
    ]
    return found + [Sample(f"s{i}.png", i % 2, "", hashlib.sha256(str(i).encode()).hexdigest()) for i in range(alone)]


def splits_of(samples: list[Sample] | tuple[Sample, ...]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        found[sample.unit].add(sample.split)
    return found


# --- splits


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), min_size=5, max_size=60), st.integers(0, 5))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_no_group_straddles_splits(groups: list[tuple[int, int]], seed: int) -> None:
    samples = made(groups, alone=10)
    divided = assign_splits(samples, seed)
    assert all(len(found) == 1 for found in splits_of(divided).values())
    assert assign_splits(samples[::-1], seed) == divided
    unlearned = assign_unlearned(samples, seed)
    assert all(len(found) == 1 for found in splits_of(unlearned).values())


def test_groups_keep_the_shares_of_samples_and_classes() -> None:
    rng = np.random.default_rng(0)
    groups = [(int(rng.integers(3)), int(rng.integers(1, 9))) for _ in range(400)]
    divided = assign_splits(made(groups), 0)
    for label in range(3):
        counts = Counter(s.split for s in divided if s.label == label)
        total = sum(counts.values())
        assert all(abs(counts[name] / total - SHARES[name]) < 0.03 for name in SPLITS)


@pytest.mark.parametrize("kind", ["classes", "number"])
def test_groups_of_other_labels_stay_together(kind: str) -> None:
    labels = {"classes": lambda i: (i % 3, 3 + i % 2), "number": lambda i: float(i % 17)}
    samples = [Sample(f"{i}.png", labels[kind](i), "", f"{i:064d}", group=f"g{i // 5}") for i in range(300)]
    divided = assign_splits(samples, 1, kind=kind)
    assert all(len(found) == 1 for found in splits_of(divided).values())
    assert {s.split for s in divided} == set(SPLITS)


def test_a_group_in_two_given_splits_is_refused() -> None:
    samples = [Sample(f"{i}.png", i % 2, "", f"{i:064d}", "train" if i else "certify", "one") for i in range(4)]
    with pytest.raises(DataError, match="belong together: keep each group in one split"):
        assign_splits(samples, 0)


# --- where groups come from


def test_a_column_names_groups(tmp_path: Path) -> None:
    root = bursts(tmp_path / "photos")
    with (tmp_path / "photos.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "group"))
        for path in sorted(root.rglob("*.jpg")):
            rows.writerow((path.relative_to(tmp_path).as_posix(), path.parts[-3], path.parts[-2]))
    dataset = load_dataset(tmp_path / "photos.csv")
    assert {s.group for s in dataset.samples} == {f"scene-{n:02d}" for n in range(24)}
    assert all(len(found) == 1 for found in splits_of(dataset.samples).values())
    assert any("96 images in 24 groups, the largest of 4" in note for note in dataset.notes)


@pytest.mark.parametrize("rule", ["parent", "duplicates", r"scene-(\d+)", "exif-time"])
def test_rules_find_the_scenes(tmp_path: Path, rule: str) -> None:
    root = bursts(tmp_path / "photos")
    if rule == "exif-time":
        for number, folder in enumerate(sorted(root.glob("*/*"))):
            for frame, path in enumerate(sorted(folder.iterdir())):
                picture = Image.open(path)
                exif = picture.getexif()
                exif.get_ifd(0x8769)[DATE] = f"2026:05:01 10:{number:02d}:{2 * frame:02d}"
                picture.save(path, exif=exif, quality=90)
    dataset = load_dataset(root, group_by=rule)
    groups = defaultdict(set)
    for sample in dataset.samples:
        groups[sample.group].add(Path(sample.path).parent.name)
    assert all(len(scenes) == 1 for scenes in groups.values())
    assert len(groups) == 24
    assert all(len(found) == 1 for found in splits_of(dataset.samples).values())


def test_two_rules_join_their_groups(tmp_path: Path) -> None:
    root = bursts(tmp_path / "photos", scenes=20)
    with (tmp_path / "photos.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "group"))
        for path in sorted(root.rglob("*.jpg")):
            number = int(path.parts[-2].removeprefix("scene-"))
            rows.writerow((path.relative_to(tmp_path).as_posix(), path.parts[-3], f"day-{number // 2}"))
    dataset = load_dataset(tmp_path / "photos.csv", group_by="parent")
    assert len({s.group for s in dataset.samples}) == 10


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("[", "is no regular expression"),
        ("nowhere", "is found in no path"),
        ("class", "puts 96 of 96 samples into one group"),
        ("exif-time", "no picture says when it was taken"),
    ],
)
def test_a_rule_that_groups_nothing_or_everything_is_refused(tmp_path: Path, rule: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(bursts(tmp_path / "photos"), group_by=rule)


def test_texts_do_not_look_alike(tmp_path: Path) -> None:
    table = tmp_path / "texts.csv"
    table.write_text("text,label\n" + "".join(f"words {i},{'ab'[i % 2]}\n" for i in range(40)))
    with pytest.raises(DataError, match="duplicates is of images"):
        load_dataset(table, kind="text", group_by="duplicates", into=tmp_path / "own")


def test_copies_look_alike_and_other_pictures_do_not(tmp_path: Path) -> None:
    for number in range(12):
        scene(number).save(tmp_path / f"{number}.png")
        scene(number).resize((60, 60)).save(tmp_path / f"{number}-small.jpg", quality=60)
    own = [look(tmp_path / f"{n}.png") for n in range(12)]
    copies = [look(tmp_path / f"{n}-small.jpg") for n in range(12)]
    distances = np.array([[int(np.sum(a != b)) for b in copies] for a in own])
    assert np.diag(distances).max() <= 40
    assert distances[~np.eye(12, dtype=bool)].min() > 40


def test_a_picture_says_when_it_was_taken(tmp_path: Path) -> None:
    picture, exif = scene(0), Image.Exif()
    exif[0x0110] = "Nameless"
    exif.get_ifd(0x8769).update({DATE: "2026:05:01 10:00:01", 0x9291: "25"})
    picture.save(tmp_path / "a.jpg", exif=exif)
    picture.save(tmp_path / "b.jpg")
    found = taken(tmp_path / "a.jpg")
    assert found is not None
    assert found[0] == "/Nameless/"
    assert found[1] % 60 == pytest.approx(1.25)
    assert taken(tmp_path / "b.jpg") is None


# --- in the record


def test_groups_live_in_the_record_and_travel_without_names(tmp_path: Path) -> None:
    dataset = load_dataset(bursts(tmp_path / "photos"), group_by="parent")
    again = Dataset.from_json(dataset.to_json())
    assert again.samples == dataset.samples
    assert again.digest == dataset.digest
    groups = dataset.groups("certify")
    assert groups is not None
    assert len(np.unique(groups)) == len(dataset.split("certify")) // 4
    taken_along = for_certifying(dataset)
    assert not any("scene" in sample.group for sample in taken_along.samples)
    carried = taken_along.groups("certify")
    assert carried is not None
    assert carried.tolist() == groups.tolist()


def test_without_groups_the_record_is_what_it_was(tmp_path: Path) -> None:
    dataset = load_dataset(bursts(tmp_path / "photos"))
    assert "groups" not in dataset.to_json()
    assert dataset.groups("certify") is None
