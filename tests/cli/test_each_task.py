"""What the command line does for tasks other than the classification of images, and what it refuses them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl.base.storage import sealed, write_json
from edgetl.core.bundle import CERTIFICATE, PREDICTIONS, Bundle, load_bundle
from edgetl.core.run import load_run
from tests.cli.test_bad_input import refused
from tests.reporting.page import Page
from tests.reporting.test_report_tasks import multi_label, regression, text

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def numbers(edgetl: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of regression with a baseline, whose labels are of the order of a thousand, and its int8 bundle."""
    folder = tmp_path_factory.mktemp("numbers")
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (300, 6)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, target=5000 + 1000 * x[:, 0] + 50 * rng.normal(size=300))
    given = (folder / "data.npz", "--out", folder / "run", "--epochs", 2, "--baseline", "probe", "--quiet")
    trained = edgetl("finetune", *given)
    assert trained.returncode == 0, trained.stderr
    made = edgetl("export", folder / "run", "--target", "x86-generic", "--out", folder / "out", "--no-bench", "--quiet")
    assert made.returncode in (0, 3), made.stderr
    return folder


def test_a_margin_in_the_labels_unit_is_a_hundredth_of_their_spread_in_training(numbers: Path, here: Cli) -> None:
    record: dict[str, Any] = json.loads((numbers / "out" / "x86-generic" / CERTIFICATE).read_text())
    spread = float(np.std(load_run(numbers / "run").dataset.labels("train")))
    assert 800 < spread < 1200
    assert record["margin"] == pytest.approx(spread / 100)
    manifest = load_bundle(numbers / "out" / "x86-generic").manifest
    assert manifest.repair is not None
    assert manifest.repair.margin == record["margin"]
    said = f"The margin of {spread / 100:.4g} is 1 % of the standard deviation of the labels of training."
    assert said in record["notes"]
    assert said in " ".join(here("verify", numbers / "out" / "x86-generic").stdout.split())
    assert "standard deviation" in " ".join(here("verify", "--help").stdout.replace("│", " ").split())
    by_name = json.loads(here("verify", numbers / "out" / "x86-generic", "--metric", "r2", "--json").stdout)
    assert (by_name["margin"], by_name["scores"]["rmse"]["margin"]) == (0.01, pytest.approx(spread / 100))


def test_a_baseline_that_a_certificate_cannot_use_is_left_out_of_it_with_the_reason(numbers: Path) -> None:
    run, bundle = load_run(numbers / "run"), load_bundle(numbers / "out" / "x86-generic")
    assert run.gain is not None
    assert bundle.certificate is not None
    assert bundle.certificate.transfer_gain is None
    assert [note for note in bundle.certificate.notes if "gain was kept is told of single classes" in note]
    with np.load(bundle.path / PREDICTIONS) as kept:
        assert "baseline" not in kept.files


def test_arrays_are_called_arrays_wherever_they_are_counted(numbers: Path, here: Cli, tmp_path: Path) -> None:
    bundle = numbers / "out" / "x86-generic"
    record = json.loads((bundle / CERTIFICATE).read_text())
    assert record["sample"] == "array"
    assert "60 arrays are too few" in " ".join(here("verify", bundle, "--margin", "1e-9").stdout.split())
    again = here("verify", bundle, "--device", "local", "--margin", "1")
    listed = here("export", numbers / "run", "--target", "x86-generic", "--out", tmp_path / "out", "--no-bench")
    (tmp_path / "empty").mkdir()
    moved = refused(here("verify", bundle, "--data", tmp_path / "empty"), "60 of 60 certify arrays are missing")
    assert here("report", numbers / "run", bundle, "--out", tmp_path / "r.html").returncode == 0
    page = Page((tmp_path / "r.html").read_text()).text
    for said in (json.dumps(record), again.stdout + again.stderr, listed.stdout + listed.stderr, moved, page):
        assert "image" not in re.sub("images_per_query|--calibration-images", "", said).lower()


@pytest.mark.parametrize(
    "changes",
    [{"verdict": "fail"}, {"ci_low": 0.0}, {"ci_high": 1e9}, {"verdict": "pass", "ci_low": 1.0}, {"n_needed": 1}],
    ids=str,
)
def test_a_bootstrap_that_was_edited_and_sealed_again(
    numbers: Path, here: Cli, tmp_path: Path, changes: dict[str, Any]
) -> None:
    bundle = shutil.copytree(numbers / "out" / "x86-generic", tmp_path / "bundle")
    # Sixty arrays prove nothing at a margin that no model keeps.
    assert here("verify", bundle, "--margin", "0.001").returncode == 4
    assert here("verify", bundle, "--check").returncode == 0
    record = json.loads((bundle / CERTIFICATE).read_text())
    assert record["method"].startswith("paired bootstrap")
    write_json(bundle / CERTIFICATE, sealed({**record, **changes}))
    checked = here("verify", bundle, "--check")
    assert checked.returncode == 3
    assert f"its {next(reversed(changes))} does not follow from {PREDICTIONS}" in " ".join(checked.stdout.split())


@pytest.mark.parametrize(
    ("make", "reason"),
    [(text, "reads texts"), (regression, "reads arrays"), (multi_label, "multi-label, does not have")],
    ids=["text", "arrays", "several labels"],
)
def test_corruptions_of_what_they_mean_nothing_to(
    make: Callable[[Path], Bundle], reason: str, tmp_path: Path, here: Cli
) -> None:
    bundle = make(tmp_path)
    before = {file.name: file.read_bytes() for file in bundle.path.iterdir() if file.is_file()}
    refused(here("verify", bundle.path, "--corruptions"), "corruptions", reason, "leave --corruptions out")
    assert {file.name: file.read_bytes() for file in bundle.path.iterdir() if file.is_file()} == before


def test_answers_of_another_program_say_nothing_of_corruptions(tiny_bundle: Path, tmp_path: Path, here: Cli) -> None:
    given = ("--predictions", tmp_path / "answers.npz", "--corruptions")
    refused(here("verify", tiny_bundle, *given), "answers.npz holds no answers to corrupted images")
