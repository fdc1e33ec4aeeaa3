from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from edgetl.base.errors import CertifyError, DataError, UnknownNameError
from edgetl.robustness import CORRUPTIONS, SEVERITIES, corrupted, write_corrupted


def scene(side: int = 96) -> Image.Image:
    """Edges, a gradient and texture, dark enough that brighter is possible."""
    rng = np.random.default_rng(4)
    x, y = np.meshgrid(np.arange(side + 20), np.arange(side))
    picture = np.stack([x, y, (x + y) / 2], axis=-1) * 120 / side + rng.normal(0, 8, (side, side + 20, 3))
    picture[side // 4 : side // 2, side // 3 : side // 2] += 90
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    scene().save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def distance(first: Image.Image, second: Image.Image) -> float:
    return float(np.abs(np.asarray(first, float) - np.asarray(second, float)).mean())


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("side", [8, 96, 300])
def test_each_severity_is_further_from_the_clean_image(name: str, side: int, tmp_path: Path) -> None:
    scene(side).save(tmp_path / "photo.png")
    clean = Image.open(tmp_path / "photo.png")
    distances = [distance(corrupted(tmp_path / "photo.png", name, severity), clean) for severity in SEVERITIES]
    assert distances[0] > 0
    if name == "jpeg" and side == 8:
        # A handful of blocks may come out nearer at a lower quality by chance.
        distances = [distances[0], distances[-1]]
    assert all(near < far for near, far in itertools.pairwise(distances))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_file_gives_the_same_pixels_wherever_it_lies(name: str, photo: Path, tmp_path: Path) -> None:
    shutil.copy(photo, tmp_path / "copy of it.png")
    first, second = corrupted(photo, name, 3), corrupted(tmp_path / "copy of it.png", name, 3)
    assert first.tobytes() == second.tobytes()


def test_noise_differs_between_images_and_severities_and_has_the_deviation_it_says(tmp_path: Path) -> None:
    drawn = []
    for index in range(2):
        picture = np.full((64, 64, 3), 128, np.uint8)
        picture[0, 0] = index
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
        for severity in (1, 2):
            drawn.append(np.asarray(corrupted(tmp_path / f"{index}.png", "noise", severity), float)[1:] - 128)
    for found, expected in zip(drawn, (0.08, 0.12, 0.08, 0.12), strict=True):
        assert found.std() == pytest.approx(255 * expected, rel=0.03)
    standard = [found.ravel() / found.std() for found in drawn]
    assert all(abs(np.corrcoef(standard)[i, j]) < 0.05 for i in range(4) for j in range(i))


def test_blur_grows_with_the_image(tmp_path: Path) -> None:
    """A bright line spreads to the same share of a picture of any size."""
    spread = []
    for side in (112, 448):
        picture = np.zeros((side, side), np.uint8)
        picture[:, side // 2 - side // 112 : side // 2 + side // 112] = 255
        Image.fromarray(picture).save(tmp_path / f"{side}.png")
        profile = np.asarray(corrupted(tmp_path / f"{side}.png", "blur", 5), float)[side // 2, :, 0]
        place = (np.arange(side) - side / 2 + 0.5) / side
        spread.append(np.sqrt((profile * place**2).sum() / profile.sum()))
    assert spread[0] == pytest.approx(spread[1], rel=0.03)
    assert spread[1] == pytest.approx(6 / 224, rel=0.05)


def test_brightness_and_contrast_follow_their_definitions(photo: Path) -> None:
    clean = np.asarray(Image.open(photo), float)
    brighter = np.asarray(corrupted(photo, "brightness", 5), float)
    assert np.abs(brighter - np.clip(2 * clean, 0, 255)).max() <= 1
    flat = np.asarray(corrupted(photo, "contrast", 1), float)
    grey = (clean @ [0.299, 0.587, 0.114]).mean()
    assert np.abs(flat - (0.4 * clean + 0.6 * grey)).max() <= 1.5


def test_torchvision_agrees(photo: Path) -> None:
    functional = pytest.importorskip("torchvision.transforms.v2.functional", reason="compared with torchvision")
    clean = Image.open(photo)
    sigma = 4 * 96 / 224
    for name, severity, theirs, within in (
        ("blur", 4, functional.gaussian_blur(clean, [13, 13], [sigma, sigma]), 1.0),
        ("jpeg", 2, functional.jpeg(clean, 18), 1.0),
        ("brightness", 3, functional.adjust_brightness(clean, 1.6), 0.5),
        ("contrast", 5, functional.adjust_contrast(clean, 0.05), 0.5),
    ):
        ours = corrupted(photo, name, severity)
        assert distance(ours, theirs) < within
        assert distance(ours, clean) > 5 * distance(ours, theirs)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_kind_of_image_keeps_its_size_and_becomes_rgb(name: str, mode: str, tmp_path: Path) -> None:
    file = tmp_path / ("image.tiff" if mode == "CMYK" else "image.png")
    wide = np.asarray(scene(40).convert("L"), np.uint16) << 8
    (Image.fromarray(wide) if mode == "I;16" else scene(40).convert(mode)).save(file)
    made = corrupted(file, name, 4)
    assert (made.mode, made.size) == ("RGB", (60, 40))
    if mode in ("L", "I;16") and name != "noise":
        pixels = np.asarray(made, int)
        assert np.abs(pixels - pixels[..., :1]).max() <= 2


def test_one_pixel_is_an_image_too(tmp_path: Path) -> None:
    Image.new("RGB", (1, 3), (90, 10, 200)).save(tmp_path / "dot.png")
    for name in CORRUPTIONS:
        assert corrupted(tmp_path / "dot.png", name, 5).size == (1, 3)


def test_written_files_hold_exactly_the_corrupted_pixels_in_order(photo: Path, tmp_path: Path) -> None:
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[274] = 6
    scene().save(turned, exif=exif)
    folder = tmp_path / "out"
    folder.mkdir()
    paths = [photo, turned, photo]
    for name in CORRUPTIONS:
        files = write_corrupted(paths, name, 2, folder)
        assert len({file.name for file in files}) == 3
        for path, file in zip(paths, files, strict=True):
            with Image.open(file) as stored:
                assert stored.format == "PNG"
                assert stored.tobytes() == corrupted(path, name, 2).tobytes()
                assert stored.size == ImageOps.exif_transpose(Image.open(path)).size
    assert Image.open(files[1]).size == (96, 116)


def test_unknown_names_severities_and_broken_files_are_refused(photo: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean blur"):
        corrupted(photo, "blurr", 1)
    with pytest.raises(CertifyError, match="no severity 6"):
        corrupted(photo, "blur", 6)
    (tmp_path / "broken.png").write_bytes(photo.read_bytes()[:200])
    with pytest.raises(DataError, match=r"broken\.png"):
        write_corrupted([photo, tmp_path / "broken.png"], "jpeg", 1, tmp_path)
