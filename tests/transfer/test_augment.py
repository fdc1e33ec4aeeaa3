"""How training images vary: presets, files of transforms, and what is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgetl.base.errors import EdgetlError
from edgetl.cli.journey.repeat import written
from edgetl.core.run import load_run
from edgetl.transfer.augment import PRESETS, Augmentation, check_augmentation, read_augmentation, transform_for, varied
from edgetl.transfer.definitions import preprocess_for
from edgetl.transfer.finetune import finetune
from edgetl.transfer.images import ImageStore

from .conftest import TINY

Cli = Callable[..., subprocess.CompletedProcess[str]]
FILE = """
[[step]]
name = "RandomRotation"
degrees = 20

[[step]]
name = "ColorJitter"
brightness = 0.5
hue = 0.1
"""


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("mirror_safe", [True, False])
def test_every_preset_gives_images_of_the_network_s_size_by_seed_alone(name: str, mirror_safe: bool) -> None:
    preprocess = preprocess_for("efficientnet_lite0", 48)
    image = torch.randint(0, 256, (3, preprocess.resize + 9, preprocess.resize), dtype=torch.uint8)
    transform = transform_for(preprocess, mirror_safe, Augmentation(name))
    made = [varied(image, transform, 0, epoch, 5) for epoch in range(6)]
    assert all(m.dtype == torch.uint8 and m.shape == (3, 48, 48) for m in made)
    assert torch.equal(made[2], varied(image, transform, 0, 2, 5))
    assert (len({m.numpy().tobytes() for m in made}) == 1) == (name == "none")
    check_augmentation(Augmentation(name), preprocess)


def test_none_is_what_evaluation_sees(tmp_path: Path) -> None:
    preprocess, file = preprocess_for("efficientnet_lite0", 48), tmp_path / "one.png"
    pixels = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    store = ImageStore([file], preprocess, augmentation=Augmentation("none"))
    assert np.array_equal(store.varied(0, 3, 1)["image"], preprocess.feeds(file)["image"][0])


def test_letters_are_never_mirrored() -> None:
    preprocess = preprocess_for("efficientnet_lite0", 48)
    for name in ("light", "backbone", "strong"):
        steps = PRESETS[name][1](preprocess, [])
        assert not any("Flip" in type(step).__name__ for step in steps)


def test_a_file_of_transforms(tmp_path: Path, few_digits: Path) -> None:
    file = tmp_path / "vary.toml"
    file.write_text(FILE)
    found = read_augmentation(str(file))
    assert [step["name"] for step in found.steps] == ["RandomRotation", "ColorJitter"]
    run = finetune(few_digits, tmp_path / "run", **TINY, epochs=1, augment=file)
    kept = load_run(tmp_path / "run").settings["augment"]
    assert kept == {"name": "file", "steps": [dict(step) for step in found.steps]}
    with pytest.raises(EdgetlError, match="a file said how its images vary"):
        written(tmp_path / "run")
    plain = finetune(few_digits, tmp_path / "plain", **TINY, epochs=1)
    assert plain.settings["augment"] == {"name": "light"}
    assert run.history[-1]["train_loss"] != plain.history[-1]["train_loss"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[[step]]\nname = "Lambda"\nlambd = "print"\n', "unknown transform in"),
        ('[[step]]\nname = "RandomRotation"\n', "cannot be made"),
        ('[[step]]\nname = "RandomRotation"\ndegrees = "many"\n', "cannot be made"),
        ('[[step]]\nname = "RandomAffine"\ndegrees = 5\nspin = 2\n', "cannot be made"),
        ('step = "RandomRotation"\n', "lists no steps"),
        ("step = [", "cannot read"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, few_digits: Path, content: str, words: str) -> None:
    file = tmp_path / "vary.toml"
    file.write_text(content)
    with pytest.raises(EdgetlError, match=words):
        finetune(few_digits, tmp_path / "run", **TINY, augment=file)
    assert not (tmp_path / "run").exists()


def test_the_option(edgetl: Cli, few_digits: Path, tmp_path: Path) -> None:
    words = ("--backbone", "timm/test_efficientnet", "--weights", "none", "--image-size", "32", "--accelerator", "cpu")
    options = ("finetune", few_digits, *words, "--epochs", "1", "--out", tmp_path / "run")
    done = edgetl(*options, "--augment", "strong", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["settings"]["augment"] == {"name": "strong"}
    assert "--augment strong" in json.loads(done.stdout)["lineage"]["command"]
    printed = edgetl("run", "--print", tmp_path / "run")
    assert (printed.returncode, 'augment = "strong"' in printed.stdout) == (0, True), printed.stderr
    again = edgetl(*options)
    assert (again.returncode, "other settings" in again.stderr) == (2, True)
    unknown = edgetl(*options, "--augment", "stong")
    assert (unknown.returncode, "did you mean strong" in unknown.stderr) == (2, True)
    texts = tmp_path / "texts.csv"
    texts.write_text("text,label\n" + "".join(f"good {n},a\nbad {n},b\n" for n in range(20)))
    refused = edgetl("finetune", texts, "--augment", "light", "--out", tmp_path / "texts")
    assert (refused.returncode, "only images vary" in refused.stderr) == (2, True)
