"""What the head sees: the backbone's features, computed once and kept while the run is unfinished."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
from torch import nn

from edgetl.base.progress import Progress, silent
from edgetl.base.storage import sha256_json, write_bytes
from edgetl.transfer.classifier import head_of
from edgetl.transfer.model import Deployable
from edgetl.transfer.samples import SampleStore

Floats = npt.NDArray[np.float32]
BATCH = 32
#: Batches whose features stay on the device until the host waits for them.
HELD = 16


def compute(
    model: Deployable, store: SampleStore, device: torch.device, step: str = "features", progress: Progress = silent
) -> Floats:
    """The head's input for each sample as evaluation sees it, float32, shape (n, features)."""
    _, head = head_of(model.backbone)
    seen: list[torch.Tensor] = []
    taken: list[torch.Tensor] = []
    order: list[int] = []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(inputs[0].flatten(1).float())

    def take() -> None:
        taken.append(torch.cat(seen).cpu())
        seen.clear()

    hook = head.register_forward_pre_hook(keep)
    model.eval().to(device)
    try:
        with torch.inference_mode():
            for indices, batch in store.batches(BATCH):
                model.fed(batch, device)
                order += indices
                if len(seen) == HELD:
                    take()
                progress(step, len(order), len(store))
            if seen:
                take()
    finally:
        hook.remove()
    return np.ascontiguousarray(torch.cat(taken).numpy()[np.argsort(order)])


def cached(folder: Path, key: Any, computed: Callable[[], Mapping[str, Floats]]) -> dict[str, Floats]:
    """Features of several splits, from ``folder`` if they were computed before under the same key.

    Args:
        folder: where ``features-HASH.safetensors`` lies.
        key: what the features depend on, as JSON values: weights, splits, preprocessing, device.
        computed: gives them by the name of the split.
    """
    file = folder / f"features-{sha256_json(key)[:16]}.safetensors"
    if file.is_file():
        return dict(safetensors.numpy.load_file(file))
    held = dict(computed())
    write_bytes(file, safetensors.numpy.save(held))
    return held
