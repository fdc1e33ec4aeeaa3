"""One definition of preprocessing: equal to torchvision's to the last bit, for every kind of image file."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgetl.base.errors import DataError
from edgetl.inputs.image import INTERPOLATIONS, Preprocess
from edgetl.inputs.pictures import decode

HALF = (0.5, 0.5, 0.5)
SIZES = [
    (256, 256),
    (640, 480),
    (480, 640),
    (257, 301),
    (301, 257),
    (224, 1000),
    (33, 47),
    (47, 33),
    (255, 256),
    (1, 7),
]


def definition(**changes: Any) -> Preprocess:
    return Preprocess(
        **{"height": 224, "width": 224, "resize": 256, "interpolation": "bicubic", "mean": HALF, "std": HALF, **changes}
    )


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(height // 9, 1), max(width // 9, 1), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height)), dtype=np.int16)
    return Image.fromarray(np.clip(smooth + rng.integers(-40, 40, smooth.shape), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_equals_torchvision(interpolation: str, version: str) -> None:
    pytest.importorskip("torchvision", reason="torchvision (edgetl[train]) is the independent implementation")
    from torchvision.transforms import InterpolationMode, v2
    from torchvision.transforms import transforms as v1

    module = {"v1": v1, "v2": v2}[version]
    mode = InterpolationMode(interpolation)
    for resize, height, width in [(256, 224, 224), (255, 224, 224), (97, 64, 96), (96, 96, 33), (100, 77, 98)]:
        mine = definition(resize=resize, height=height, width=width, interpolation=interpolation)
        theirs = module.Resize(resize, interpolation=mode, antialias=True)
        for size in SIZES:
            image = picture(*size)
            at_once = theirs(image)
            # Width first, then height, as every Pillow did before 13; taken in one call, some tall pictures differ.
            wide = module.Resize((size[1], at_once.width), interpolation=mode, antialias=True)(image)
            scaled = module.Resize((at_once.height, at_once.width), interpolation=mode, antialias=True)(wide)
            assert np.abs(np.asarray(scaled, np.int16) - np.asarray(at_once)).max() <= 8, "rounded between the two"
            # torchvision's CenterCrop rounds halves to the even number; edgetl always rounds down.
            left, top = (scaled.width - width) // 2, (scaled.height - height) // 2
            expected = scaled.crop((left, top, left + width, top + height))
            np.testing.assert_array_equal(mine.apply(image), np.asarray(expected), err_msg=f"{size} {resize}")


@given(
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    resize=st.integers(1, 60),
    crop=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    interpolation=st.sampled_from(INTERPOLATIONS),
)
@settings(deadline=None, max_examples=150)
def test_every_image_takes_the_networks_shape(
    width: int, height: int, resize: int, crop: tuple[int, int], interpolation: str
) -> None:
    if resize < max(crop):
        with pytest.raises(DataError, match="does not fit"):
            definition(height=crop[0], width=crop[1], resize=resize)
        return
    mine = definition(height=crop[0], width=crop[1], resize=resize, interpolation=interpolation)
    image = Image.new("RGB", (width, height), (200, 10, 90))
    out = mine.apply(image)
    assert out.shape == (*crop, 3)
    assert out.dtype == np.uint8
    assert (out == (200, 10, 90)).all(), "the crop reaches outside the picture"
    assert min(mine.resized(image).size) == resize


@pytest.mark.parametrize(
    "changes",
    [
        {"interpolation": "cubic"},
        {"interpolation": "BICUBIC"},
        {"resize": 223},
        {"height": 0},
        {"width": -1},
        {"mean": (0.5, 0.5)},
        {"std": (0.5, 0.5, 0.0)},
        {"std": (0.5, -0.5, 0.5)},
        {"std": (math.nan, 0.5, 0.5)},
        {"mean": (math.inf, 0.5, 0.5)},
    ],
)
def test_definitions_that_mean_nothing(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError) as caught:
        definition(**changes)
    assert "\n" not in str(caught.value)


def test_round_trip_and_digest() -> None:
    first = definition(mean=(0.485, 0.456, 0.406))
    again = Preprocess.from_json(json.loads(json.dumps(first.to_json())))
    assert again == first
    assert again.digest == first.digest
    others = [
        {"height": 223},
        {"width": 223},
        {"resize": 257},
        {"interpolation": "bilinear"},
        {"mean": HALF},
        {"std": (0.5, 0.5, 0.25)},
    ]
    digests = {first.digest} | {definition(**{"mean": first.mean, **change}).digest for change in others}
    assert len(digests) == 7


@pytest.mark.parametrize(
    "change", [{"height": None}, {"height": "tall"}, {"height": math.inf}, {"mean": [1, 2]}, {"std": 3}]
)
def test_malformed_records(change: dict[str, Any]) -> None:
    record = definition().to_json()
    with pytest.raises(DataError):
        Preprocess.from_json({**record, **change})
    for name in ("height", "width", "resize", "interpolation", "mean", "std"):
        with pytest.raises(DataError, match="malformed"):
            Preprocess.from_json({key: value for key, value in record.items() if key != name})


def saved(image: Image.Image, path: Path, **options: Any) -> np.ndarray:
    image.save(path, **options)
    return np.asarray(decode(path))


def test_modes_become_rgb(tmp_path: Path) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    colour = np.stack([grey, grey.T, 255 - grey], axis=2)
    as_rgb = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(saved(Image.fromarray(grey), tmp_path / "l.png"), as_rgb)
    np.testing.assert_array_equal(saved(Image.fromarray(grey).convert("LA"), tmp_path / "la.png"), as_rgb)
    np.testing.assert_array_equal(saved(Image.fromarray(colour), tmp_path / "rgb.bmp"), colour)
    see_through = np.dstack([colour, np.where(grey > 99, 255, 0).astype(np.uint8)])
    np.testing.assert_array_equal(saved(Image.fromarray(see_through), tmp_path / "rgba.png"), colour)
    eight = Image.fromarray(colour).quantize(16)
    np.testing.assert_array_equal(saved(eight, tmp_path / "p.png"), np.asarray(eight.convert("RGB")))
    assert saved(Image.fromarray(grey > 99), tmp_path / "1.png").max() == 255
    inked = saved(Image.fromarray(colour).convert("CMYK"), tmp_path / "cmyk.tif")
    assert np.abs(inked.astype(int) - colour).max() <= 2


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bit_greys_keep_their_picture(tmp_path: Path, ending: str) -> None:
    deep = (np.arange(256, dtype=np.uint16).reshape(16, 16) << 8) + 77
    out = saved(Image.fromarray(deep), tmp_path / f"deep.{ending}")
    np.testing.assert_array_equal(out, np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, axis=2))


def test_exif_orientation_is_obeyed(tmp_path: Path) -> None:
    upright = picture(40, 24)
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    for orientation, turn in turns.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        out = saved(upright.transpose(turn), tmp_path / f"{orientation}.png", exif=exif)
        np.testing.assert_array_equal(out, np.asarray(upright), err_msg=str(orientation))


def test_apply_takes_open_images_of_any_mode(tmp_path: Path) -> None:
    mine = definition(height=16, width=16, resize=20)
    for mode in ("L", "RGBA", "P", "CMYK", "1", "I;16"):
        image = (
            picture(30, 40).convert("L").convert(mode)
            if mode != "I;16"
            else Image.fromarray(np.full((40, 30), 0x4000, np.uint16))
        )
        assert mine.apply(image).shape == (16, 16, 3), mode


def test_batch_is_the_files_in_order(tmp_path: Path) -> None:
    files = []
    for index in range(3):
        files.append(tmp_path / f"{index}.png")
        picture(30 + index, 40, seed=index).save(files[-1])
    mine = definition(height=16, width=12, resize=20)
    np.testing.assert_array_equal(mine.batch(files)["image"], np.stack([mine.apply(file) for file in files]))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    jpeg = io.BytesIO()
    picture(90, 90).save(jpeg, "JPEG")
    for name, content in {"cut.jpg": jpeg.getvalue()[:900], "text.jpg": b"hello", "void.png": b""}.items():
        (tmp_path / name).write_bytes(content)
    for name in ("cut.jpg", "text.jpg", "void.png", "gone.png"):
        with pytest.raises(DataError) as caught:
            definition().apply(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.data())
@settings(deadline=None, max_examples=300, derandomize=True)
def test_damaged_bytes_give_a_picture_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "ICO", "DDS", "JPEG2000"]))
    whole = io.BytesIO()
    picture(24, 31).save(whole, kind)
    content = bytearray(whole.getvalue())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, min(len(content) - 1, 200)))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.getbasetemp() / f"fuzzed.{kind.lower()}"
    file.write_bytes(content[: data.draw(st.integers(20, len(content)))])
    try:
        mode = decode(file).mode
    except DataError as error:
        mode = str(error)
    assert mode == "RGB" or (str(file) in mode and "\n" not in mode)


def test_a_header_no_decoder_supports(tmp_path: Path) -> None:
    """Pillow answers some headers with errors outside its documented ones."""
    whole = io.BytesIO()
    picture(8, 8).save(whole, "DDS")
    content = bytearray(whole.getvalue())
    content[80:84] = (4).to_bytes(4, "little")
    content[84:88] = b"ABCD"
    (tmp_path / "odd.dds").write_bytes(content)
    with pytest.raises(DataError, match=r"odd\.dds"):
        decode(tmp_path / "odd.dds")
