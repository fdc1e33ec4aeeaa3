"""All that a run's outcome depends on, as it is written in ``run.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: The batch size unless one is given; what is given where one is to be found, and what stands for it until then.
BATCH_SIZE, AUTO, UNKNOWN = 32, "auto", 0


@dataclass(frozen=True)
class Settings:
    """Equal settings and equal data give equal weights (same machine, same number of threads).

    Attributes:
        data: an absolute path, or "digits".
        data_sha256: of a CSV file; None of a folder, whose files the run lists with their hashes.
        task, backbone, strategy: names; the strategy of a baseline is that of ``--baseline``.
        epochs, learning_rate: of the schedule; 0 for a strategy without gradient steps.
        batch_size: samples in a gradient step, over all devices together; :data:`UNKNOWN` until one is found by trial.
        seed: of everything drawn at random.
        weights: "pretrained", "none" or a file.
        weights_sha256: of the file; None without one.
        preprocess: the input definition's record; None of arrays, where the data decides it.
        accelerator, devices, precision: where and in what training computes.
        shares: of the samples, for each split.
        details: of the strategy.
        options: of the strategy, ``--set``, each with its value.
        augment: how training images vary: a name and, of a file, its steps.
        group_by: what of the data belongs together, as it was given; None for what they name themselves, alone.
        given: what it was given besides the data, and the SHA-256 of that.
    """

    data: str
    data_sha256: str | None
    task: str
    backbone: str
    strategy: str
    epochs: int
    learning_rate: float
    batch_size: int
    seed: int
    weights: str
    weights_sha256: str | None
    preprocess: Mapping[str, Any] | None
    accelerator: str
    devices: int
    precision: str
    shares: Mapping[str, float]
    details: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    augment: Mapping[str, Any] = field(default_factory=lambda: {"name": "light"})
    group_by: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


#: What was implied before a setting existed: a run of that time is one of these.
IMPLIED: Mapping[str, Any] = {
    "task": "classification",
    "details.params.embeddings": "frozen",
    "augment.name": "light",
    "group_by": None,
    "details.head.fit": "logistic",
    "details.head.folds": 0,
    "details.head.shrinkage": 0.0,
    "options.head": "logistic",
    "options.folds": 0,
    "details.params.unfreeze": 0.0,
    "details.schedule.shape": "cosine",
    "details.params.freeze": 0.0,
    "options.freeze": "0",
    "options.attention": 0.0,
    "options.keep": "best",
    "options.trains": "all",
    "options.l2_sp": 0.0,
    "options.layer_decay": 0.8,
    "options.unfreeze": 0.0,
    "options.batch_norm": "frozen",
    "options.schedule": "cosine",
    "options.patience": 8,
    "options.smoothing": 0.1,
    "options.balance": 0.5,
    "options.focal": 0.0,
    "options.mixup": 0.0,
    "options.cutmix": 0.0,
    "options.average": 0.0,
    "options.start_share": 0.0,
}
