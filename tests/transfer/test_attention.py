"""Attention transfer: the paper's own formula, what it leaves out of account, a student that looks where it should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgetl.base.errors import EdgetlError
from edgetl.transfer.attention import Maps, apart
from edgetl.transfer.finetune import finetune
from edgetl.transfer.model import load_model

from .conftest import TINY
from .test_strategies import written

FAST: dict[str, Any] = {**TINY, "epochs": 2, "learning_rate": 0.003}


def planes(seed: int, channels: int, side: int) -> torch.Tensor:
    return torch.randn(3, channels, side, side, generator=torch.Generator().manual_seed(seed))


def test_the_distance_is_the_paper_s() -> None:
    ours, theirs = planes(0, 4, 5), planes(1, 7, 5)
    energies = [(x.numpy() ** 2).mean(1).reshape(3, -1) for x in (ours, theirs)]
    units = [energy / np.linalg.norm(energy, axis=1, keepdims=True) for energy in energies]
    assert apart([ours], [theirs]).item() == pytest.approx(((units[0] - units[1]) ** 2).sum(1).mean(), rel=1e-5)
    # The number of channels, their order, their signs and the scale say nothing of where.
    assert apart([ours], [-3 * torch.cat([ours, ours.flip(1)], 1)]).item() == pytest.approx(0.0, abs=1e-6)
    # The coarsest are compared with the coarsest, however many finer ones there are.
    assert apart([planes(2, 3, 9), ours], [ours]).item() == pytest.approx(0.0, abs=1e-6)


def test_maps_are_the_last_planes_of_each_resolution() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5),
        nn.Conv2d(5, 6, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 2, 1), nn.Flatten(),
    )  # fmt: skip
    maps, image = Maps(network), planes(0, 3, 8)
    network(image)
    assert [tuple(x.shape) for x in maps.last] == [(3, 5, 8, 8), (3, 6, 4, 4)]
    maps.release()
    before = maps.last
    network(planes(1, 3, 8))
    assert all(ours is theirs for ours, theirs in zip(maps.last, before, strict=True)), "no longer watched"
    with pytest.raises(EdgetlError, match="the network has 0"):
        Maps(nn.Linear(2, 2))


def test_a_student_comes_to_look_where_its_teacher_does(tmp_path: Path) -> None:
    digits = written(tmp_path / "digits", 0, 250)
    teacher = finetune(digits, tmp_path / "teacher", **FAST, strategy="linear-probe")
    other = {**FAST, "epochs": 4, "backbone": "timm/test_resnet", "strategy": "distillation", "teacher": teacher.path}
    run = finetune(digits, tmp_path / "student", **other, set={"attention": 30})
    assert run.settings["details"]["terms"][-1] == "imitation (temperature 2, attention 30)"
    assert not any(module._forward_hooks for module in load_model(run).modules())
    # The loss that is told is that of the labels, of the answers, and 30 times that of the attention.
    losses = [row["train_loss"] for row in run.history[1:]]
    plain = finetune(digits, tmp_path / "plain", **other, set={"attention": 0})
    assert losses[0] > plain.history[1]["train_loss"] + 1
    assert losses[-1] - plain.history[-1]["train_loss"] < 0.8 * (losses[0] - plain.history[1]["train_loss"])
    patches = {**TINY, "backbone": "timm/test_vit", "image_size": 160}
    blind = finetune(digits, tmp_path / "vit", **patches, strategy="linear-probe")
    with pytest.raises(EdgetlError, match="leave --set attention out"):
        finetune(digits, tmp_path / "no", **{**other, "teacher": blind.path}, set={"attention": 1})
