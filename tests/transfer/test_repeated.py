"""Several seeds of one order: their spread, the middle one, and going on after an interruption."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest

import edgetl as package
from edgetl.base.errors import EdgetlError
from edgetl.core.run import load_run

from .conftest import TINY

Cli = Callable[..., subprocess.CompletedProcess[str]]
WORDS = ("--backbone", "timm/test_efficientnet", "--weights", "none", "--image-size", "32", "--accelerator", "cpu")


def test_three_seeds_and_what_they_say(edgetl: Cli, few_digits: Path, tmp_path: Path) -> None:
    options = (
        "finetune",
        few_digits,
        *WORDS,
        "--strategy",
        "linear-probe",
        "--out",
        tmp_path / "runs",
        "--repeat",
        "3",
    )
    done = edgetl(*options, "--seed", "4", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    runs = [load_run(tmp_path / "runs" / f"seed-{seed}") for seed in (4, 5, 6)]
    assert [run["settings"]["seed"] for run in found["runs"]] == [4, 5, 6]
    values = [run.metrics.val["accuracy"] for run in runs]
    assert len({run.weights_sha256 for run in runs}) == 3
    assert found["spread"]["accuracy"] == {"median": median(values), "low": min(values), "high": max(values)}
    assert load_run(found["middle"]).metrics.val["accuracy"] == median(values)
    before = {run.path: (run.path / "run.json").stat().st_mtime_ns for run in runs}
    shown = edgetl(*options, "--seed", "4", COLUMNS="200")
    assert all(word in shown.stdout for word in ("median", "3 seeds", "The middle one, to go on with"))
    assert before == {path: (path / "run.json").stat().st_mtime_ns for path in before}, "finished runs stay"


def test_one_seed_tells_nothing(few_digits: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match="1 seeds tell nothing"):
        package.repeat(few_digits, tmp_path / "runs", 1, **TINY)
    assert not (tmp_path / "runs").exists()
