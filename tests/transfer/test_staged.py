"""Stages: each starts from the one before; a stage without labels is answered by the one before."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from sklearn.datasets import load_digits

from edgetl.base.errors import EdgetlError
from edgetl.core.run import WEIGHTS, load_run
from edgetl.transfer.finetune import finetune
from edgetl.transfer.staged import SUREST, staged

from .conftest import TINY

FAST: dict[str, Any] = {**TINY, "epochs": 2, "learning_rate": 0.003}


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Digits 0 to 3: labelled, then turned by 15 degrees without labels, then turned by 30 with labels."""
    bunch, root = load_digits(), tmp_path_factory.mktemp("steps")
    chosen = np.flatnonzero(bunch.target < 4)
    for part, (name, angle) in enumerate((("upright", 0), ("leaning", 15), ("lying", 30))):
        for index in chosen[120 * part : 120 * part + 120]:
            grey = Image.fromarray(np.clip(bunch.images[index] * 16, 0, 255).astype(np.uint8)).resize((24, 24))
            folder = root / name if name == "leaning" else root / name / str(bunch.target[index])
            folder.mkdir(parents=True, exist_ok=True)
            grey.rotate(angle).save(folder / f"{index:04d}.png")
    return root / "upright", root / "leaning", root / "lying"


def test_each_stage_starts_from_the_one_before(steps: tuple[Path, Path, Path], tmp_path: Path) -> None:
    first, between, last = steps
    run = staged(last, tmp_path / "run", [first, between], **FAST)
    before = [load_run(tmp_path / "run" / "via" / name) for name in ("1", "2")]
    assert [each.strategy for each in before] == ["fine-tune"] * 2
    assert run.lineage["from"]["digest"] == before[1].digest
    assert run.lineage["from"]["from"]["digest"] == before[0].digest
    assert "from" not in before[0].lineage
    assert before[1].metrics.best_epoch == 2, "no epoch is better at the answers of the start than the start"
    with (tmp_path / "run" / "via" / "2.csv").open(encoding="utf-8") as stream:
        told = list(csv.DictReader(stream))
    assert len(told) == pytest.approx(SUREST * len(list(between.iterdir())), abs=3)
    assert {row["label"] for row in told} <= set(before[0].classes)
    # What is told of the middle stage is the first one's answer, and the surest of each class.
    again = staged(last, tmp_path / "run", [first, between], **FAST)
    assert again.digest == run.digest
    plain = finetune(last, tmp_path / "plain", **FAST)
    states = [safetensors.torch.load_file(each.path / WEIGHTS) for each in (plain, run)]
    assert not torch.equal(states[0]["conv_stem.weight"], states[1]["conv_stem.weight"])
    assert plain.dataset.digest == run.dataset.digest


def test_stages_that_cannot_be(steps: tuple[Path, Path, Path], tmp_path: Path) -> None:
    first, between, last = steps
    for via, words in (
        ([], "there is no stage"),
        ([between], r"the first stage, .* has no labels: begin with labelled samples"),
        ([first, tmp_path / "gone"], r"there is no .*gone"),
    ):
        with pytest.raises(EdgetlError, match=words):
            staged(last, tmp_path / "run", via, **FAST)
        assert not (tmp_path / "run" / "run.json").exists()


def test_the_command(
    edgetl: Callable[..., subprocess.CompletedProcess[str]], steps: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    first, _, last = steps
    words = ["--backbone", "timm/test_efficientnet", "--weights", "none", "--image-size", "32", "--epochs", "1"]
    done = edgetl("finetune", last, "--via", first, "--out", tmp_path / "run", *words, "--quiet")
    assert done.returncode == 0, done.stderr
    assert load_run(tmp_path / "run").lineage["from"]["digest"] == load_run(tmp_path / "run" / "via" / "1").digest
    both = edgetl("finetune", last, "--via", first, "--repeat", 3, "--out", tmp_path / "other", *words)
    assert both.returncode == 2
    assert "--via and --repeat" in both.stderr
