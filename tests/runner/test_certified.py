"""``edgetl verify --runner``: a certificate of what the C runner answered, on the samples that Python's is about."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.base.errors import DataError
from edgetl.base.storage import sha256_file
from edgetl.core.bundle import load_bundle
from edgetl.devices.c_runner import predict_in_c
from edgetl.devices.placement import place
from tests.runner.built import Runner

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def test_a_certificate_through_c(edgetl: Cli, ort: Runner, bundle: Path, tiny_run: Path) -> None:
    photos = tiny_run.parent / "photos"
    before = dict(np.load(bundle / "predictions.npz"))
    earlier = load_bundle(bundle).certificate
    program = ort.folder / "edgetl-run"
    done = edgetl("verify", bundle, "--data", photos, "--runner", program, "--json")
    assert done.returncode in (0, 3, 4), done.stderr
    record = json.loads(done.stdout)
    assert record["runtime"].startswith("C runner, onnxruntime ")
    assert record["executed"] == "host"
    assert record["executed_on"]["runner"] == {"program": "edgetl-run", "sha256": sha256_file(program)}
    assert [rung["name"] for rung in record["ladder"]][-2:] == ["host runtime", "deployed"]
    after = dict(np.load(bundle / "predictions.npz"))
    assert earlier is not None
    assert record["deployed_score"] == earlier.deployed_score
    # What stands there for each rung has one more.
    alike = {name: x for name, x in before.items() if x.dtype.kind == "f" and x.shape == after[name].shape}
    assert any("deployed" in name for name in alike)
    for name, values in alike.items():
        assert np.allclose(values, after[name], rtol=1e-4, atol=1e-5), name
    check = edgetl("verify", bundle, "--check")
    assert check.returncode == 0, check.stdout


def test_the_program_on_the_search_path(edgetl: Cli, ort: Runner, bundle: Path, tiny_run: Path) -> None:
    path = f"{ort.folder}{os.pathsep}{os.environ['PATH']}"
    done = edgetl("verify", bundle, "--data", tiny_run.parent / "photos", "--runner", "c", "--quiet", PATH=path)
    assert done.returncode in (0, 3, 4), done.stderr
    assert "C runner" in json.loads((bundle / "certificate.json").read_text())["runtime"]


def test_no_such_program(edgetl: Cli, bundle: Path) -> None:
    done = edgetl("verify", bundle, "--runner", bundle / "nowhere")
    assert done.returncode == 2
    assert "runner/README.md" in done.stderr


def test_answers_from_elsewhere_are_not_the_runners(edgetl: Cli, bundle: Path) -> None:
    done = edgetl("verify", bundle, "--runner", "c", "--predictions", bundle / "predictions.npz")
    assert done.returncode == 2
    assert "leave out predictions" in done.stderr


def test_a_picture_that_it_does_not_take(ort: Runner, bundle: Path, tiny_run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.webp"
    first = next(iter(sorted((tiny_run.parent / "photos").rglob("*.png"))))
    Image.open(first).save(picture, lossless=True)
    opened = load_bundle(bundle)
    with pytest.raises(DataError, match="neither JPEG nor PNG"):
        predict_in_c(place(opened, None), opened, [first, picture], ort.folder / "edgetl-run")
