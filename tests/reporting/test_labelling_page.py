"""The page on which samples are labelled, in a real browser: keys, hostile names, 200 pictures, the saved file."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.certify.unlabelled import Unlabelled
from edgetl.reporting.labelling.page import Asked, write_label_page
from edgetl.tasks import find_task
from edgetl.workflow.label_file import read_label_file

from .browser import Browser
from .page import CHROMIUM

HOSTILE = ("</script><img src=x onerror=alert(1)>.png", 'a "quoted", name.png', "=1+2 & ünïcode <b>.png")
CLASSES = ("blue", "green", "</script><b>red")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def pictures(folder: Path, n: int) -> list[str]:
    """Noisy pictures, the first with names that break pages and tables."""
    names = [*HOSTILE, *(f"{i:03d}.png" for i in range(n - len(HOSTILE)))]
    rng = np.random.default_rng(0)
    for place, _ in enumerate(names):
        Image.fromarray(rng.integers(0, 255, (96, 128, 3)).astype(np.uint8)).save(folder / f"{place}.png")
    return names


def page(folder: Path, names: list[str], classes: tuple[str, ...], *, several: bool = False) -> Path:
    asked = [Asked(name, folder / f"{place}.png", "", classes[:9]) for place, name in enumerate(names)]
    out = folder / "to_label.html"
    write_label_page(out, classes, asked, "image", "image", several=several, digest="d")
    return out


def rows(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def compared(names: list[str], classes: tuple[str, ...], task: str = "classification") -> Unlabelled:
    """Two models that differ on every sample."""
    sign = np.where(np.arange(len(classes)) == 0, 4.0, -4.0)
    logits = [np.tile(values, (len(names), 1)).astype(np.float32) for values in (sign, np.roll(sign, 1))]
    files = [(name, f"{place:064x}") for place, name in enumerate(names)]
    pair = ({"logits": logits[0]}, {"logits": logits[1]})
    return Unlabelled.of(find_task(task), classes, files, pair, "reference", {})


@needs_chromium
def test_two_hundred_pictures_are_labelled_by_keys_alone_and_the_file_says_what_was_pressed(tmp_path: Path) -> None:
    names = pictures(tmp_path, 200)
    out = page(tmp_path, names, CLASSES)
    pressed = [int(key) for key in np.random.default_rng(1).integers(1, 4, len(names))]
    with Browser(tmp_path / "profile", tmp_path) as browser:
        browser.open(out)
        assert browser.value("document.querySelectorAll('b').length") == 0
        assert browser.value("document.getElementById('path').textContent") == f"1: {HOSTILE[0]}"
        assert browser.value("document.getElementById('image').naturalWidth") > 0
        began = time.monotonic()
        browser.press(*map(str, pressed))
        assert time.monotonic() - began < 120
        assert browser.value("document.getElementById('count').textContent") == "200 of 200 labelled"
        browser.press("s")
        saved = browser.saved("to_label.csv")
        assert browser.faults == []
    wanted = [[name, CLASSES[key - 1]] for name, key in zip(names, pressed, strict=True)]
    assert rows(saved) == [["path", "label"], *wanted]
    read = read_label_file(saved, compared(names, CLASSES))
    assert [read[place] + 1 for place in range(len(names))] == pressed


@needs_chromium
def test_labels_are_undone_left_out_searched_for_and_kept_until_the_page_is_opened_again(tmp_path: Path) -> None:
    names, classes = pictures(tmp_path, 5), tuple(f"class {i:02d}" for i in range(30))
    out = page(tmp_path, names, classes)
    with Browser(tmp_path / "profile", tmp_path) as browser:
        browser.open(out)
        assert browser.value("document.activeElement.tagName") == "BODY"
        browser.press("1", "2", "u", "u", "3", "ArrowRight")
        browser.press("/", "2", "7", "Enter", "9", "ArrowLeft", "Delete")
        state = "JSON.stringify(labels)"
        kept = '[["class 02"],null,["class 27"],null,null]'
        assert browser.value(state) == kept
        # Letters and figures that are written into the field are no commands.
        browser.press("/", "s", "1", "Escape")
        assert browser.value(state) == kept
        assert not list(tmp_path.glob("*.csv"))
        browser.open(out)
        assert browser.value(state) == kept
        assert browser.value("here") == 1
        assert browser.faults == []


@needs_chromium
def test_any_number_of_labels_a_sample_or_none_of_them(tmp_path: Path) -> None:
    names, classes = pictures(tmp_path, 4), ("cat", "dog", "emu")
    out = page(tmp_path, names, classes, several=True)
    with Browser(tmp_path / "profile", tmp_path) as browser:
        browser.open(out)
        browser.press("3", "1", "Enter", "2", "2", "Enter", "2", "Enter", "s")
        saved = browser.saved("to_label.csv")
        assert browser.faults == []
    assert [row[1] for row in rows(saved)[1:]] == ["cat|emu", "|", "dog", ""]
    read = read_label_file(saved, compared(names, classes, "multi-label"))
    assert {row: label.tolist() for row, label in read.items()} == {
        0: [True, False, True],
        1: [False, False, False],
        2: [False, True, False],
    }


def test_the_page_asks_nothing_of_anybody_and_says_nothing_of_the_models(tmp_path: Path) -> None:
    text = page(tmp_path, pictures(tmp_path, 6), CLASSES).read_text()
    assert "</script><" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert "default-src 'none'" in text
    assert text.count("<script") == 2
