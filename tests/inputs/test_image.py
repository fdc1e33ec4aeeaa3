"""The image input: the suite, the four ways to the network's size, colours, and definitions that users write."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgetl.base.errors import DataError, UnknownNameError
from edgetl.base.storage import sha256_json
from edgetl.inputs import Input, Preprocess, read_input
from edgetl.inputs.pictures import MOST_PIXELS
from tests.inputs.contract import InputContract

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RIGHT = Preprocess(24, 32, 40, "bilinear", MEAN, STD)
BOXED = replace(RIGHT, mode="letterbox", resize=32, pad=(114, 9, 200))
#: A record as edgetl wrote it before there were modes.
OLD = {
    **{"channels": "RGB", "height": 32, "interpolation": "bicubic", "layout": "NHWC"},
    **{"mean": list(MEAN), "resize": 34, "std": list(STD), "width": 32},
}
sides = st.integers(1, 90)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    draw = np.random.default_rng([width, height, seed])
    return Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))


class TestImage(InputContract):
    def made(self) -> Input:
        return BOXED

    def others(self) -> Mapping[str, Input]:
        changes: dict[str, dict[str, Any]] = {
            "height": {"height": 25},
            "width": {"width": 33, "resize": 33},
            "resize": {"mode": "squash", "resize": 25},
            "interpolation": {"interpolation": "nearest"},
            "mean": {"mean": (0.0, 0.456, 0.406)},
            "std": {"std": (0.5, 0.224, 0.225)},
            "mode": {"mode": "longest"},
            "channels": {"channels": "BGR"},
            "pad": {"pad": (114, 9, 201)},
            "version": {"mode": "shorter", "version": 1},
        }
        assert set(changes) == {field.name for field in fields(Preprocess)}
        grey = replace(BOXED, channels="L", mean=(0.5,), std=(0.5,))
        return {
            "grey": grey,
            **{name: replace(BOXED, **change) for name, change in changes.items() if name != "version"},
        }

    def write(self, folder: Path) -> tuple[Sequence[Path], Sequence[Any]]:
        pictures = [picture(40, 30), picture(9, 70), picture(64, 11)]
        files = [folder / f"{index}.png" for index in range(3)]
        for file, image in zip(files, pictures, strict=True):
            image.save(file)
        return files, [pictures[0], np.asarray(pictures[1]), str(files[2])]

    def copies(self, folder: Path) -> tuple[Path, Path]:
        picture(8, 9).save(folder / "copy.png")
        picture(8, 9).save(folder / "copy.bmp")
        return folder / "copy.png", folder / "copy.bmp"

    def spoilt(self, folder: Path) -> Sequence[Path]:
        (folder / "text.jpg").write_text("no picture")
        (folder / "void.png").write_bytes(b"")
        return folder / "text.jpg", folder / "void.png"


def two_steps(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    flat = image.resize((size[0], image.height), Image.Resampling.BILINEAR)
    return np.asarray(flat.resize(size, Image.Resampling.BILINEAR))


@given(sides, sides, st.sampled_from(["letterbox", "longest"]))
@settings(deadline=None, max_examples=60)
def test_padding_against_an_independent_formula(width: int, height: int, mode: str) -> None:
    """As YOLO's letterbox has it, in real numbers: one factor for both sides, rounded, the rest padded."""
    made = replace(BOXED, mode=mode)
    image = picture(width, height)
    factor = min(made.width / width, made.height / height)
    new = [max(1, math.floor(side * factor + 0.5 + 1e-9)) for side in (width, height)]
    left, top = (math.floor((total - side) / 2) for total, side in zip((made.width, made.height), new, strict=True))
    if mode == "longest":
        left = top = 0
    expected = np.full((made.height, made.width, 3), made.pad, np.uint8)
    expected[top : top + new[1], left : left + new[0]] = two_steps(image, (new[0], new[1]))
    np.testing.assert_array_equal(made.apply(image), expected)


@given(sides, sides)
@settings(deadline=None, max_examples=40)
def test_squash_is_one_resize_and_a_crop_where_more_was_asked_for(width: int, height: int) -> None:
    image = picture(width, height)
    plain = replace(RIGHT, mode="squash", resize=24)
    np.testing.assert_array_equal(plain.apply(image), two_steps(image, (32, 24)))
    # 30 for the shorter side of 24x32 is 30x40, of which the middle is kept.
    more = replace(RIGHT, mode="squash", resize=30).apply(image)
    np.testing.assert_array_equal(more, two_steps(image, (40, 30))[3:27, 4:36])


@given(sides, sides, st.sampled_from(["shorter", "squash", "letterbox", "longest"]), st.sampled_from(["RGB", "L"]))
@settings(deadline=None, max_examples=60)
def test_what_was_resized_is_not_changed_by_doing_it_again(width: int, height: int, mode: str, channels: str) -> None:
    """Training keeps resized images and crops them later."""
    count = 1 if channels == "L" else 3
    resize = {"shorter": 40, "squash": 30}.get(mode, 32)
    made = Preprocess(24, 32, resize, "bicubic", MEAN[:count], STD[:count], mode, channels)
    kept = made.resized(picture(width, height))
    np.testing.assert_array_equal(np.asarray(made.resized(kept)), np.asarray(kept))
    np.testing.assert_array_equal(made.apply(kept), made.apply(picture(width, height)))
    assert made.apply(kept).shape == (24, 32, count)


