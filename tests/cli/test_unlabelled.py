"""``edgetl verify --images``: samples without labels, and labels only where the two models of a bundle differ."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgetl as api
from edgetl.base.errors import CertifyError
from edgetl.base.storage import read_sealed, write_sealed
from edgetl.certify.agreement import agreement_test
from edgetl.certify.unlabelled import Unlabelled
from edgetl.core.bundle import AGREEMENT, CERTIFICATE, LABEL_PAGE, TO_LABEL
from edgetl.core.run import load_run
from tests.cli.test_bad_input import refused
from tests.reporting.page import Page

Cli = Callable[..., subprocess.CompletedProcess[str]]
GOLDEN = Path(__file__).parents[1] / "golden" / "bundle"
N = 90


def ambiguous(folder: Path, n: int = N) -> Path:
    """Noisy pictures between the classes, on which a compressed model answers otherwise now and then."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for place in range(n):
        base = 150 * rng.dirichlet([1.0] * 3, size=(4, 4)).repeat(10, 0).repeat(12, 1)
        pixels = np.clip(base + rng.normal(60, 25, base.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{place:03d}.png")
    return folder


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, edgetl: Cli) -> tuple[Path, Path, dict[str, Any]]:
    """The golden int8 bundle, compared on pictures without labels: bundle, pictures, certificate."""
    folder = tmp_path_factory.mktemp("compared")
    bundle, images = Path(shutil.copytree(GOLDEN, folder / "bundle")), ambiguous(folder / "images")
    done = edgetl("verify", bundle, "--images", images, "--json", "--quiet")
    assert done.returncode == 4, done.stderr
    return bundle, images, json.loads(done.stdout)


@pytest.fixture
def again(compared: tuple[Path, Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of that bundle."""
    return Path(shutil.copytree(compared[0], tmp_path / "bundle"))


def rows(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def write(file: Path, lines: list[list[str]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(lines)
    return file


def test_samples_without_labels_give_bounds_and_no_accuracy(compared: tuple[Path, Path, dict[str, Any]]) -> None:
    bundle, _, record = compared
    assert [note for note in record["notes"] if "does not say what its model was trained on" in note]
    found, before = record["agreement"], read_sealed(GOLDEN / CERTIFICATE, CertifyError)
    assert record["n"] == N
    assert 3 <= found["disagreed"] < N
    test = agreement_test(N, found["disagreed"], margin=0.01)
    assert (record["ci_low"], record["ci_high"], record["n_needed"]) == (test.ci_low, test.ci_high, test.n_needed)
    unknown = ("reference_accuracy", "deployed_accuracy", "reference_score", "deployed_score", "difference", "balanced")
    assert [record[name] for name in unknown] == [None] * len(unknown)
    assert record["flips"] == {}
    # What takes labels of all samples is still that of the certify split, and is said to be.
    assert [record[name] for name in ("classes", "ladder")] == [before[name] for name in ("classes", "ladder")]
    assert found["rests_on"] == before["n"]
    assert [note for note in record["notes"] if f"still those of the {before['n']} images" in note]
    listed = rows(bundle / TO_LABEL)
    kept = Unlabelled.load(bundle / AGREEMENT)
    differ = {kept.paths[row] for row in np.flatnonzero(kept.reference != kept.deployed)}
    assert listed[0] == ["path", "label"]
    assert {path for path, _ in listed[1:]} == differ
    assert {label for _, label in listed[1:]} == {""}
    assert (bundle / LABEL_PAGE).is_file()
    assert api.check(bundle) is None


def test_labels_of_the_differing_samples_certify_all(
    compared: tuple[Path, Path, dict[str, Any]], again: Path, here: Cli, tmp_path: Path
) -> None:
    _, images, record = compared
    kept = Unlabelled.load(again / AGREEMENT)
    truth = {kept.paths[row]: kept.class_names[kept.reference[row]] for row in range(kept.n)}
    asked = rows(again / TO_LABEL)[1:]
    gained, lost = asked[0][0], asked[1][0]
    truth[gained] = kept.class_names[kept.deployed[kept.paths.index(gained)]]
    labelled = write(tmp_path / "labels.csv", [["path", "label"], *([path, truth[path]] for path, _ in asked)])
    done = here("verify", again, "--images", images, "--labels", labelled, "--margin", "0.3", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    counts = {"lost": len(asked) - 1, "gained": 1}
    assert told["flips"] == counts
    assert told["difference"] == (counts["gained"] - counts["lost"]) / N
    assert (told["agreement"]["labelled"], told["reference_accuracy"]) == (len(asked), None)
    assert api.check(again) is None
    # By all labels, those of agreeing samples whatever they are, the test is the same.
    classes = {name: index for index, name in enumerate(kept.class_names)}
    every = api.verify(
        reference=kept.reference, deployed=kept.deployed, margin=0.3,
        labels=np.array([classes[truth[path]] for path in kept.paths]),
    )  # fmt: skip
    names = ("difference", "ci_low", "ci_high", "p_value", "flips", "n_needed")
    assert [told[name] for name in names] == [every.to_json()[name] for name in names]
    assert told["verdict"] == every.scores["accuracy"].verdict == "pass"
    # All labels show a class that collapsed; a few of them show the loss, and not of how large a class.
    assert every.verdict == "fail"
    collapsed = [name for name, index in classes.items() if every.classes[str(index)].collapsed]
    assert told["agreement"]["lost_classes"] == collapsed
    assert [note for note in told["notes"] if f"class '{collapsed[0]}' more images with a label were lost" in note]
    # Some labels are enough where the others cannot change the verdict; those that are given stay in the file.
    few = write(tmp_path / "few.csv", [["path", "label"], *([p, truth[p] if p == lost else ""] for p, _ in asked)])
    done = here("verify", again, "--images", images, "--labels", few, "--json", "--quiet")
    assert done.returncode == 4, done.stderr
    assert {path: label for path, label in rows(again / TO_LABEL)[1:] if label} == {lost: truth[lost]}
    assert truth[lost] in (again / LABEL_PAGE).read_text()
    assert "would be overwritten" in refused(here("verify", again, "--images", images), "holds labels")
    assert record["n"] == told["n"]


def test_kept_answers_are_judged_again_reported_and_given_back_to_the_certify_split(
    compared: tuple[Path, Path, dict[str, Any]], again: Path, here: Cli, tmp_path: Path
) -> None:
    done = here("verify", again, "--margin", "0.5")
    assert done.returncode == 0, done.stderr
    assert "whatever the true labels are" in " ".join(done.stdout.split())
    assert here("report", again, "--out", tmp_path / "r.html").returncode == 0
    page = Page((tmp_path / "r.html").read_text()).text
    assert "answer differently on" in page
    assert "None" not in page
    for name in ("MODEL_CARD.md", "bom.cdx.json"):
        assert "None" not in (again / name).read_text()
    assert here("verify", again, "--check").returncode == 0
    split = here("verify", again, "--predictions", answers(again, tmp_path), "--json")
    assert split.returncode in (0, 3, 4), split.stderr
    assert "agreement" not in json.loads(split.stdout)
    assert not (again / AGREEMENT).exists()


def answers(bundle: Path, folder: Path) -> Path:
    """The deployed model's answers to the certify split, as a program of somebody's own would give them."""
    with np.load(bundle / "predictions.npz") as kept:
        classes, hashes = kept["deployed"], kept["sha256"]
    logits = np.eye(3, dtype=np.float32)[classes]
    np.savez(folder / "own.npz", logits=logits, sha256=np.array([bytes(row).hex() for row in hashes]))
    return folder / "own.npz"


def test_altered_answers_and_counts_are_found(compared: tuple[Path, Path, dict[str, Any]], again: Path) -> None:
    kept = Unlabelled.load(again / AGREEMENT)
    record = read_sealed(again / CERTIFICATE, CertifyError)
    record["agreement"]["disagreed"] -= 1
    write_sealed(again / CERTIFICATE, record)
    assert "agreement does not follow" in (api.check(again) or "")
    kept.labelled({int(np.flatnonzero(~kept.agreed)[0]): 0}).save(again / AGREEMENT)
    assert "is not what certificate.json was made from" in (api.check(again) or "")
    (again / AGREEMENT).write_bytes(b"none")
    with pytest.raises(CertifyError, match="altered or are not whole"):
        Unlabelled.load(again / AGREEMENT)


def test_a_label_file_that_does_not_fit_is_refused_in_one_line(
    compared: tuple[Path, Path, dict[str, Any]], again: Path, here: Cli, tmp_path: Path
) -> None:
    _, images, _ = compared
    asked = rows(again / TO_LABEL)
    first, others = asked[1][0], asked[2:]
    wrong = {
        "unknown class 'reed'": [asked[0], [first, "reed"], *others],
        "stands there twice": [asked[0], [first, "red"], [first, "red"], *others],
        "is none of the samples that were compared": [*asked, ["elsewhere/x.png", "red"]],
        "lacks 1 sample": [asked[0], *others],
        "there is no path": [asked[0], ["", "red"], *others],
        "it needs path and label": [["file", "class"], *others],
    }
    before = (again / CERTIFICATE).read_bytes()
    for said, lines in wrong.items():
        file = write(tmp_path / "labels.csv", lines)
        assert said in refused(here("verify", again, "--images", images, "--labels", file), "labels.csv")
    refused(here("verify", again, "--images", images, "--labels", tmp_path / "none.csv"), "is not a CSV file")
    refused(here("verify", again, "--labels", tmp_path / "labels.csv"), "labels alone say nothing")
    refused(here("verify", again, "--images", tmp_path / "none"), "there is no")
    refused(here("verify", again, "--images", images, "--data", images), "compared by themselves")
    refused(here("verify", again, "--images", images, "--metric", "balanced-accuracy"), "takes the labels of all")
    assert (again / CERTIFICATE).read_bytes() == before


def test_models_that_agree_pass_without_a_label_on_what_they_have_not_seen(
    tiny_run: Path, tiny_bundle: Path, here: Cli, tmp_path: Path
) -> None:
    bundle, images = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle")), ambiguous(tmp_path / "images", 305)
    dataset = load_run(tiny_run).dataset
    held = [split for split, size in dataset.sizes().items() if size]
    assert {"train", "val", "certify"} <= set(held)
    for split in held:
        # What a file holds counts, not its bytes.
        Image.open(dataset.paths(split)[0]).save(images / f"{split}.png", compress_level=1)
    shutil.copy(images / "000.png", images / "copy.png")
    (images / "broken.png").write_bytes(b"none")
    (images / "notes.txt").write_text("not one of them")
    done = here("verify", bundle, "--images", images, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["verdict"], record["n"]) == ("pass", 306)
    assert record["agreement"]["disagreed"] == 0
    assert record["agreement"]["rate_high"] == pytest.approx(1 - 0.05 ** (1 / 306))
    assert sorted(record["agreement"]["left_out"].values()) == [1, 1, len(held) - 1]
    assert not (bundle / TO_LABEL).exists()
    assert not (bundle / LABEL_PAGE).exists()
    assert not [note for note in record["notes"] if "does not say what its model was trained on" in note]
    assert api.check(bundle) is None
    # The trained model itself gives the same.
    with_run = here("verify", bundle, "--images", images, "--run", tiny_run, "--json", "--quiet")
    assert with_run.returncode == 0, with_run.stderr
    assert json.loads(with_run.stdout)["agreement"]["reference"] == "trained model"
    # Without a certificate of labelled samples nothing is known of classes and faults.
    for name in (CERTIFICATE, "bom.cdx.json", "MODEL_CARD.md"):
        (bundle / name).unlink()
    refused(here("verify", bundle, "--images", images), "has no certificate of labelled samples")


def test_labels_that_show_a_loss_are_not_outvoted(tiny_bundle: Path, here: Cli, tmp_path: Path) -> None:
    bundle, images = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle")), ambiguous(tmp_path / "images", 30)
    with np.load(bundle / "predictions.npz") as kept:
        wrong, hashes = (kept["labels"] + 1) % 3, kept["sha256"]
    logits = np.eye(3, dtype=np.float32)[wrong]
    np.savez(tmp_path / "own.npz", logits=logits, sha256=np.array([bytes(row).hex() for row in hashes]))
    assert here("verify", bundle, "--predictions", tmp_path / "own.npz").returncode == 3
    done = here("verify", bundle, "--images", images, "--margin", "0.2", "--json", "--quiet")
    assert done.returncode == 3, done.stderr
    record = json.loads(done.stdout)
    assert record["scores"]["accuracy"]["verdict"] == "pass"
    assert record["reasons"][0].startswith("On the ")
