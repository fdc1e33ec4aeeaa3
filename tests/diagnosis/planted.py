"""Planting one fault and diagnosing it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from edgetl.core.bundle import Bundle
from edgetl.core.findings import Finding
from edgetl.diagnosis import diagnose
from tests.diagnosis.catalogue import planted
from tests.diagnosis.healthy import observed


def found(
    bundles: Callable[..., Bundle], model: torch.nn.Module, target: str, name: str, folder: Path
) -> tuple[str, tuple[Finding, ...]]:
    """The kind that a fault of the catalogue has, and what diagnosis finds."""
    healthy, other = bundles(target), bundles(target, 3)
    fault = next(fault for fault in planted(healthy, other, model) if fault.name == name)
    faulty, deployed = fault.plant(folder / "faulty")
    seen = observed(faulty, healthy, deployed)
    return fault.kind, diagnose(faulty, seen, root=healthy.dataset.root)
