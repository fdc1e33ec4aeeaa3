"""An unfinished run on disk: enough to go on as if nothing had happened.

    checkpoint/settings.json              what the run was started with
    checkpoint/epoch-0000.safetensors     the start: the backbone with its fitted head
    checkpoint/epoch-NNNN.safetensors     the best epoch so far, named in last.pt: what trains, and every buffer
    checkpoint/last.pt                    the same of the current step, optimizer, gradient scaler and State

The generator state needs no saving: every random draw is a function of seed, epoch, step and rank.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from edgetl.base.errors import RunError
from edgetl.base.storage import write_bytes
from edgetl.transfer.scores import Scores

LAST = "last.pt"


@dataclass
class State:
    """How far training has come.

    Attributes:
        best: scores of the best epoch.
        best_epoch: 0 is the start, before the first gradient step.
        epoch: epochs done.
        step: steps done in the current one.
        stale: epochs since the best one.
        sums: of the current epoch: loss times samples, samples right, samples.
        history: a row for each epoch done, the start first.
        seconds: spent in training steps.
    """

    best: Scores
    best_epoch: int = 0
    epoch: int = 0
    step: int = 0
    stale: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def epoch_file(folder: Path, epoch: int) -> Path:
    """Where the weights of an epoch lie."""
    return folder / f"epoch-{epoch:04d}.safetensors"


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a state dict as safetensors, whole or not at all."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, safetensors.torch.save(plain))


def save(folder: Path, state: State, parts: Mapping[str, Any]) -> None:
    """Write ``last.pt``, then drop the weights of epochs that are no longer the best.

    Args:
        folder: the run's checkpoint folder.
        state: the progress.
        parts: objects with ``state_dict``, by name.
    """
    buffer = io.BytesIO()
    torch.save({"state": asdict(state), **{name: part.state_dict() for name, part in parts.items()}}, buffer)
    write_bytes(folder / LAST, buffer.getvalue())
    kept = {epoch_file(folder, 0), epoch_file(folder, state.best_epoch)}
    for file in set(folder.glob("epoch-*.safetensors")) - kept:
        file.unlink(missing_ok=True)


def restore(folder: Path, parts: Mapping[str, Any]) -> State | None:
    """Fill ``parts`` and return the progress, or None where training has not begun.

    Raises:
        RunError: the file is damaged.
    """
    file = folder / LAST
    if not file.is_file():
        return None
    try:
        held = torch.load(file, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(held[name])
        record = held["state"]
        return State(**{**record, "best": Scores(**record["best"])})
    except (RuntimeError, KeyError, TypeError, ValueError, EOFError) as error:
        raise RunError(f"{file} is damaged", "start over with --fresh") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a file of :func:`write_weights`, by name."""
    return dict(safetensors.torch.load_file(path))


def load_weights(path: Path, model: nn.Module) -> nn.Module:
    """Fill a backbone from a file of :func:`write_weights` that holds all of it."""
    model.load_state_dict(read_weights(path))
    return model
