"""Faults in OpenVINO IR, planted for real: caught, and called by their kind and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgetl.core.bundle import Bundle
from edgetl.diagnosis import diagnose
from tests.diagnosis.healthy import observed
from tests.diagnosis.planted import found

PLANTED = (
    "BGR in the graph",
    "wrong mean and std in the graph",
    "NHWC/NCHW mix-up in the graph",
    "runner: interpolation",
    "calibration with uniform noise",
    "ranges of another model",
    "saturating s8 activations",
    "head's rows permuted",
    "one scale for depthwise weights",
    "one channel zeroed",
    "head row damaged",
)


@pytest.mark.parametrize("name", PLANTED)
def test_a_fault_is_named(bundles: Callable[..., Bundle], model: torch.nn.Module, name: str, tmp_path: Path) -> None:
    kind, findings = found(bundles, model, "intel-cpu", name, tmp_path)
    assert [finding.kind for finding in findings] == [kind]


def test_an_honest_bundle_has_no_fault(bundles: Callable[..., Bundle]) -> None:
    healthy = bundles("intel-cpu")
    assert diagnose(healthy, observed(healthy, healthy), root=healthy.dataset.root) == ()
