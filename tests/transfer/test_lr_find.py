"""The learning rate range test: on a curve whose answer is known, and on real samples with its picture."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from edgetl.base.errors import EdgetlError
from edgetl.reporting.rate_search import picture
from edgetl.transfer.finetune import finetune
from edgetl.transfer.lr_find import HIGHEST, LOWEST, STEPS, find_rate, judged

from .conftest import TINY

Cli = Callable[..., subprocess.CompletedProcess[str]]
RATES = np.geomspace(LOWEST, HIGHEST, STEPS)
WORDS = ("--backbone", "timm/test_efficientnet", "--weights", "none", "--image-size", "32", "--accelerator", "cpu")


def test_the_steepest_fall_of_a_known_curve() -> None:
    falling = 2.0 - 1.5 / (1 + np.exp(-4 * (np.log10(RATES) + 3)))
    broken = falling + np.maximum(np.log10(RATES) + 1.2, 0) ** 2 * 8
    found = judged(RATES, broken)
    assert found.suggested is not None
    assert -3.2 < np.log10(found.suggested) < -2.2, "at 1e-3, less what smoothing lags behind"
    assert found.suggested < found.highest < 0.3
    noisy = judged(RATES, broken + np.random.default_rng(0).normal(0, 0.1, STEPS))
    assert noisy.suggested is not None
    assert abs(np.log10(noisy.suggested / found.suggested)) < 0.7


def test_a_loss_that_never_falls_suggests_nothing() -> None:
    assert judged(RATES, 1.0 + np.maximum(np.log10(RATES) + 3, 0) ** 2).suggested is None
    with pytest.raises(EdgetlError, match="no number after 3 steps"):
        judged(RATES[:3], np.ones(3))


def test_the_suggested_rate_trains_better_than_the_lowest(few_digits: Path, tmp_path: Path) -> None:
    options = {**TINY, "strategy": "fine-tune"}
    del options["workers"]
    found = find_rate(few_digits, **options, steps=60)
    assert found.suggested is not None
    assert LOWEST < found.suggested < found.highest <= HIGHEST
    assert len(found.rates) == len(found.losses) == len(found.smooth) <= 60
    again = find_rate(few_digits, **options, steps=60)
    assert np.array_equal(again.losses, found.losses), "seeded"
    losses = [
        finetune(few_digits, tmp_path / name, **TINY, epochs=3, learning_rate=rate).history[-1]["train_loss"]
        for name, rate in (("suggested", found.suggested), ("lowest", LOWEST))
    ]
    assert losses[0] < losses[1]


def test_the_command_and_its_picture(edgetl: Cli, few_digits: Path, tmp_path: Path) -> None:
    file = tmp_path / "rates.svg"
    done = edgetl("lr-find", few_digits, *WORDS, "--steps", "40", "--out", file, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["picture"] == str(file)
    assert len(found["rates"]) == len(found["smooth"])
    root = ET.fromstring(file.read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall(".//{*}polyline")) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rates.svg"]
    shown = edgetl("lr-find", few_digits, *WORDS, "--steps", "40")
    assert (shown.returncode, "loss falls" in shown.stdout.lower()) == (0, True)


def test_what_cannot_be_searched(edgetl: Cli, few_digits: Path, tmp_path: Path) -> None:
    for words, told in (
        (("--strategy", "linear-probe"), "takes no gradient step"),
        (("--steps", "5"), "too few to see"),
        (("--out", tmp_path / "none" / "x.svg"), "there is no folder"),
    ):
        done = edgetl("lr-find", few_digits, *WORDS, *words)
        assert (done.returncode, told in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr


def test_a_picture_of_a_curve_without_a_suggestion() -> None:
    assert ET.fromstring(picture([1e-3, 1e-2, 1e-1], [1.0, 1.1, 9.0], [1.0, 1.05, 1.2], None)) is not None
