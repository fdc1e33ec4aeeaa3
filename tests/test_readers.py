"""What reads labelled data: each format, each kind of label, and what is refused."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl.base.errors import DataError, UnknownNameError
from edgetl.core.data import READERS, SPLITS
from edgetl.core.data.readers import arrays
from edgetl.inputs import load_dataset, what


def table(path: Path, header: str, rows: Iterable[Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(header.split(","))
        writer.writerows(rows)
    return path


def sentences(count: int) -> list[str]:
    return [f"sentence number {index}, with a comma" for index in range(count)]


def refusal(source: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(source, into=source.parent / "into", **options)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 1000
    return text


def test_each_reader_says_what_it_takes(tmp_path: Path, photos: Path) -> None:
    made: dict[str, str | Path] = {
        "digits": "digits",
        "folder": photos,
        "arrays": tmp_path / "a.npz",
        "texts": table(tmp_path / "t.csv", "text,label", []),
        "table": table(tmp_path / "p.csv", "path,label", []),
    }
    np.savez(tmp_path / "a.npz", x=np.ones((4, 2)), y=[0, 1, 0, 1])
    assert list(made) == list(READERS)
    for name, source in made.items():
        assert READERS[name].about
        assert next(reader.name for reader in READERS.values() if reader.takes(source)) == name
    with pytest.raises(DataError, match=r"there is no .*gone.*digits.*CSV"):
        load_dataset(tmp_path / "gone")


@pytest.mark.parametrize(
    ("header", "cells", "kind", "first"),
    [
        ("text,label", ["good", "bad"], "class", 1),
        ("text,labels", ["good|long", " bad ; long ;"], "classes", (1, 2)),
        ("text,target", ["1.5", "-2e3"], "number", 1.5),
    ],
)
def test_texts_of_a_table(tmp_path: Path, header: str, cells: list[str], kind: str, first: object) -> None:
    source = table(tmp_path / "t.csv", header, [(text, cells[i % 2]) for i, text in enumerate(sentences(60))])
    assert what(source) == ("text", kind)
    dataset = load_dataset(source, into=tmp_path / "run" / "samples", seed=3)
    assert dataset.label_kind == kind
    assert dataset.root == (tmp_path / "run" / "samples").resolve()
    assert len(dataset.samples) == 60
    assert all(dataset.sizes()[name] for name in SPLITS)
    by_path = {sample.path: sample for sample in dataset.samples}
    assert by_path["texts/00000.txt"].label == first
    assert (dataset.root / "texts" / "00059.txt").read_text() == sentences(60)[59]
    assert dataset.classes == {"class": ("bad", "good"), "classes": ("bad", "good", "long"), "number": ()}[kind]
    before = {file: file.stat().st_mtime_ns for file in dataset.root.rglob("*.txt")}
    again = load_dataset(source, into=tmp_path / "run" / "samples", seed=3)
    assert again == dataset
    assert before == {file: file.stat().st_mtime_ns for file in dataset.root.rglob("*.txt")}, "nothing is written twice"


def test_a_changed_table_gives_changed_files(tmp_path: Path) -> None:
    rows = [(text, "ab"[i % 2]) for i, text in enumerate(sentences(60))]
    first = load_dataset(table(tmp_path / "t.csv", "text,label", rows), into=tmp_path / "s")
    rows[0] = ("another", "a")
    second = load_dataset(table(tmp_path / "t.csv", "text,label", rows[:50]), into=tmp_path / "s")
    assert first.digest != second.digest
    assert len(list((tmp_path / "s" / "texts").iterdir())) == 50
    (tmp_path / "s" / "texts" / "notes.md").touch()
    assert "notes.md" in refusal_into(tmp_path / "t.csv", tmp_path / "s")
    assert (tmp_path / "s" / "texts" / "notes.md").exists()


def refusal_into(source: Path, into: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_dataset(source, into=into)
    return str(caught.value)


def test_texts_keep_splits_and_lose_what_is_none(tmp_path: Path) -> None:
    splits = ["train"] * 30 + ["dev"] * 6 + ["test"] * 14
    rows = [(text, "ab"[i % 2], split) for i, (text, split) in enumerate(zip(sentences(50), splits, strict=True))]
    rows += [("  ", "a", "train"), (rows[0][0] + " ", "a", "train")]
    dataset = load_dataset(table(tmp_path / "t.csv", "text,label,split", rows), into=tmp_path / "s")
    assert [(s.path, s.reason) for s in dataset.skipped] == [("texts/00050.txt", "the file is empty")]
    sizes = dataset.sizes()
    assert (sizes["val"], sizes["certify"]) == (6, 14)
    assert sizes["train"] + sizes["calibration"] + sizes["search"] == 31


@pytest.mark.parametrize(
    ("header", "labels", "shown"),
    [
        ("text,label", ["bad", "good"], "the same text is labelled bad and good"),
        ("text,labels", ["bad|good", "good"], "the same text is labelled bad|good and good"),
        ("text,labels", ["bad|good", ""], "the same text is labelled none and bad|good"),
        ("text,target", ["2", "3.5"], "the same text is labelled 2 and 3.5"),
    ],
)
def test_one_text_of_two_labels_is_left_out(tmp_path: Path, header: str, labels: list[str], shown: str) -> None:
    rows = [(text, labels[i % 2] or "good") for i, text in enumerate(sentences(60))]
    rows += [("twice", labels[0]), (" twice ", labels[1])]
    dataset = load_dataset(table(tmp_path / "t.csv", header, rows), into=tmp_path / "s")
    assert [s.reason for s in dataset.skipped] == [shown, shown]
    assert len(dataset.samples) == 60


def test_numbers_and_label_sets_of_pictures(photos: Path) -> None:
    files = sorted(photos.glob("*/*.png"))
    rows = [(f.relative_to(photos).as_posix(), index / 4) for index, f in enumerate(files)]
    source = table(photos / "n.csv", "path,target", rows)
    assert what(source) == ("image", "number")
    dataset = load_dataset(source)
    assert dataset.classes == ()
    assert {s.path: s.label for s in dataset.samples} == dict(rows)
    several = [(f.relative_to(photos).as_posix(), "|".join({f.parent.name, "red"})) for f in files]
    marked = load_dataset(table(photos / "m.csv", "path,labels", several))
    assert marked.counts()["train"]["red"] == len(marked.split("train"))


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("text\na\n", "has the columns text"),
        ("text,label,target\na,b,1\n", "has the columns text, label, target"),
        ("path,text,label\na,b,c\n", "both the columns path and text"),
        ("text,label\na,x\nb,\n", "line 3: '' in the column label is bad, it should be a class"),
        ("text,target\na,1\nb,high\n", "line 3: 'high' in the column target is bad, it should be a number"),
        ("text,target\na,1\nb,nan\n", "it should be a finite number"),
        ("text,label\na,x\nb,x\n", "names 1 class"),
        ("text,labels\na,\nb,|\n", "names 0 classes"),
        ("text,label,split\na,x,train\nb,y,later\n", "line 3: bad split 'later'"),
        ("text,target\n" + "".join(f"text {i},7\n" for i in range(40)), "the same target"),
        ("text,label\n" + "".join(f"text {i % 3},{'ab'[i % 2]}\n" for i in range(12)), "12 of 12"),
        ("text,label\na,x\nb,y\n", "leaves no text for the split"),
    ],
)
def test_bad_tables(tmp_path: Path, content: str, hint: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    assert hint in refusal(tmp_path / "t.csv")


def filled(root: Path, suffix: str, write: Callable[[Path, int], object]) -> Path:
    for name in ("calm", "storm"):
        (root / name).mkdir(parents=True)
        for index in range(25):
            write(root / name / f"{index}{suffix}", index + 100 * (name == "storm"))
    return root


def test_folders_of_texts_and_arrays(tmp_path: Path) -> None:
    texts = filled(tmp_path / "t", ".txt", lambda file, seed: file.write_text(f"wind {seed}"))
    assert what(texts) == ("text", "class")
    assert load_dataset(texts).counts()["train"] == {"calm": 13, "storm": 13}
    windows = filled(tmp_path / "w", ".npy", lambda file, seed: np.save(file, np.full((3, 2), seed)))
    (windows / "calm" / "bad.npy").write_bytes(b"nothing")
    assert what(windows) == ("tensor", "class")
    dataset = load_dataset(windows)
    assert [s.path for s in dataset.skipped] == ["calm/bad.npy"]
    named = filled(tmp_path / "n", ".npz", lambda file, seed: np.savez(file, x=np.ones(2), speed=np.full(1, seed)))
    assert what(named) == ("tensor", "class")
    assert len(load_dataset(named).samples) == 50
    with pytest.raises(DataError, match="are unusable"):
        load_dataset(texts, kind="image")
    with pytest.raises(UnknownNameError, match="did you mean text"):
        load_dataset(texts, kind="txt")


def windows(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, 4)).astype(np.float32)


@pytest.mark.parametrize(
    ("labels", "kind", "classes"),
    [
        ({"y": np.arange(60) % 3 + 9}, "class", ("9", "10", "11")),
        ({"y": np.array(["low", "high"] * 30)}, "class", ("high", "low")),
        ({"y": np.arange(60) % 3, "classes": ["c", "a", "b"]}, "class", ("c", "a", "b")),
        ({"labels": np.arange(180).reshape(60, 3) % 7 < 3}, "classes", ("0", "1", "2")),
        ({"target": np.arange(60.0)[:, None]}, "number", ()),
    ],
)
def test_arrays_of_one_file(tmp_path: Path, labels: dict[str, Any], kind: str, classes: tuple[str, ...]) -> None:
    np.savez(tmp_path / "a.npz", x=windows(60), **labels)
    assert what(tmp_path / "a.npz") == ("tensor", kind)
    dataset = load_dataset(tmp_path / "a.npz", into=tmp_path / "s")
    assert (dataset.label_kind, dataset.classes, len(dataset.samples)) == (kind, classes, 60)
    (given,) = (np.asarray(values) for name, values in labels.items() if name != "classes")
    for sample in dataset.samples:
        index = int(Path(sample.path).stem)
        np.testing.assert_array_equal(np.load(dataset.root / sample.path), windows(60)[index])
        if kind == "class":
            shown = str(given[index]) if "classes" not in labels else labels["classes"][given[index]]
            assert classes[sample.label] == shown  # type: ignore[index]
        else:
            assert list(np.atleast_1d(sample.label)) == list(
                np.flatnonzero(given[index]) if kind == "classes" else given[index]
            )


def test_arrays_with_splits(tmp_path: Path) -> None:
    split = ["train"] * 40 + ["test"] * 20
    np.savez(tmp_path / "a.npz", x=windows(60), y=np.arange(60) % 2, split=split)
    dataset = load_dataset(tmp_path / "a.npz", into=tmp_path / "s")
    assert {int(Path(s.path).stem) for s in dataset.split("certify")} == set(range(40, 60))


@pytest.mark.parametrize(
    ("held", "hint"),
    [
        ({"y": [0, 1]}, "holds y: give x"),
        ({"x": np.ones((4, 2))}, "holds x: give x"),
        ({"x": np.ones((4, 2)), "y": [0, 1, 0, 1], "target": [1, 2, 3, 4]}, "holds x, y, target"),
        (
            {"x": np.ones((4, 2)), "y": [0, 1, 0]},
            "x is float64 [4, 2] and y int64 [3]",
        ),
        ({"x": np.ones(4), "y": [0, 1, 0, 1]}, "x is float64 [4]"),
        ({"x": np.array([["a"], ["b"]]), "y": [0, 1]}, "x is <U1"),
        ({"x": np.ones((4, 2)), "y": [0.5, 1, 0, 1]}, "call numbers target"),
        ({"x": np.ones((4, 2)), "y": [1, 1, 1, 1]}, "names 1 class"),
        ({"x": np.ones((4, 2)), "y": [0, 1, 0, 2], "classes": ["a", "b"]}, "no indexes of its 2 classes"),
        ({"x": np.ones((4, 2)), "labels": np.full((4, 2), 2)}, "give 0 and 1"),
        ({"x": np.ones((4, 2)), "labels": np.ones((4, 2)), "classes": ["a"]}, "there are 1 classes"),
        ({"x": np.ones((4, 2)), "target": [1, 2, 3, np.nan]}, "one finite number"),
        ({"x": np.ones((4, 2)), "y": [0, 1, 0, 1], "split": ["train"]}, "a name for each sample"),
        ({"x": np.ones((4, 2)), "y": [0, 1, 0, 1], "split": ["later"] * 4}, "bad split 'later'"),
        ({"x": np.array([[{}]], dtype=object), "y": [0]}, "damaged"),
    ],
)
def test_bad_archives(tmp_path: Path, held: dict[str, Any], hint: str) -> None:
    np.savez(tmp_path / "a.npz", **held)
    assert hint in refusal(tmp_path / "a.npz")
    assert not (tmp_path / "into").exists()


def test_archives_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK nothing")
    assert "no .npz file" in refusal(tmp_path / "a.npz")
    np.savez_compressed(tmp_path / "b.npz", x=np.zeros((40, 40)), y=np.arange(40) % 2)
    monkeypatch.setattr(arrays, "MOST_BYTES", 1000)
    assert "more than 1000 bytes" in refusal(tmp_path / "b.npz")


def test_samples_without_a_place_go_beside_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = table(
        tmp_path / "reviews.csv", "text,label", [(text, "ab"[i % 2]) for i, text in enumerate(sentences(60))]
    )
    assert load_dataset(source).root == tmp_path.resolve() / "reviews-samples"


def test_real_sentences(real_data: Path, tmp_path: Path) -> None:
    dataset = load_dataset(real_data / "text-trec" / "train.csv", into=tmp_path)
    assert dataset.classes == ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
    assert len(dataset.samples) + len(dataset.skipped) == 5452
    assert all(min(counted.values()) >= 8 for counted in dataset.counts().values())


def test_real_numbers(real_data: Path) -> None:
    dataset = load_dataset(real_data / "regression-bccd-count" / "labels.csv")
    assert dataset.label_kind == "number"
    every = np.concatenate([dataset.labels(name) for name in SPLITS])
    assert len(every) == 364
    assert (round(every.mean(), 1), round(every.std(ddof=1), 1)) == (11.4, 4.3)
    # Dealt out at random, the mean of 74 would be off by 0.5 in two of three cases.
    assert abs(dataset.summary()["certify"]["mean"] - every.mean()) < 0.5
