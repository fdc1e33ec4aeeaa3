"""Checking an order for a run before any work is done."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.base.errors import DataError, EdgetlError
from edgetl.base.storage import sha256_file
from edgetl.core.data import SHARES, SPLITS
from edgetl.core.run import CHECKPOINT
from edgetl.inputs.image import Preprocess
from edgetl.transfer import backbones, strategies, weights
from edgetl.transfer.placement import Placement, place


@dataclass(frozen=True)
class Options:
    """The arguments of :func:`edgetl.transfer.finetune.finetune`, as given."""

    data: str | Path
    out: str | Path
    backbone: str
    strategy: str
    epochs: int | None
    seed: int
    batch_size: int
    learning_rate: float | None
    image_size: int | None
    weights: str | Path | None
    devices: int
    accelerator: str
    precision: str
    workers: int | None
    shares: Mapping[str, float] | None
    checkpoint_seconds: float


@dataclass(frozen=True)
class Plan:
    """A checked order: everything resolved, nothing done yet.

    Attributes:
        data: a folder, a CSV file, or "digits".
        out: the run's folder.
        settings: all that the outcome depends on, as plain JSON values; equal settings and data give equal weights.
        workers, checkpoint_seconds: what it does not depend on.
    """

    data: str | Path
    out: Path
    strategy: strategies.Strategy
    backbone: backbones.Backbone
    source: weights.WeightsSource
    preprocess: Preprocess
    placement: Placement
    settings: Mapping[str, Any]
    workers: int
    checkpoint_seconds: float

    @property
    def checkpoints(self) -> Path:
        """The run's checkpoint folder."""
        return self.out / CHECKPOINT


def plan(options: Options) -> Plan:
    """Resolve names, sizes and devices.

    Raises:
        EdgetlError: whatever can be seen to be wrong without reading an image; see ``finetune``.
    """
    _check_numbers(options)
    data = options.data
    if str(data) != "digits" and not Path(data).exists():
        raise DataError(
            f"there is no {data}", "give a folder with a folder for each class, a CSV file (path,label), or 'digits'"
        )
    strategy = strategies.find(options.strategy).scheduled(options.epochs, options.learning_rate)
    backbone = backbones.find(options.backbone)
    made = Plan(
        data=data,
        out=Path(options.out),
        strategy=strategy,
        backbone=backbone,
        source=weights.locate(backbone, options.weights),
        preprocess=backbones.preprocess_for(options.backbone, options.image_size),
        placement=place(options.accelerator, options.devices, options.precision),
        settings={},
        workers=0,
        checkpoint_seconds=options.checkpoint_seconds,
    )
    workers = _default_workers(made.placement) if options.workers is None else options.workers
    return Plan(**{**vars(made), "settings": _settings(made, options), "workers": workers})


def _settings(made: Plan, options: Options) -> dict[str, Any]:
    data, source, shares = made.data, made.source, options.shares or SHARES
    return {
        "data": str(data) if str(data) == "digits" else str(Path(data).resolve()),
        "data_sha256": sha256_file(Path(data)) if Path(data).is_file() else None,
        "backbone": made.backbone.name,
        "strategy": options.strategy,
        "epochs": made.strategy.schedule.epochs,
        "learning_rate": made.strategy.schedule.learning_rate,
        "batch_size": options.batch_size,
        "seed": options.seed,
        "weights": "pretrained" if options.weights is None else str(options.weights),
        "weights_sha256": sha256_file(source.file) if source.file else None,
        "preprocess": made.preprocess.to_json(),
        "accelerator": made.placement.accelerator,
        "devices": made.placement.devices,
        "precision": made.placement.precision,
        "shares": {name: float(shares.get(name, 0.0)) for name in SPLITS},
        "details": made.strategy.to_json(),
    }


def _check_numbers(options: Options) -> None:
    rate = options.learning_rate
    rules = (
        ("epochs", options.epochs, options.epochs is None or options.epochs >= 1, "at least 1"),
        ("seed", options.seed, options.seed >= 0, "at least 0"),
        ("batch size", options.batch_size, options.batch_size >= max(options.devices, 1), "at least the devices"),
        ("learning rate", rate, rate is None or (rate > 0 and math.isfinite(rate)), "a positive number"),
        ("number of workers", options.workers, options.workers is None or options.workers >= 0, "at least 0"),
        ("checkpoint interval", options.checkpoint_seconds, options.checkpoint_seconds >= 0, "at least 0 seconds"),
    )
    for name, given, fine, wanted in rules:
        if not fine:
            raise EdgetlError(f"the {name} is {given}", f"give {wanted}")


def _default_workers(placement: Placement) -> int:
    # On the CPU the model takes all cores, and one loader is enough to overlap with it.
    share = (os.cpu_count() or 1) // placement.devices
    return min(8, max(share - 1, 1)) if placement.accelerator == "cuda" else int(share > 1)
