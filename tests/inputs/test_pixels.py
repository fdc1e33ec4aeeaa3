"""Pixels as cameras, scanners and programs write them: depths, odd EXIF, shapes, formats; the same in every Pillow."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgetl.base.errors import DataError
from edgetl.base.storage import sha256_bytes
from edgetl.inputs import Preprocess, load_dataset
from edgetl.inputs.formats import RAW_SUFFIXES
from edgetl.inputs.pictures import MOST_DECODED, decode, fingerprint
from tests.conftest import ROOT, paint

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RIGHT = Preprocess(24, 32, 40, "bilinear", MEAN, STD)


def smooth(width: int, height: int) -> np.ndarray:
    """Brightness from 0 to 1, float64 (h, w), of which every value is taken."""
    return np.add.outer(np.linspace(0, 0.5, height), np.linspace(0, 0.5, width))


def saved(values: np.ndarray, path: Path) -> Path:
    Image.fromarray(values).save(path)
    return path


# Depths


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_greys_are_scaled_by_what_they_hold(tmp_path: Path, bits: int, suffix: str) -> None:
    brightness = smooth(60, 40)
    deep = np.rint(brightness * (2**bits - 1)).astype(np.uint16)
    found = np.asarray(decode(saved(deep, tmp_path / f"deep.{suffix}")))
    expected = np.rint(brightness * 255).astype(int)
    assert np.abs(found[..., 0] - expected).max() <= 1
    assert (found == found[..., :1]).all()
    apart = np.asarray(RIGHT.apply(tmp_path / f"deep.{suffix}"), int)
    plain = np.asarray(RIGHT.apply(saved(expected.astype(np.uint8), tmp_path / "plain.png")), int)
    assert np.abs(apart - plain).max() <= 1
    with Image.open(tmp_path / f"deep.{suffix}") as image:
        np.testing.assert_array_equal(RIGHT.feeds(image)["image"][0], apart, err_msg="what a program opened")


def test_older_definitions_keep_their_pixels(tmp_path: Path) -> None:
    deep = np.rint(smooth(60, 40) * 4095).astype(np.uint16)
    file = saved(deep, tmp_path / "deep.png")
    for version in (1, 2):
        old = replace(RIGHT, version=version)
        expected = old.apply(Image.fromarray((deep >> 8).astype(np.uint8)))
        np.testing.assert_array_equal(old.apply(file), expected)
        assert old.digest != RIGHT.digest
    assert RIGHT.to_json()["version"] == 3, "the digest names the rule"


def test_fractions_go_from_0_to_1_or_are_refused(tmp_path: Path) -> None:
    brightness = smooth(60, 40).astype(np.float32)
    found = np.asarray(decode(saved(brightness, tmp_path / "f.tif")))
    np.testing.assert_array_equal(found[..., 0], np.rint(brightness * np.float32(255)))
    for spoilt, words in (
        (brightness * 255, "from 0 to 255"),
        (brightness - 0.5, "from -0.5"),
        (brightness * np.nan, "nan"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            decode(saved(spoilt, tmp_path / "bad.tif"))
        assert str(tmp_path / "bad.tif") in str(caught.value)
    with pytest.raises(DataError, match="no grey of 16 bits"):
        decode(saved((brightness * 1e6).astype(np.int32), tmp_path / "i.tif"))
    with pytest.raises(DataError, match="the image holds numbers"), Image.open(tmp_path / "i.tif") as image:
        RIGHT.feeds(image)


def png(head: bytes, body: bytes) -> bytes:
    """A PNG file of this header, whatever it announces, and body."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def sixteen_bit_png(path: Path, values: np.ndarray) -> Path:
    """A PNG of 16 bits for each of three colours, which Pillow does not write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    path.write_bytes(png(struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0), zlib.compress(rows)))
    return path


def test_colours_of_16_bits_that_hold_12_are_refused(tmp_path: Path) -> None:
    colours = np.stack([smooth(20, 10)] * 3, axis=2)
    whole = sixteen_bit_png(tmp_path / "whole.png", np.rint(colours * 65535).astype(np.uint16))
    np.testing.assert_array_equal(np.asarray(decode(whole)), np.rint(colours * 65535).astype(np.uint16) >> 8)
    for top in (4095, 1023):
        with pytest.raises(DataError, match="colours of 16 bits"):
            decode(sixteen_bit_png(tmp_path / "part.png", np.rint(colours * top).astype(np.uint16)))
    black = sixteen_bit_png(tmp_path / "black.png", np.zeros((10, 20, 3), np.uint16))
    assert np.asarray(decode(black)).max() == 0


def test_what_is_done_to_depths_and_transparency_is_said(tmp_path: Path) -> None:
    for hue, name in enumerate(("a", "b")):
        for index in range(12):
            paint(tmp_path / name / f"{index}.png", hue, index, (9, 8))
    deep = np.random.default_rng(0).integers(0, 4096, (9, 8), dtype=np.uint16)
    saved(deep, tmp_path / "a" / "deep.png")
    for index in range(2):
        clear = np.random.default_rng(index).integers(0, 256, (9, 8, 4), dtype=np.uint8)
        saved(clear, tmp_path / "b" / f"clear{index}.png")
    assert load_dataset(tmp_path).notes == (
        "1 image: more than 8 bits of grey are read as 8, by the bits that each one's brightest pixel needs",
        "2 images: transparency is not seen, what lies under it is",
    )


# EXIF


def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")[:4]


def exif(*entries: bytes, tail: bytes = b"", orientation: bytes = entry(0x0112, 3, 1, b"\x06\0")) -> bytes:
    """An EXIF block with the orientation 6 and other tags, little-endian; ``tail`` lies behind the directory."""
    held = sorted([orientation, *entries], key=lambda raw: raw[:2][::-1])
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(held)) + b"".join(held) + b"\0\0\0\0" + tail


ODD_TAGS = {
    "none but the orientation": exif(),
    "text that is no ASCII": exif(entry(0x010F, 2, 4, b"\xff\xfe\xe9\0")),
    "text as numbers": exif(entry(0x010F, 3, 1, b"\x07\0")),
    "numbers as text": exif(entry(0x0100, 2, 4, b"abc\0")),
    "a value of no bytes": exif(entry(0x0110, 2, 0, b"")),
    "a value outside the block": exif(entry(0x010E, 2, 4000, struct.pack("<I", 60000))),
    "a length of gigabytes": exif(entry(0x010E, 7, 0xFFFFFFFF, struct.pack("<I", 8))),
    "a type that does not exist": exif(entry(0x0131, 77, 1, b"abcd")),
    "the type 0": exif(entry(0x0131, 0, 1, b"abcd")),
    "a fraction over zero": exif(entry(0x011A, 5, 1, struct.pack("<I", 38)), tail=struct.pack("<II", 72, 0)),
    "a signed fraction as unsigned": exif(entry(0x011A, 10, 1, struct.pack("<I", 38)), tail=struct.pack("<ii", -1, 3)),
    "a float for a date": exif(entry(0x0132, 11, 1, struct.pack("<f", float("nan")))),
    "a directory that leads to itself": exif(entry(0x8769, 4, 1, struct.pack("<I", 8))),
    "a directory outside the block": exif(entry(0x8769, 4, 1, struct.pack("<I", 1 << 20))),
    "a place that is text": exif(entry(0x8825, 2, 4, b"GPS\0")),
    "two orientations": exif(entry(0x0112, 3, 1, b"\x06\0")),
    "an unknown tag of many numbers": exif(entry(0xFEED, 3, 9, struct.pack("<I", 38)), tail=bytes(18)),
    "bytes as a version": exif(entry(0x9000, 3, 2, b"02\0\0")),
    "a user's comment as text": exif(entry(0x9286, 2, 4, b"hey\0")),
    "a negative width": exif(entry(0x0100, 9, 1, struct.pack("<i", -5))),
    "a negative unit": exif(entry(0x0128, 8, 1, struct.pack("<h", -1))),
    "a width with a fraction": exif(entry(0x0100, 11, 1, struct.pack("<f", 0.5))),
    "a resolution as text": exif(entry(0x011A, 2, 3, b"72\0")),
    "a model as bytes": exif(entry(0x0110, 7, 4, b"abc\0")),
    "a fraction for a model": exif(entry(0x0110, 5, 1, struct.pack("<I", 38)), tail=struct.pack("<II", 1, 3)),
    "a block cut off": exif(entry(0x010E, 2, 4, b"abc\0"))[:-4],
    "a long orientation": exif(orientation=entry(0x0112, 4, 1, b"\x06\0\0\0")),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ODD_TAGS)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_odd_tags_do_not_damage_a_photograph(tmp_path: Path, name: str, suffix: str) -> None:
    picture = Image.fromarray((smooth(40, 24) * 255).astype(np.uint8)).convert("RGB")
    options: dict[str, Any] = (
        {"exif": ODD_TAGS[name], "lossless": True} if suffix == "webp" else {"exif": ODD_TAGS[name]}
    )
    picture.save(tmp_path / f"odd.{suffix}", **options)
    picture.save(tmp_path / f"plain.{suffix}", **{**options, "exif": b""})
    plain = decode(tmp_path / f"plain.{suffix}")
    found = decode(tmp_path / f"odd.{suffix}")
    np.testing.assert_array_equal(np.asarray(found), np.asarray(plain.transpose(Image.Transpose.ROTATE_270)))
    with Image.open(tmp_path / f"odd.{suffix}") as image:
        np.testing.assert_array_equal(RIGHT.feeds(image)["image"][0], RIGHT.apply(tmp_path / f"odd.{suffix}"))


@pytest.mark.parametrize("block", [b"Exif\0\0", b"Exif\0\0XX*\0junk", b"Exif\0\0II*\0\xff\xff\xff\xff", b"nothing"])
def test_tags_that_are_none_say_nothing(tmp_path: Path, block: bytes) -> None:
    picture = Image.fromarray((smooth(40, 24) * 255).astype(np.uint8))
    picture.save(tmp_path / "odd.png", exif=block)
    np.testing.assert_array_equal(np.asarray(decode(tmp_path / "odd.png"))[..., 0], np.asarray(picture))


# Shapes and memory


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_thin_picture_is_refused_before_it_takes_memory(tmp_path: Path, version: int) -> None:
    strip = tmp_path / "strip.png"
    Image.new("L", (1, 8000)).save(strip, optimize=True)
    assert strip.stat().st_size < 130
    made = replace(RIGHT, height=224, width=224, resize=256, version=version)
    with pytest.raises(DataError, match=r"1x8000 pixels.*makes too many to hold"):
        made.apply(strip)


def test_what_a_header_announces_is_not_believed_beyond_a_limit(tmp_path: Path) -> None:
    side = int(MOST_DECODED**0.5) + 1
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    (tmp_path / "large.png").write_bytes(png(head, b""))
    for attempt in (decode, fingerprint, RIGHT.apply):
        with pytest.raises(DataError, match=f"{side}x{side} pixels: shrink it; {MOST_DECODED} are the most"):
            attempt(tmp_path / "large.png")
    (tmp_path / "huge.png").write_bytes(png(struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0), b""))
    with pytest.raises(DataError, match=r"huge\.png has too many pixels"):
        decode(tmp_path / "huge.png")


def test_a_fingerprint_is_of_all_pixels_and_makes_no_copy(tmp_path: Path) -> None:
    picture = Image.effect_noise((2100, 1500), 90).convert("RGB")
    picture.save(tmp_path / "a.png", compress_level=1)
    tracemalloc.start()
    found = fingerprint(tmp_path / "a.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == sha256_bytes(f"{picture.size}".encode() + picture.tobytes())
    assert peak < picture.width * picture.height * 3, "its bytes are never in one piece"


# Every Pillow since 10

#: SHA-256 of what :data:`SCRIPT` prints, with Pillow 10.4, 11.3, 12.2 and 13.0.
GOLDEN = "ce68076bb96b7daab805e354dcece0dd6740aed3a01573c2707c8bcec6481a91"
SCRIPT = """
import hashlib, sys
import numpy as np
from PIL import Image
from edgetl.inputs import Preprocess