def test_channels() -> None:
    image = picture(50, 41)
    colour = RIGHT.apply(image)
    turned = replace(RIGHT, channels="BGR").apply(image)
    np.testing.assert_array_equal(turned, colour[..., ::-1])
    assert turned.flags.c_contiguous
    grey = replace(RIGHT, channels="L", mean=(0.5,), std=(0.5,))
    luma = np.asarray(image.convert("RGB"), np.float64) @ (0.299, 0.587, 0.114)
    straight = grey.apply(image.resize((53, 44)))[..., 0].astype(float)
    assert straight.shape == (24, 32)
    flat = replace(grey, height=41, width=50, resize=41, mode="squash").apply(image)
    assert np.abs(flat[..., 0] - luma).max() <= 1, "Rec. 601"
    dark = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    same = replace(grey, height=16, width=16, resize=16).apply(dark)
    np.testing.assert_array_equal(same[..., 0], np.asarray(dark), "what is grey stays what it is")


def test_padding_of_a_grey_network_is_the_colour_in_grey() -> None:
    made = Preprocess(8, 8, 8, "nearest", (0.5,), (0.5,), "letterbox", "L", (255, 0, 0))
    assert made.apply(Image.new("RGB", (8, 2), (255, 255, 255)))[..., 0].tolist()[0] == [76] * 8


def test_old_records_are_what_they_were(tmp_path: Path) -> None:
    old = Preprocess.from_json(OLD)
    assert old.to_json() == OLD
    assert old.digest == sha256_json(OLD)
    assert (old.mode, old.channels, old.version) == ("shorter", "RGB", 1)
    now = replace(old, version=2)
    assert now.digest != old.digest
    image = picture(40, 300)
    once = image.resize((34, 34 * 300 // 40), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.asarray(old.resized(image)), np.asarray(once))


def test_a_shape_that_takes_gigabytes_is_refused(tmp_path: Path) -> None:
    strip = tmp_path / "strip.png"
    Image.new("L", (1, 8000)).save(strip)
    for made in (
        replace(RIGHT, height=224, width=224, resize=256),
        replace(RIGHT, mode="squash", height=9000, width=9000, resize=9000),
    ):
        with pytest.raises(DataError, match="1x8000") as caught:
            made.apply(strip)
        assert str(MOST_PIXELS) in str(caught.value)
    assert replace(BOXED, mode="longest").apply(strip).shape == (24, 32, 3)


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"mode": "fit"}, "unknown mode 'fit'"),
        ({"channels": "GRAY"}, "unknown channels 'GRAY'"),
        ({"channels": "L"}, "one value each"),
        ({"mode": "letterbox"}, "leave resize out: it is 32"),
        ({"mode": "squash", "resize": 23}, "does not fit"),
        ({"pad": (0, 0, 256)}, "no colour"),
        ({"version": 4}, "version 4"),
        ({"version": 1, "mode": "squash"}, "version 1"),
    ],
)
def test_definitions_that_mean_nothing(changes: dict[str, Any], hint: str) -> None:
    with pytest.raises(DataError, match=hint):
        replace(RIGHT, **changes)


@pytest.mark.parametrize("array", [np.zeros((3, 4, 2), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)])
def test_arrays_that_are_no_images(array: np.ndarray) -> None:
    with pytest.raises(DataError, match="is no image"):
        RIGHT.feeds(array)


def test_an_open_image_is_turned_as_its_file_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(40, 24).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        np.testing.assert_array_equal(RIGHT.feeds(image)["image"], RIGHT.feeds(tmp_path / "turned.png")["image"])


def test_what_a_user_writes(tmp_path: Path) -> None:
    record = {"height": 24, "width": 32, "mode": "squash", "interpolation": "bilinear", "mean": MEAN, "std": STD}
    (tmp_path / "p.json").write_text(json.dumps(record))
    assert read_input(tmp_path / "p.json") == replace(RIGHT, mode="squash", resize=24)
    lines = [f"{name} = {json.dumps(value)}" for name, value in {**record, "channels": "BGR", "resize": 30}.items()]
    (tmp_path / "p.toml").write_text("\n".join(lines))
    assert read_input(tmp_path / "p.toml") == replace(RIGHT, mode="squash", resize=30, channels="BGR")
    (tmp_path / "whole.json").write_text(json.dumps(BOXED.to_json()))
    assert read_input(tmp_path / "whole.json") == BOXED


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ('{"height": 24', "neither JSON nor TOML"),
        ("[1, 2]", "holds no fields"),
        ('{"heigth": 24}', "unknown field heigth"),
        ('{"kind": "image", "height": 24}', "malformed"),
        ('{"kind": "sound"}', "unknown kind of input 'sound'"),
    ],
)
def test_what_a_user_writes_wrongly(tmp_path: Path, content: str, hint: str) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises((DataError, UnknownNameError), match=hint):
        read_input(tmp_path / "p.json")
    with pytest.raises(DataError, match="cannot read"):
        read_input(tmp_path / "gone.json")


@pytest.mark.parametrize("channels", ["RGB", "BGR", "L"])
def test_the_graph_normalises_as_many_channels_as_there_are(channels: str) -> None:
    torch = pytest.importorskip("torch", reason="torch (edgetl[train]) makes the graph")
    from edgetl.transfer.model import Normalise

    count = 1 if channels == "L" else 3
    made = replace(RIGHT, channels=channels, mean=MEAN[:count], std=STD[:count])
    batch = made.batch([picture(50, 41), picture(20, 90)])["image"]
    (planes,) = Normalise(made)(torch.from_numpy(batch))
    found = planes.numpy()
    expected = (batch / 255 - np.array(made.mean)) / np.array(made.std)
    np.testing.assert_allclose(found, expected.transpose(0, 3, 1, 2), atol=1e-5)
