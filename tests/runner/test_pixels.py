"""The runner's pixels are Python's, byte for byte: any size, filter, mode and order of channels, any JPEG and PNG."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgetl.base.errors import DataError
from edgetl.inputs.image import CHANNELS, INTERPOLATIONS, MODES, Preprocess
from tests.runner import ugly
from tests.runner.built import Runner, pixel_bundle

HALF = (0.5, 0.5, 0.5)


def definition(**changes: Any) -> Preprocess:
    values = {"height": 24, "width": 32, "resize": 36, "interpolation": "bicubic", **changes}
    count = CHANNELS[values.get("channels", "RGB")]
    if values.get("mode") in ("letterbox", "longest"):
        values["resize"] = max(values["height"], values["width"])
    return Preprocess(**{"mean": HALF[:count], "std": HALF[:count], **values})


def expected(preprocess: Preprocess, path: Path) -> str | None:
    """SHA-256 of what Python makes of a picture; None where it refuses it."""
    try:
        return hashlib.sha256(preprocess.feeds(path)["image"].tobytes()).hexdigest()
    except DataError:
        return None


def written(folder: Path, files: Iterable[tuple[str, bytes]]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in files:
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    return paths


@st.composite
def definitions(draw: st.DrawFn) -> Preprocess:
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    mode = draw(st.sampled_from(MODES))
    least = min(height, width) if mode == "squash" else max(height, width)
    return definition(
        height=height,
        width=width,
        resize=least + draw(st.integers(0, 30)),
        interpolation=draw(st.sampled_from(INTERPOLATIONS)),
        mode=mode,
        channels=draw(st.sampled_from(sorted(CHANNELS))),
        pad=draw(st.tuples(*[st.integers(0, 255)] * 3)),
    )


SIDES = st.one_of(st.integers(1, 40), st.integers(1, 400))


@given(definitions(), st.lists(st.tuples(SIDES, SIDES, st.integers(0, 9)), min_size=3, max_size=6))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_size_filter_and_mode(
    runner: Runner, tmp_path_factory: pytest.TempPathFactory, preprocess: Preprocess, shapes: list[tuple[int, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("drawn")
    files = (
        (f"{i}.png", ugly.saved(_picture(width, height, seed), "PNG", compress_level=1))
        for i, (width, height, seed) in enumerate(shapes)
    )
    paths = written(folder / "pictures", files)
    found = runner.pixels(pixel_bundle(folder / "bundle", preprocess).path, paths)
    assert found == [expected(preprocess, path) for path in paths]


def _picture(width: int, height: int, seed: int) -> Any:
    """Noise of every brightness, of black and white alone, or something like a photograph."""
    rng = np.random.default_rng([width, height, seed])
    if seed % 3 == 0:
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if seed % 3 == 1:
        return rng.integers(0, 2, (height, width, 3), dtype=np.uint8) * np.uint8(255)
    return ugly.noise(width, height, seed)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mode": "letterbox", "interpolation": "lanczos", "pad": (10, 200, 90), "channels": "BGR"},
        {"mode": "squash", "interpolation": "bilinear", "channels": "L"},
        {"mode": "longest", "interpolation": "nearest", "pad": (255, 0, 7)},
        {"version": 2},
    ],
    ids=["shorter", "letterbox", "squash", "longest", "version-2"],
)
def test_every_kind_of_file(runner: Runner, tmp_path: Path, changes: dict[str, Any]) -> None:
    preprocess = definition(**changes)
    paths = written(tmp_path / "pictures", (*ugly.jpegs(), *ugly.pngs(), *ugly.damaged()))
    found = runner.pixels(pixel_bundle(tmp_path / "bundle", preprocess).path, paths)
    wanted = [expected(preprocess, path) for path in paths]
    other = {path.name: pair for path, *pair in zip(paths, found, wanted, strict=True) if pair[0] != pair[1]}
    assert not other
    assert len(set(filter(None, found))) > 50


def test_what_python_takes_and_c_refuses_is_a_list(runner: Runner, tmp_path: Path) -> None:
    paths = written(tmp_path / "pictures", ugly.refused())
    bundle = pixel_bundle(tmp_path / "bundle", definition()).path
    lines = runner.lines("--pixels", bundle, paths=paths)
    assert all(expected(definition(), path) for path in paths)
    assert [line.get("status") for line in lines] == [5] * len(paths)
    assert all(line["error"] for line in lines)


def test_fifty_megapixels(runner: Runner, tmp_path: Path) -> None:
    large = ugly.noise(100, 80).repeat(80, axis=0).repeat(80, axis=1)[:6250]
    paths = written(tmp_path / "pictures", [("large.jpg", ugly.saved(large, "JPEG", quality=85, exif=ugly.exif(6)))])
    preprocess = definition(height=224, width=224, resize=256)
    bundle = pixel_bundle(tmp_path / "bundle", preprocess).path
    assert runner.pixels(bundle, paths) == [expected(preprocess, path) for path in paths]
    (line,) = runner.lines("--pixels", "--max-pixels", 49_999_999, bundle, paths=paths)
    assert "50000000" in line["error"] or "8000x6250" in line["error"]


def test_arithmetic_coding(runner: Runner, tmp_path: Path) -> None:
    """Which no Pillow writes: libjpeg does."""
    program = tmp_path / "arithmetic"
    source = Path(__file__).with_name("arithmetic.c")
    subprocess.run(["cc", str(source), "-ljpeg", "-o", str(program)], check=True)
    paths = [tmp_path / f"{kind}.jpg" for kind in ("sequential", "progressive")]
    for path in paths:
        with path.open("wb") as stream:
            subprocess.run([str(program), path.stem], stdout=stream, check=True)
    bundle = pixel_bundle(tmp_path / "bundle", definition()).path
    found = runner.pixels(bundle, paths)
    assert found == [expected(definition(), path) for path in paths]
    assert all(found)


@given(st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_bring_it_down(runner: Runner, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    files = dict((*ugly.jpegs(), *ugly.pngs()))
    changed = []
    for index in range(12):
        content = bytearray(files[data.draw(st.sampled_from(sorted(files)))])
        for _ in range(data.draw(st.integers(1, 8))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        changed.append((f"{index}.bin", bytes(content)))
    paths = written(folder / "pictures", changed)
    assert len(runner.pixels(pixel_bundle(folder / "bundle", definition()).path, paths)) == len(paths)


def test_real_pictures(runner: Runner, real_data: Path, tmp_path: Path) -> None:
    paths = sorted((real_data / "imagenet-sample").rglob("*.jpg"))[:150]
    preprocess = definition(height=224, width=224, resize=256)
    found = runner.pixels(pixel_bundle(tmp_path / "bundle", preprocess).path, paths)
    assert found == [expected(preprocess, path) for path in paths]
