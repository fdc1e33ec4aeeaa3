"""What a later model still knows of the earlier task: in float and in int8, and against its definition."""

from __future__ import annotations

import json
import shutil
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

import edgetl
from edgetl.base.errors import DataError, RunError
from edgetl.core.run import WEIGHTS, Run, load_run
from edgetl.transfer.classifier import head_of
from edgetl.transfer.finetune import finetune
from edgetl.transfer.model import load_model
from tests.records import put_into_run

Edgetl = Callable[..., subprocess.CompletedProcess[str]]
TINY: dict[str, Any] = {
    "backbone": "timm/test_efficientnet", "weights": "none", "image_size": 32, "precision": "32-true",
    "accelerator": "cpu", "workers": 0, "batch_size": 16,
}  # fmt: skip


def pictures(folder: Path, digits: range) -> Path:
    bunch = load_digits()
    for digit in digits:
        for index in np.flatnonzero(bunch.target == digit)[:60]:
            file = folder / str(digit) / f"{index:04d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(bunch.images[index] * 16, 0, 255).astype(np.uint8)).save(file)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run on the first five digits, a probe that goes on from it to the others, and one whose weights moved far."""
    root = tmp_path_factory.mktemp("retention")
    first, second = pictures(root / "first", range(5)), pictures(root / "second", range(5, 10))
    old = finetune(first, root / "old", **TINY, epochs=4, learning_rate=0.003)
    later = {**TINY, "weights": None, "from_run": old.path}
    probe = finetune(second, root / "probe", **later, strategy="linear-probe")
    shutil.copytree(probe.path, root / "moved")
    draw, held = torch.Generator().manual_seed(0), safetensors.torch.load_file(probe.path / WEIGHTS)
    for name, value in held.items():
        if value.is_floating_point() and value.dim() == 4:
            held[name] = value + 0.6 * value.std() * torch.randn(value.shape, generator=draw)
    put_into_run(root / "moved", WEIGHTS, safetensors.torch.save(held))
    return {"old": old, "probe": probe, "moved": load_run(root / "moved")}


def test_a_backbone_that_did_not_move_knows_all(runs: dict[str, Run]) -> None:
    for name in ("old", "probe"):
        found = edgetl.retention(runs[name], runs["old"])
        assert (found.difference, found.before, found.left_out) == (0.0, found.after, 0), name
    assert found.n == len(runs["old"].dataset.split("search"))


def test_what_was_forgotten_is_the_old_head_s_loss_on_the_new_features(runs: dict[str, Run]) -> None:
    found, old = edgetl.retention(runs["moved"], runs["old"]), load_model(runs["old"])
    moved = load_model(runs["moved"])
    head_of(moved.backbone)[1].weight.data = head_of(old.backbone)[1].weight.data
    head_of(moved.backbone)[1].bias.data = head_of(old.backbone)[1].bias.data
    image = torch.from_numpy(old.definition.batch(runs["old"].dataset.paths("search"))["image"])
    labels = runs["old"].dataset.labels("search")
    with torch.no_grad():
        right = [float((model(image).argmax(1).numpy() == labels).mean()) for model in (old, moved)]
    assert (found.before, found.after) == pytest.approx(tuple(right))
    assert found.ci_low <= found.difference < 0
    assert found.difference == pytest.approx(found.after - found.before)


def test_other_samples_of_the_task_and_those_that_were_trained_on(runs: dict[str, Run], tmp_path: Path) -> None:
    data = runs["old"].dataset.root
    found = edgetl.retention(runs["moved"], runs["old"], data=data)
    sizes = runs["old"].dataset.sizes()
    assert (found.n, found.left_out) == (sum(sizes.values()) - sizes["train"], sizes["train"])
    with pytest.raises(DataError, match="has the class '5'"):
        edgetl.retention(runs["moved"], runs["old"], data=runs["moved"].dataset.root)
    other = finetune(data, tmp_path / "mlp", **{**TINY, "backbone": "timm/test_resnet"}, strategy="linear-probe")
    with pytest.raises(RunError, match="name the run that it started from"):
        edgetl.retention(other, runs["old"])


def test_an_int8_bundle_is_asked_for_its_own_features(edgetl: Edgetl, runs: dict[str, Run], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = edgetl("export", runs["probe"].path, "--target", "x86-generic", "--out", out, "--no-bench", "--quiet")
    assert done.returncode in (0, 3, 4), done.stderr
    told = edgetl("retention", out / "x86-generic", "--of", runs["old"].path, "--json")
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["n"] == len(runs["old"].dataset.split("search"))
    # The float backbone is the old one; what int8 moved is little, and is not nothing.
    assert abs(found["difference"]) <= 0.2
    plain = edgetl("retention", runs["moved"].path, "--of", runs["old"].path)
    assert "of the earlier task" in plain.stdout
