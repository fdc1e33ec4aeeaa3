"""What the head sees: the backbone's features, computed once and kept while the run is unfinished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from edgetl.transfer.model import Deployable, eval_batch, gathered
from edgetl.transfer.samples import SampleStore

Floats = npt.NDArray[np.float32]


class HeadInput:
    """What the head of a backbone saw last, float32 (n, features), with its gradient."""

    def __init__(self, backbone: nn.Module) -> None:
        self.last: torch.Tensor | None = None
        self._hook = head_of(backbone)[1].register_forward_pre_hook(self._keep)

    def release(self) -> None:
        """Watch no longer."""
        self._hook.remove()

    def _keep(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.last = inputs[0].flatten(1).float()


def compute(
    model: Deployable, store: SampleStore, device: torch.device, step: str = "features", progress: Progress = silent
) -> Floats:
    """The head's input for each sample as evaluation sees it, float32, shape (n, features)."""
    seen, done = HeadInput(model.backbone), 0

    def fed() -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        nonlocal done
        for indices, batch in store.batches(eval_batch(model.definition, device)):
            model.fed(batch, device)
            assert seen.last is not None
            yield indices, seen.last
            done += len(indices)
            progress(step, done, len(store))

    model.eval().to(device)
    try:
        with torch.inference_mode():
            parts = list(gathered(fed()))
    finally:
        seen.release()
    order = [index for indices, _ in parts for index in indices]
    return np.ascontiguousarray(torch.cat([values for _, values in parts]).numpy()[np.argsort(order)])


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
