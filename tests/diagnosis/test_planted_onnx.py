"""Every fault in Q/DQ ONNX, planted for real: caught, and called by its kind and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgetl.core.bundle import Bundle
from edgetl.diagnosis import diagnose
from tests.diagnosis.healthy import observed
from tests.diagnosis.planted import found

EVERYWHERE = (
    "BGR in the graph",
    "wrong mean and std in the graph",
    "NHWC/NCHW mix-up in the graph",
    "runner: channel-order",
    "runner: normalisation",
    "runner: crop-before-resize",
    "runner: interpolation",
    "runner: crop-ratio",
    "runner: layout",
    "bilinear in preprocess.json",
    "crop ratio 1 in preprocess.json",
    "labels.json permuted",
    "calibration with one class",
    "calibration with 4 images",
    "calibration overlaps certify",
    "calibration with uniform noise",
    "calibration with normal noise",
    "ranges of another model",
    "saturating s8 activations",
    "head's rows permuted",
    "one scale for depthwise weights",
    "one channel zeroed",
    "head row damaged",
    "batch norm in training mode",
    "batch statistics",
)
ANEW = ("calibration with uniform noise", "ranges of another model", "saturating s8 activations")


@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_fault_is_named(bundles: Callable[..., Bundle], model: torch.nn.Module, name: str, tmp_path: Path) -> None:
    kind, findings = found(bundles, model, "x86-generic", name, tmp_path)
    assert [finding.kind for finding in findings] == [kind]


@pytest.mark.parametrize("name", ANEW)
def test_a_fault_is_named_with_signed_activations(
    bundles: Callable[..., Bundle], model: torch.nn.Module, name: str, tmp_path: Path
) -> None:
    kind, findings = found(bundles, model, "jetson-orin-nano", name, tmp_path)
    assert [finding.kind for finding in findings] == [kind]


@pytest.mark.parametrize("target", ["x86-generic", "jetson-orin-nano"])
def test_an_honest_bundle_has_no_fault(bundles: Callable[..., Bundle], target: str) -> None:
    healthy = bundles(target)
    assert diagnose(healthy, observed(healthy, healthy), root=healthy.dataset.root) == ()
