"""A bundle that is watched at work: pictures as they were certified, and others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

import edgetl
from edgetl.base.errors import BundleError, DataError
from edgetl.core.bundle import SKETCH, load_bundle
from edgetl.core.sketch import Sketch
from edgetl.runtime.characteristics import of_input, of_outputs
from edgetl.runtime.releases import install
from edgetl.tasks import find_task
from tests.conftest import paint

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def as_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures from where those of the tiny run are from."""
    folder = tmp_path_factory.mktemp("today")
    for index in range(60):
        paint(folder / f"{index:03d}.png", index % 3, 1000 + index)
    return folder


@pytest.fixture(scope="module")
def blurred(as_before: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blurred")
    for file in as_before.iterdir():
        with Image.open(file) as picture:
            picture.filter(ImageFilter.GaussianBlur(2)).save(folder / file.name)
    return folder


def test_pictures_as_certified_and_blurred_ones(edgetl: Cli, tiny_bundle: Path, as_before: Path, blurred: Path) -> None:
    done = edgetl("monitor", tiny_bundle, "--images", as_before, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["alarm"], record["alarm_at"], record["file"], record["n"]) == (False, None, None, 60)
    assert record["evidence"] < record["threshold"] == 200
    assert {entry["name"] for entry in record["departures"]} == {
        "brightness", "contrast", "sharpness", "colour", "class", "confidence", "margin",
    }  # fmt: skip

    done = edgetl("monitor", tiny_bundle, "--images", blurred, "--json", "--alpha", "0.05")
    assert done.returncode == 3, done.stderr
    record = json.loads(done.stdout)
    assert record["alarm"]
    assert record["file"] == str(sorted(blurred.iterdir())[record["alarm_at"] - 1])
    assert record["departures"][0]["name"] in ("sharpness", "contrast", "colour")
    assert "does not speak of them" in record["sentence"]

    said = edgetl("monitor", tiny_bundle, "--images", blurred)
    assert "sharpness" in said.stdout
    assert "does not speak of them" in said.stdout


def test_a_program_that_watches_while_it_answers(tiny_bundle: Path, as_before: Path, blurred: Path) -> None:
    with edgetl.Monitor(tiny_bundle, alpha=0.05) as monitor:
        model = edgetl.load_bundle(tiny_bundle)
        for file in sorted(as_before.iterdir())[:20]:
            assert monitor.predict(file) == model.predict(file)
        assert not monitor.alarm
        assert "20 images seen" in monitor.sentence
        for file in sorted(blurred.iterdir()):
            monitor.predict(file)
        assert monitor.alarm
        assert monitor.test.alarm_at is not None
        assert monitor.test.alarm_at > 20
    again = edgetl.monitor(tiny_bundle, [*sorted(as_before.iterdir())[:20], *sorted(blurred.iterdir())], alpha=0.05)
    assert again.alarm_at == monitor.test.alarm_at


def test_the_sketch_holds_no_samples_in_order(tiny_bundle: Path) -> None:
    bundle = load_bundle(tiny_bundle)
    sketch = bundle.sketch
    assert sketch is not None
    assert sketch.n == len(bundle.dataset.split("certify"))
    assert all(list(values) == sorted(values) for values in sketch.values.values())


def test_a_release_has_it(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    installed = install(load_bundle(tiny_bundle), "camera")
    assert load_bundle(Path(installed.path)).sketch == load_bundle(tiny_bundle).sketch


def test_a_bundle_without_and_with_anothers(edgetl: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (bundle / SKETCH).unlink()
    done = edgetl("monitor", bundle, "--images", tmp_path)
    assert done.returncode == 2
    assert "edgetl verify BUNDLE --data DATA" in done.stderr
    record = json.loads((tiny_bundle / SKETCH).read_text())
    (bundle / SKETCH).write_text(json.dumps({**record, "n": 3}))
    with pytest.raises(BundleError, match=r"sketch\.json"):
        load_bundle(bundle).sketch  # noqa: B018
    load_bundle(bundle).write_record(SKETCH, {"schema": 1, "n": 2, "values": {"brightness": [2, 1]}})
    with pytest.raises(BundleError, match="no sketch"):
        load_bundle(bundle).sketch  # noqa: B018


def test_no_samples(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        edgetl.monitor(tiny_bundle, tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no image"):
        edgetl.monitor(tiny_bundle, tmp_path)


def test_characteristics_of_each_task() -> None:
    logits = np.array([[3, 1, -1], [-2, -2, -2]], np.float32)
    found = of_outputs(find_task("classification"), {"logits": logits})
    assert found["class"].tolist() == [0, 0]
    assert found["margin"].tolist() == [2, 0]
    assert found["confidence"][1] == pytest.approx(1 / 3)
    several = of_outputs(find_task("multi-label"), {"logits": logits})
    assert several["present"].tolist() == [2, 0]
    assert of_outputs(find_task("regression"), {"values": np.array([[2.5]], np.float32)})["value"].tolist() == [2.5]
    both = of_outputs(
        find_task("tree:classification+age:regression"), {"tree": logits, "age": np.ones((2, 1), np.float32)}
    )
    assert set(both) == {"tree.class", "tree.confidence", "tree.margin", "age.value"}


def test_characteristics_of_each_input() -> None:
    grey = np.full((1, 8, 8, 3), 100, np.uint8)
    assert of_input({"image": grey}) == pytest.approx(
        {"brightness": 100, "contrast": 0, "sharpness": 0, "colour": 0}, abs=1e-9
    )
    noisy = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)
    assert of_input({"image": noisy})["sharpness"] > 4
    assert of_input({"image": np.zeros((1, 1, 1, 3), np.uint8)})["sharpness"] == 0
    assert of_input({"x": np.array([[1, 3]], np.float32)}) == {"x mean": 2, "x spread": 1}
    assert of_input({"x": np.array([[np.nan]], np.float32)}) == {"x mean": 0, "x spread": 0}


def test_a_sketch_from_json_is_checked() -> None:
    assert Sketch(2, {"a": (1.0, 1.0)}).schema == 1
