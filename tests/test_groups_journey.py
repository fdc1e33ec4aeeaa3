"""Groups from the data to the certificate: in the run, the bundle, the saved predictions, and an adopted model."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edgetl
from edgetl.cli.journey.repeat import written
from edgetl.core.bundle import load_bundle
from edgetl.core.data import SPLITS
from edgetl.core.run import load_run

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def bursts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, told by their hue, of 20 scenes with 4 frames each."""
    root, rng = tmp_path_factory.mktemp("bursts"), np.random.default_rng(0)
    for scene in range(40):
        base = rng.integers(0, 120, (40, 40, 3))
        base[..., scene % 2] += 100
        for frame in range(4):
            file = root / f"class-{scene % 2}" / f"scene{scene:02d}-{frame}.png"
            file.parent.mkdir(exist_ok=True)
            noisy = np.clip(base + rng.integers(-4, 5, base.shape), 0, 255)
            Image.fromarray(noisy.astype(np.uint8)).save(file)
    return root


@pytest.fixture(scope="module")
def run(edgetl: Command, bursts: Path) -> Path:
    out = bursts.parent / "run-of-bursts"
    words = ("--backbone", "timm/test_efficientnet", "--weights", "none", "--image-size", 32, "--epochs", 1)
    done = edgetl("finetune", bursts, "--out", out, "--group-by", r"scene(\d+)", *words, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def bundle(run: Path) -> Path:
    out = run.parent / "bundles-of-bursts"
    edgetl.export(run, targets="x86-generic", out=out, precision="fp32", bench=False)
    return out / "x86-generic"


def scenes(run: Path) -> dict[str, set[str]]:
    dataset = load_run(run).dataset
    return {name: {Path(sample.path).name.split("-")[0] for sample in dataset.split(name)} for name in SPLITS}


def test_no_scene_of_a_run_straddles_splits(run: Path) -> None:
    found = scenes(run)
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 40


def test_the_certificate_rests_on_scenes(bundle: Path, edgetl: Command) -> None:
    certificate = load_bundle(bundle).certificate
    assert certificate is not None
    assert certificate.units == certificate.n // 4
    told = edgetl("verify", bundle, "--quiet")
    assert f"{certificate.n} held-out images in {certificate.units} independent groups" in " ".join(told.stdout.split())
    assert edgetl("verify", bundle, "--check", "--quiet").returncode == 0
    assert "independent groups" in (bundle / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_saved_predictions_are_judged_by_group_again(bundle: Path) -> None:
    first, again = edgetl.verify(bundle, margin=0.05), edgetl.verify(bundle, margin=0.2)
    assert first.units == again.units == first.n // 4
    assert first.ci_low == again.ci_low
    edgetl.verify(bundle)


def test_the_same_command_resumes_and_another_rule_does_not(edgetl: Command, run: Path, bursts: Path) -> None:
    words = ("--backbone", "timm/test_efficientnet", "--weights", "none", "--image-size", 32, "--epochs", 1, "--quiet")
    assert edgetl("finetune", bursts, "--out", run, "--group-by", r"scene(\d+)", *words).returncode == 0
    other = edgetl("finetune", bursts, "--out", run, "--group-by", "duplicates", *words)
    assert other.returncode == 2
    assert "group_by scene" in other.stderr
    assert tomllib.loads(written(run))["finetune"]["group-by"] == r"scene(\d+)"


def test_an_adopted_model_is_certified_by_group(bursts: Path, bundle: Path, tmp_path: Path) -> None:
    model = load_bundle(bundle).exported
    preprocess = tmp_path / "prep.json"
    preprocess.write_text(json.dumps(dict(load_bundle(bundle).input_record)))
    adopted = edgetl.adopt(model, bursts, tmp_path / "run", preprocess=preprocess, group_by=r"scene(\d+)")
    found = scenes(adopted.path)
    assert not found["certify"] & (found["search"] | found["calibration"])
    groups = adopted.dataset.groups("certify")
    assert groups is not None
    assert len(set(groups.tolist())) == len(adopted.dataset.split("certify")) // 4
