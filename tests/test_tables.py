"""CSV files as people have them: where their files lie, blanks, rows that say nothing, and labels that look alike."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgetl.base.errors import DataError
from edgetl.base.storage import sha256_file
from edgetl.core.data import find_reader, is_embedded, located
from edgetl.inputs import load_dataset, what


def listed(photos: Path) -> list[Path]:
    return sorted(photos.glob("*/*.png"))


def table(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_absolute_paths(photos: Path, tmp_path: Path) -> None:
    rows = [f"{file},{file.parent.name}" for file in listed(photos)]
    folder = load_dataset(photos)
    dataset = load_dataset(table(tmp_path / "lists" / "all.csv", ["path,label", *rows]))
    assert dataset == folder
    assert dataset.root == photos
    assert dataset.digest == folder.digest, "it does not tell where the files lay"


def test_paths_above_the_table_and_mixed_ones(photos: Path, tmp_path: Path) -> None:
    shutil.move(photos / "red", tmp_path / "others" / "red")
    (tmp_path / "data").mkdir()
    photos.rename(tmp_path / "data" / "photos")
    rows = [f"{file},red" for file in sorted((tmp_path / "others").glob("*/*.png"))]
    rows += [f"./../data/photos//{file.parent.name}/{file.name},{file.parent.name}" for file in listed(photos)]
    rows += [f"../data/photos/{n}/{i:02d}.png,{n}" for n in ("blue", "green") for i in range(20)]
    dataset = load_dataset(table(tmp_path / "lists" / "all.csv", ["path,label", *rows]))
    assert dataset.root == tmp_path
    assert len(dataset.samples) == 60
    assert {s.path.split("/")[0] for s in dataset.samples} == {"data", "others"}
    assert not any(".." in s.path or s.path.startswith("/") for s in dataset.samples)


def test_paths_with_backslashes(photos: Path) -> None:
    rows = [f"{file.parent.name}\\{file.name},{file.parent.name}" for file in listed(photos)]
    assert load_dataset(table(photos / "list.csv", ["path,label", *rows])).samples == load_dataset(photos).samples


def test_blanks_case_and_empty_rows(photos: Path) -> None:
    rows = [f" {f.relative_to(photos)}\t, {f.parent.name} ,  train" for f in listed(photos)]
    rows[3:3] = ["", " , ,", ",,"]
    plain = [f"{f.relative_to(photos)},{f.parent.name},train" for f in listed(photos)]
    odd = load_dataset(table(photos / "odd.csv", [" Path , LABEL,Split ", *rows]))
    assert odd == load_dataset(table(photos / "plain.csv", ["path,label,split", *plain]))
    assert odd.classes == ("blue", "green", "red")


@pytest.mark.parametrize(
    ("lines", "hint"),
    [
        (["path,label", "", "a.png,x", "", ",y"], "line 5: there is no path"),
        (["path,label", "a.png,x", "", "b.png, "], "line 4: '' in the column label"),
        (["path,label,split", "", "a.png,x,train", '"b\n.png",y,soon'], "line 5: bad split 'soon'"),
        (["path,label,Label", "a.png,x,y"], "has two columns label"),
    ],
)
def test_lines_are_those_of_the_file(tmp_path: Path, lines: list[str], hint: str) -> None:
    with pytest.raises(DataError, match=hint):
        load_dataset(table(tmp_path / "t.csv", lines))


def test_rows_that_say_the_same(photos: Path) -> None:
    rows = [f"{f.relative_to(photos)},{f.parent.name}" for f in listed(photos)]
    dataset = load_dataset(table(photos / "list.csv", ["path,label", *rows, rows[7], "./" + rows[7]]))
    assert dataset.samples == load_dataset(photos).samples
    assert [(s.path, s.reason) for s in dataset.skipped] == [(rows[7].split(",")[0], "another row says the same")] * 2


def test_labels_that_look_alike_are_named(photos: Path) -> None:
    rows = [f"{f.relative_to(photos)},{f.parent.name}" for f in listed(photos)]
    names = ["Red", "r ed"]
    rows[-2:] = [f"{row.split(',')[0]},{name}" for row, name in zip(rows[-2:], names, strict=True)]
    dataset = load_dataset(table(photos / "list.csv", ["path,label", *rows]))
    assert dataset.notes == ("the classes 'Red', 'r ed' and 'red' differ by case or blanks alone: is that one class?",)


def test_a_folder_called_digits_is_its_owners(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_embedded("digits")
    assert find_reader("digits").name == "digits"
    photos.rename(tmp_path / "digits")
    assert not is_embedded("digits")
    assert what("digits") == ("image", "class")
    assert load_dataset("digits").classes == ("blue", "green", "red")
    assert find_reader("sklearn:digits").name == "digits"


def test_files_are_found_again_by_what_they_hold(photos: Path, tmp_path: Path) -> None:
    rows = [f"{f.relative_to(photos)},{f.parent.name}" for f in listed(photos)]
    source = load_dataset(table(photos / "list.csv", ["path,label", *rows]))
    assert located(source, None) == source
    photos.rename(tmp_path / "moved")
    moved = located(source, tmp_path / "moved")
    assert (moved.root, moved.places) == (tmp_path / "moved", {})
    assert moved.digest == source.digest
    with pytest.raises(DataError, match=r"samples are not at .*--data"):
        located(source, None)
    (tmp_path / "flat").mkdir()
    for index, file in enumerate(listed(tmp_path / "moved")):
        shutil.move(file, tmp_path / "flat" / f"{index}.png")
    flat = located(source, tmp_path / "flat")
    assert [sha256_file(flat.file(s)) for s in flat.samples] == [s.sha256 for s in source.samples]
    named = [f"{file.absolute()},x{index % 2}" for index, file in enumerate(sorted((tmp_path / "flat").iterdir()))]
    by_table = located(source, table(tmp_path / "lists" / "now.csv", ["path,label", *named]))
    assert [by_table.file(s) for s in source.samples] == [flat.file(s) for s in source.samples]
    (tmp_path / "flat" / "3.png").unlink()
    with pytest.raises(DataError, match="1 of 60 samples are missing"):
        located(source, tmp_path / "flat")
    lost = next(s for s in source.samples if not flat.file(s).is_file())
    rest = located(source, tmp_path / "flat", {"train", "val", "calibration", "search", "certify"} - {lost.split})
    assert rest.root == tmp_path / "flat"
