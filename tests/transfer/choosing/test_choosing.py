"""Ranking backbones and comparing sets of samples: through the command line and in Python, on real features."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

import edgetl as package
from edgetl.base.errors import DataError, EdgetlError
from edgetl.inputs import load_dataset
from edgetl.transfer.choosing.ranking import drawn
from edgetl.transfer.choosing.subject import subject_for
from edgetl.transfer.choosing.transferability import logme, one_hot

Cli = Callable[..., subprocess.CompletedProcess[str]]
SIDE = ("--image-size", "32", "--accelerator", "cpu")
LITE0, LITE1 = "efficientnet_lite0", "efficientnet_lite1"


def test_backbones_are_ranked_and_timed(edgetl: Cli, few_digits: Path) -> None:
    both = ("--backbone", LITE0, "--backbone", LITE1)
    done = edgetl("rank", few_digits, *both, *SIDE, "--target", "x86-generic", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["task"], found["target"], found["untimed"]) == ("classification", "x86-generic", "")
    assert found["samples"] == sum(found["classes"].values())
    assert {row["backbone"] for row in found["backbones"]} == {LITE0, LITE1}
    probes = [row["probe"]["value"] for row in found["backbones"]]
    assert probes == sorted(probes, reverse=True)
    assert found["backbones"][0]["best"]
    for row in found["backbones"]:
        assert row["probe"]["low"] <= row["probe"]["value"] <= row["probe"]["high"]
        assert row["latency"]["precision"] == "int8"
        assert row["latency"]["ci_low"] <= row["latency"]["p50"] <= row["latency"]["ci_high"]
        assert row["macs"] > 1e6


def test_what_is_ranked_is_what_scikit_learn_finds(few_digits: Path) -> None:
    found = package.rank(few_digits, backbones=[LITE0], image_size=32, accelerator="cpu").ranking
    dataset = load_dataset(few_digits, kind="image", seed=0)
    held = drawn(dataset, 0)
    assert found.samples == len(held) == sum(s.split in ("train", "val") for s in dataset.samples)
    chosen = subject_for("image", LITE0, 32, 0, "cpu")
    seen = chosen.features([dataset.file(sample) for sample in held], "", lambda *told: None)
    labels = dataset.labels_of(held)
    (row,) = found.rows
    assert row.logme == pytest.approx(logme(seen, one_hot(labels)), abs=1e-6)
    scaled = (seen - seen.mean(0)) / seen.std()
    told = cross_val_predict(LogisticRegression(C=0.1, max_iter=500), scaled, labels, cv=5)
    assert row.probe.value == pytest.approx(float((told == labels).mean()), abs=0.06)
    assert row.parameters == sum(v.numel() for v in chosen.network.backbone.parameters()) - 2 * 1281
    assert chosen.network.backbone.get_classifier().in_features == row.features


def test_people_see_a_table_and_what_it_comes_to(edgetl: Cli, few_digits: Path) -> None:
    done = edgetl("rank", few_digits, "--backbone", LITE0, *SIDE, "--target", "jetson", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    for word in (
        "LogME",
        "NLEEP",
        "95 % interval",
        f"{LITE0} alone was judged",
        "not timed: this machine does not execute",
    ):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--backbone", "efficientnet_lite9"), "did you mean"),
        (("--backbone", "mlp"), "it starts from random weights"),
        (("--target", "jetsn"), "did you mean jetson"),
        (("--task", "regression"), "the task regression reads the column 'target'"),
    ],
)
def test_what_cannot_be_ranked(edgetl: Cli, few_digits: Path, arguments: tuple[str, ...], words: str) -> None:
    done = edgetl("rank", few_digits, *arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_arrays_have_no_backbone_that_has_learned_anything(tmp_path: Path) -> None:
    file = tmp_path / "columns.npz"
    np.savez(file, x=np.random.default_rng(0).normal(0, 1, (60, 3)).astype(np.float32), y=np.arange(60) % 2)
    with pytest.raises(EdgetlError, match=r"no backbone for .* can be ranked .*random weights"):
        package.rank(file)


def test_a_set_is_no_distance_from_itself_and_far_from_its_negative(
    edgetl: Cli, few_digits: Path, tmp_path: Path
) -> None:
    negative = tmp_path / "negative"
    for file in sorted(few_digits.rglob("*.png")):
        there = negative / file.relative_to(few_digits)
        there.parent.mkdir(parents=True, exist_ok=True)
        ImageOps.invert(Image.open(file)).save(there)
    done = edgetl("shift", few_digits, negative, *SIDE, "--json")
    assert done.returncode == 0, done.stderr
    far, near = json.loads(done.stdout), package.shift(few_digits, few_digits, image_size=32, accelerator="cpu")
    assert far["proxy_a_distance"] > 1.5
    assert far["mmd"]["p"] < 0.01
    assert (far["copies"], far["classes_only_in"]) == (0, [[], []])
    assert far["label_shift"]["value"] < 0.1
    assert near.distance < 0.3
    assert near.copies == near.samples[1]
    shown = edgetl("shift", few_digits, negative, *SIDE, COLUMNS="200").stdout
    assert all(word in shown for word in ("proxy A-distance", "told apart almost always", "near duplicates"))


def test_a_folder_without_labels_and_other_classes(few_digits: Path, tmp_path: Path) -> None:
    bare, other = tmp_path / "bare", tmp_path / "other"
    bare.mkdir()
    for number, file in enumerate(sorted(few_digits.rglob("*.png"))[::4]):
        (bare / f"{number}.png").write_bytes(file.read_bytes())
    found = package.shift(few_digits, bare, image_size=32, accelerator="cpu")
    assert found.labels is None
    assert found.only == ((), ())
    assert 0 < found.copies < found.samples[1] == 40
    for name in ("2", "3", "4"):
        (other / name).mkdir(parents=True)
        for file in sorted((few_digits / str(min(int(name), 3))).glob("*.png")):
            Image.open(file).resize((9, 9)).save(other / name / f"{name}{file.name}")
    for file in (other / "4").glob("*.png"):
        ImageOps.mirror(Image.open(file)).save(file)
    found = package.shift(few_digits, other, image_size=32, accelerator="cpu")
    assert found.only == (("0", "1"), ("4",))
    assert found.labels is not None
    assert found.labels.value == pytest.approx(0.5), "two of four classes, and two of three"


def test_arrays_are_compared_by_their_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, moved in (("one", 0.0), ("same", 0.0), ("other", 2.0)):
        x = rng.normal(moved, 3, (80, 4)).astype(np.float32)
        np.savez(tmp_path / f"{name}.npz", x=x, y=np.arange(80) % 2)
    same, other = (package.shift(tmp_path / "one.npz", tmp_path / f"{name}.npz") for name in ("same", "other"))
    assert same.distance < 0.5 < other.distance
    assert same.backbone == "the values themselves"
    np.savez(tmp_path / "wide.npz", x=rng.normal(0, 1, (80, 5)).astype(np.float32), y=np.arange(80) % 2)
    with pytest.raises(DataError):
        package.shift(tmp_path / "one.npz", tmp_path / "wide.npz")


def test_samples_of_two_kinds_are_not_compared(edgetl: Cli, few_digits: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.csv"
    texts.write_text("text,label\n" + "".join(f"good {n},a\nbad {n},b\n" for n in range(20)))
    done = edgetl("shift", few_digits, texts)
    assert (done.returncode, "holds images, and" in done.stderr) == (2, True)