digest = hashlib.sha256()
draw = np.random.default_rng(7)
for mode in ("shorter", "squash", "letterbox", "longest"):
    for interpolation in ("nearest", "bilinear", "bicubic", "lanczos"):
        for channels in ("RGB", "L"):
            count = 1 if channels == "L" else 3
            resize = {"shorter": 40, "squash": 30}.get(mode, 32)
            made = Preprocess(24, 32, resize, interpolation, (0.5,) * count, (0.5,) * count, mode, channels)
            for width, height in ((40, 30), (9, 170), (170, 9), (33, 301), (301, 33), (64, 1000), (5, 5)):
                picture = Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
                digest.update(made.apply(picture).tobytes())
print(digest.hexdigest())
"""


def test_pixels_are_the_same_in_every_pillow() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == GOLDEN


# Formats


FORMATS = {
    "a.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture", "convert it to JPEG or PNG"),
    "b.heif": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC picture", "convert it to JPEG or PNG"),
    "c.jpg": (b"\0\0\0\x18ftypheix" + bytes(90), "a HEIC picture", "convert it to JPEG or PNG"),
    "d.svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing", "draw it as PNG"),
    "e.svg": (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- x -->\n<svg/>', "an SVG drawing", "draw it as PNG"),
    "f.dcm": (bytes(128) + b"DICM" + bytes(40), "a DICOM file", "convert it to PNG"),
    "g.cr3": (b"\0\0\0\x18ftypcrx ", "a camera's raw file", "develop it"),
    "h.jpg": (b"FUJIFILMCCD-RAW 0201", "a camera's raw file", "develop it"),
    "i.mov": (b"\0\0\0\x14ftypqt  ", "a film", "take pictures out of it"),
    "j.jxl": (b"\xff\x0a" + bytes(9), "a JPEG XL picture", "convert it"),
    "k.exr": (b"v/1\x01" + bytes(9), "an OpenEXR picture", "convert it"),
    "l.png": (b"words", "is not an image", "remove it"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_has_its_words(tmp_path: Path, name: str) -> None:
    content, words, remedy = FORMATS[name]
    (tmp_path / name).write_bytes(content)
    for attempt in (decode, fingerprint, RIGHT.feeds):
        with pytest.raises(DataError) as caught:
            attempt(tmp_path / name)
        assert f"{tmp_path / name} is" in str(caught.value)
        assert words in caught.value.what
        assert remedy in caught.value.remedy


def test_a_raw_file_is_not_taken_for_its_small_picture(tmp_path: Path) -> None:
    """Pillow opens most of them as TIFF, and finds a thumbnail."""
    small = io.BytesIO()
    Image.new("RGB", (16, 12)).save(small, "TIFF")
    for suffix in sorted(RAW_SUFFIXES):
        file = tmp_path / f"photo{suffix.upper()}"
        file.write_bytes(small.getvalue())
        with pytest.raises(DataError, match="a camera's raw file"):
            decode(file)
    with pytest.raises(DataError, match="there is no image"):
        decode(tmp_path / "gone.dng")
