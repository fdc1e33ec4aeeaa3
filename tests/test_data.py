"""Reading labelled images: what is refused, what is named, and that no picture is in two splits."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgetl.base.errors import DataError, EdgetlError
from edgetl.core.data import SHARES, SPLITS, Dataset, Sample, assign_splits, write_digits
from edgetl.inputs import load_dataset


def one_line(error: EdgetlError) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 1000
    return text


def write_csv(path: Path, rows: Iterable[Iterable[str]], header: str = "path,label") -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    return path


def as_csv_rows(folder: Path, split: Mapping[int, str] | None = None) -> list[list[str]]:
    rows = []
    for index, file in enumerate(sorted(folder.rglob("*.png"))):
        row = [file.relative_to(folder).as_posix(), file.parent.name]
        rows.append([*row, split[index % 20]] if split else row)
    return rows


def made(sizes: Iterable[int], copies: int = 1) -> list[Sample]:
    """Samples of pictures that exist by hash only: ``sizes[label]`` pictures of each class."""
    return [
        Sample(f"{label}/{index}-{copy}", label, f"{label}-{index}-{copy}", f"{label}-{index}")
        for label, size in enumerate(sizes)
        for index in range(size)
        for copy in range(copies)
    ]


# Splits


def test_a_folder_gives_its_classes_and_all_its_pictures(photos: Path) -> None:
    dataset = load_dataset(photos)
    assert dataset.classes == ("blue", "green", "red")
    assert len(dataset.samples) == 60
    assert not dataset.skipped
    assert {s.split for s in dataset.samples} == set(SPLITS)
    assert dataset.counts()["train"] == {"blue": 10, "green": 10, "red": 10}
    for name in SPLITS:
        assert len(dataset.paths(name)) == len(dataset.labels(name)) == sum(dataset.counts()[name].values())
        assert all(
            p.is_file() and dataset.classes[i] == p.parent.name
            for p, i in zip(dataset.paths(name), dataset.labels(name), strict=True)
        )


def test_a_seed_decides_the_splits(photos: Path) -> None:
    first, again, other = (load_dataset(photos, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first.digest == again.digest != other.digest
    assert [s.split for s in first.samples] != [s.split for s in other.samples]
    assert first.counts() == other.counts()


def test_splits_do_not_depend_on_names_or_order(photos: Path, tmp_path: Path) -> None:
    rows = as_csv_rows(photos)
    forward = load_dataset(write_csv(photos / "a.csv", rows), seed=1)
    backward = load_dataset(write_csv(photos / "b.csv", rows[::-1]), seed=1)
    assert forward.samples == backward.samples
    for file in sorted(photos.rglob("*.png")):
        file.rename(file.with_name(f"x{99 - int(file.stem)}.png"))
    renamed = load_dataset(photos, seed=1)
    assert {s.pixels: s.split for s in renamed.samples} == {s.pixels: s.split for s in forward.samples}


def test_the_digest_does_not_know_where_the_files_lie(photos: Path, tmp_path: Path) -> None:
    here = load_dataset(photos)
    shutil.copytree(photos, tmp_path / "elsewhere" / "photos")
    there = load_dataset(tmp_path / "elsewhere" / "photos")
    assert here.root != there.root
    assert here.digest == there.digest


def test_the_digest_knows_labels_splits_and_content(photos: Path) -> None:
    dataset = load_dataset(photos)
    sample, *rest = dataset.samples
    for change in (
        {"label": 1 - sample.label % 2},
        {"split": "val" if sample.split != "val" else "train"},
        {"sha256": "0" * 64},
    ):
        other = Dataset(dataset.root, dataset.classes, (Sample(**{**vars(sample), **change}), *rest))
        assert other.digest != dataset.digest
    assert Dataset(dataset.root, ("a", "b", "c"), dataset.samples).digest != dataset.digest


@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    weights=st.lists(st.integers(0, 40), min_size=5, max_size=5).filter(lambda w: sum(w) > 0),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=150)
def test_shares_are_kept_for_any_class_sizes(sizes: list[int], weights: list[int], seed: int) -> None:
    shares = {name: weight / sum(weights) for name, weight in zip(SPLITS, weights, strict=True)}
    samples = made(sizes)
    divided = assign_splits(samples, seed, shares)
    assert sorted(s.path for s in divided) == sorted(s.path for s in samples)
    used = [name for name in SPLITS if shares[name] > 0]
    for label, size in enumerate(sizes):
        count = Counter(s.split for s in divided if s.label == label)
        assert sum(count.values()) == size
        assert set(count) <= set(used)
        if size >= len(used):
            assert set(count) == set(used), "a class with enough pictures is in every split"
        if all(shares[name] * size >= 1 for name in used):
            for name in used:
                assert abs(count[name] - shares[name] * size) < 1 + 1e-9


@given(sizes=st.lists(st.integers(1, 200), min_size=1, max_size=4), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_default_shares_are_within_one(sizes: list[int], seed: int) -> None:
    divided = assign_splits(made(sizes), seed)
    for label, size in enumerate(sizes):
        count = Counter(s.split for s in divided if s.label == label)
        if size >= 6:
            assert all(abs(count[name] - share * size) <= 1 for name, share in SHARES.items())
            assert all(count[name] >= 1 for name in SPLITS)
        else:
            assert count["train"] >= 1
            assert len(count) == size


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=3), copies=st.integers(1, 4), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_copies_stay_together(sizes: list[int], copies: int, seed: int) -> None:
    where = defaultdict(set)
    for sample in assign_splits(made(sizes, copies), seed):
        where[sample.pixels].add(sample.split)
    assert all(len(splits) == 1 for splits in where.values())


def test_seeds_move_pictures_evenly() -> None:
    """Over many seeds, every picture is in the certify split about as often as its share says."""
    samples, seeds = made([40]), 300
    hits = Counter(s.path for seed in range(seeds) for s in assign_splits(samples, seed) if s.split == "certify")
    spread = math.sqrt(seeds * 0.2 * 0.8)
    assert len(hits) == 40
    assert all(abs(count - 0.2 * seeds) < 5 * spread for count in hits.values())


@pytest.mark.parametrize(
    "shares",
    [
        {"train": 1.0},
        {**SHARES, "train": 0.9},
        {**SHARES, "train": 0.7, "val": -0.1},
        {**SHARES, "train": math.nan},
        {**SHARES, "extra": 0.0},
    ],
)
def test_shares_that_are_no_partition(shares: dict[str, float]) -> None:
    with pytest.raises(DataError, match="shares"):
        assign_splits(made([20, 20]), 0, shares)


def test_copies_in_other_formats_stay_together(photos: Path) -> None:
    for file in sorted(photos.glob("*/*.png"))[::2]:
        image = Image.open(file)
        image.save(file.with_suffix(".bmp"))
        image.save(file.with_name(f"copy {file.stem}.tiff"))
        shutil.copy(file, file.with_name(f"twin {file.name}"))
    dataset = load_dataset(photos)
    copies = [s for s in dataset.skipped if s.reason.startswith("a copy of")]
    assert len(dataset.samples) + len(copies) == 60 + 90
    certified = dataset.split("certify")
    assert len({s.pixels for s in certified}) == len(certified)
    assert copies
    where = defaultdict(set)
    for sample in dataset.samples:
        where[sample.pixels].add(sample.split)
    assert len(where) == 60
    assert all(len(splits) == 1 for splits in where.values())


# What is left out, and what is refused


def test_conflicting_labels_are_named_and_left_out(photos: Path) -> None:
    shutil.copy(photos / "red" / "03.png", photos / "blue" / "again.png")
    dataset = load_dataset(photos)
    assert {s.path for s in dataset.skipped} == {"red/03.png", "blue/again.png"}
    assert all("blue and red" in s.reason for s in dataset.skipped)
    assert len(dataset.samples) == 59


def test_many_conflicts_are_an_error(photos: Path) -> None:
    for file in (photos / "red").iterdir():
        shutil.copy(file, photos / "blue" / f"red {file.name}")
    with pytest.raises(DataError, match="blue and red") as caught:
        load_dataset(photos)
    assert "40 of 80" in one_line(caught.value)


def spoil(folder: Path, how: str) -> Path:
    if how == "truncated":
        picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / "bad.jpg")
        (folder / "bad.jpg").write_bytes((folder / "bad.jpg").read_bytes()[:700])
    elif how == "text":
        (folder / "bad.jpg").write_text("not a picture")
    elif how == "empty":
        (folder / "bad.jpg").write_bytes(b"")
    elif how == "notes":
        (folder / "bad.docx").write_bytes(b"PK\x03\x04" + bytes(64))
    elif how == "dangling":
        (folder / "bad.png").symlink_to(folder / "nowhere.png")
    elif how == "png":
        whole = (folder / "00.png").read_bytes()
        (folder / "bad.png").write_bytes(whole[:60] + b"\0\0\0\0" + whole[64:])
    return next(folder.glob("bad*"), folder / "bad.png")


@pytest.mark.parametrize("how", ["truncated", "text", "empty", "notes", "dangling", "png"])
def test_a_few_bad_files_are_named_and_left_out(photos: Path, how: str) -> None:
    bad = spoil(photos / "green", how)
    dataset = load_dataset(photos)
    assert [s.path for s in dataset.skipped] == [f"green/{bad.name}"]
    reason = dataset.skipped[0].reason
    assert reason
    assert "\n" not in reason
    assert str(photos) not in reason
    assert len(dataset.samples) == 60
    assert bad.name not in {Path(s.path).name for s in dataset.samples}


def test_five_percent_may_be_bad_and_no_more(photos: Path) -> None:
    for index in range(3):
        (photos / "red" / f"{index:02d}.png").write_text("spoilt")
    dataset = load_dataset(photos)
    assert len(dataset.skipped) == 3
    (photos / "red" / "03.png").write_text("spoilt")
    with pytest.raises(DataError) as caught:
        load_dataset(photos)
    text = one_line(caught.value)
    assert "4 of 60" in text
    assert "red/00.png" in text
    assert "5 %" in text


def test_hidden_files_and_folders_are_no_images(photos: Path) -> None:
    (photos / "red" / ".DS_Store").write_bytes(b"junk")
    for index in range(9):
        hidden = photos / "red" / ".thumbnails" / f"{index}.png"
        hidden.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (index, 0, 0)).save(hidden)
    (photos / ".git").mkdir()
    dataset = load_dataset(photos)
    assert dataset.classes == ("blue", "green", "red")
    assert len(dataset.samples) == 60
    assert not dataset.skipped


def test_nested_folders_unicode_and_endings(photos: Path) -> None:
    deep = photos / "red" / "Ñandú 日本" / "b"
    deep.mkdir(parents=True)
    (photos / "red" / "00.png").rename(deep / "photo 👩‍🔬.PNG")
    Image.open(photos / "red" / "01.png").save(photos / "red" / "01.JPG", "JPEG")
    (photos / "red").rename(photos / 'röd, "1"')
    dataset = load_dataset(photos)
    assert 'röd, "1"' in dataset.classes
    assert len(dataset.samples) == 61
    assert any(s.path.endswith("b/photo 👩‍🔬.PNG") for s in dataset.samples)
    assert Dataset.from_json(json.loads(json.dumps(dataset.to_json()))) == dataset


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"two\nlines.png"])
def test_names_that_no_list_can_hold_are_skipped(photos: Path, name: bytes) -> None:
    file = os.path.join(os.fsencode(photos / "red"), name)  # noqa: PTH118
    Path(os.fsdecode(file)).write_bytes((photos / "red" / "00.png").read_bytes())
    dataset = load_dataset(photos)
    assert len(dataset.skipped) == 1
    assert "UTF-8" in dataset.skipped[0].reason
    json.dumps(dataset.to_json(), ensure_ascii=False).encode()


def test_a_class_name_that_no_list_can_hold(photos: Path) -> None:
    bad = Path(os.fsdecode(os.fsencode(photos) + b"/caf\xe9"))
    (photos / "red").rename(bad)
    with pytest.raises(DataError, match="UTF-8"):
        load_dataset(photos)


def test_bad_folders(photos: Path, tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(DataError) as caught:
            load_dataset(path)
        return one_line(caught.value)

    assert "there is no" in refusal(tmp_path / "gone")
    (tmp_path / "void").mkdir()
    assert "no class folder" in refusal(tmp_path / "void")
    assert "only the class 'red'" in refusal_of_one(photos, tmp_path)
    (photos / "yellow").mkdir()
    assert f"{photos / 'yellow'} is empty" in refusal(photos)
    (photos / "yellow" / ".keep").touch()
    assert "yellow is empty" in refusal(photos)
    (photos / "yellow" / "note.jpg").write_text("no image")
    assert "class 'yellow'" in refusal(photos)


def refusal_of_one(photos: Path, tmp_path: Path) -> str:
    shutil.copytree(photos / "red", tmp_path / "single" / "red")
    with pytest.raises(DataError) as caught:
        load_dataset(tmp_path / "single")
    return one_line(caught.value)


def test_too_few_pictures(photos: Path) -> None:
    for file in photos.glob("*/*.png"):
        if file.stem not in ("00", "01"):
            file.unlink()
    with pytest.raises(DataError, match="no image for the split 'val'"):
        load_dataset(photos)


# CSV


def test_a_csv_gives_what_the_folder_gives(photos: Path) -> None:
    folder = load_dataset(photos, seed=5)
    listed = load_dataset(write_csv(photos / "list.csv", as_csv_rows(photos)), seed=5)
    assert listed == folder


def test_a_csv_keeps_its_splits(photos: Path) -> None:
    names = ("train",) * 10 + ("val",) * 3 + ("calib",) * 2 + ("search",) * 2 + ("test",) * 3
    rows = as_csv_rows(photos, dict(enumerate(names)))
    dataset = load_dataset(write_csv(photos / "list.csv", rows, "path,label,split"))
    expected = {row[0]: {"calib": "calibration", "test": "certify"}.get(row[2], row[2]) for row in rows}
    assert {s.path: s.split for s in dataset.samples} == expected
    assert load_dataset(photos / "list.csv", seed=9).digest == dataset.digest


def test_a_csv_with_train_and_test_only(photos: Path) -> None:
    rows = as_csv_rows(photos, {index: "train" if index < 14 else "Test " for index in range(20)})
    dataset = load_dataset(write_csv(photos / "list.csv", rows, "path,label,split"))
    held_out = {row[0] for row in rows if row[2] == "Test "}
    assert {s.path for s in dataset.split("certify")} == held_out
    assert all(sum(dataset.counts()[name].values()) >= 3 for name in SPLITS)


def test_a_csv_with_a_mark_and_spaces(photos: Path) -> None:
    lines = ["path, label", *(", ".join(row) for row in as_csv_rows(photos))]
    (photos / "list.csv").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    assert load_dataset(photos / "list.csv").classes == ("blue", "green", "red")


def test_copies_across_given_splits_are_refused(photos: Path) -> None:
    Image.open(photos / "red" / "00.png").save(photos / "red" / "copy.bmp")
    names = {index: SPLITS[index % 5] for index in range(20)}
    rows = [*as_csv_rows(photos, names), ["red/copy.bmp", "red", "certify"]]
    with pytest.raises(DataError, match="are the same sample") as caught:
        load_dataset(write_csv(photos / "list.csv", rows, "path,label,split"))
    text = one_line(caught.value)
    assert "red/00.png (train)" in text
    assert "red/copy.bmp (certify)" in text


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("", "columns none"),
        ("file,class\na,b\n", "file, class"),
        ("path,label\n", "0 class"),
        ("path,label\nred/00.png,red\n", "1 class"),
        ("path,label,split\nred/00.png,red,train\nblue/00.png,blue,holdout\n", "line 3"),
        ("path,label\nred/00.png,red\n,blue\n", "line 3"),
        ("path,label\nred/00.png,red\nblue/00.png,\ngreen/00.png,green\n", "line 3"),
        ("path,label,split\nred/00.png,red,train\nblue/00.png,blue,\n", "only some rows"),
        ("path,label\nred/00.png,red\nred/gone.png,blue\n", "gone.png"),
    ],
)
def test_bad_csv_files(photos: Path, content: str, hint: str) -> None:
    (photos / "list.csv").write_text(content)
    with pytest.raises(DataError) as caught:
        load_dataset(photos / "list.csv")
    assert hint in one_line(caught.value)


def test_a_picture_is_no_csv(photos: Path) -> None:
    with pytest.raises(DataError, match="is not a CSV file") as caught:
        load_dataset(photos / "red" / "00.png")
    one_line(caught.value)


def test_a_file_missing_from_a_csv_is_named(photos: Path) -> None:
    rows = as_csv_rows(photos)
    dataset = load_dataset(write_csv(photos / "list.csv", [*rows, ["red/gone.png", "red"]]))
    assert [s.path for s in dataset.skipped] == ["red/gone.png"]


# Records and the embedded digits


@pytest.mark.parametrize("change", [{"samples": [["a"]]}, {"classes": None}, {"root": 5}, {"skipped": [[1, 2, 3]]}])
def test_a_malformed_record(photos: Path, change: dict[str, object]) -> None:
    record = load_dataset(photos).to_json()
    with pytest.raises(DataError, match="make the run again"):
        Dataset.from_json({**record, **change})
    for name in record:
        with pytest.raises(DataError, match="make the run again"):
            Dataset.from_json({key: value for key, value in record.items() if key != name})


def test_digits(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn (edgetl[train]) carries the digits")
    dataset = load_dataset("digits", into=tmp_path / "digits")
    assert dataset.classes == tuple("0123456789")
    assert len(dataset.samples) + len(dataset.skipped) == 1797
    assert not dataset.mirror_safe, "a mirrored digit is another digit"
    assert Image.open(dataset.paths("train")[0]).size == (8, 8)
    again = load_dataset("digits", into=write_digits(tmp_path / "more"))
    assert again.digest == dataset.digest
    where = defaultdict(set)
    for sample in dataset.samples:
        where[sample.pixels].add(sample.split)
    assert all(len(splits) == 1 for splits in where.values())


def test_progress_counts_every_file(photos: Path) -> None:
    told: list[tuple[int, int]] = []
    load_dataset(photos, progress=lambda task, done, total, detail="": told.append((done, total)))
    assert told[0] == (0, 60)
    assert told[-1] == (60, 60)


def test_real_photographs(real_data: Path) -> None:
    dataset = load_dataset(real_data / "magnetic-tile")
    assert len(dataset.classes) == 6
    assert len(dataset.samples) == 1344
    assert not dataset.skipped
    assert min(dataset.counts()["certify"].values()) >= 6


def test_files_beside_the_class_folders_are_named(photos: Path) -> None:
    (photos / "LICENCE.txt").write_text("free")
    shutil.copy(next((photos / "red").glob("*.png")), photos / "stray.png")
    dataset = load_dataset(photos)
    assert [(s.path, s.reason) for s in dataset.skipped] == [
        ("LICENCE.txt", "it lies in no class folder"),
        ("stray.png", "it lies in no class folder"),
    ]
    assert len(dataset.samples) == 60
