"""Means and variances of batch norms, measured on samples as evaluation sees them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from edgetl.base.errors import EdgetlError
from edgetl.base.progress import Progress, silent
from edgetl.transfer.columns import learns
from edgetl.transfer.model import Deployable
from edgetl.transfer.samples import SampleStore

_HOST = torch.device("cpu")
#: Samples whose statistics are measured at once.
_BATCH = 32


def norms_of(backbone: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Batch norms that keep statistics, and may change them."""
    return [
        module
        for name, module in backbone.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats and learns(backbone, name)
    ]


def check_norms(backbone: nn.Module, name: str) -> None:
    """Refuse a backbone that has no statistics to adapt.

    Raises:
        EdgetlError: it has no batch norm.
    """
    if not norms_of(backbone):
        remedy = "choose another backbone, or --set batch_norm=frozen where the strategy has that option"
        raise EdgetlError(f"the backbone '{name}' has no batch norm whose statistics could be adapted", remedy)


def values_of(backbone: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The statistics by name."""
    yield from (
        (name, value) for name, value in backbone.named_buffers() if name.endswith(("running_mean", "running_var"))
    )


def measure(
    network: Deployable,
    store: SampleStore,
    device: torch.device = _HOST,
    *,
    most: int | None = None,
    step: str = "batch statistics",
    progress: Progress = silent,
) -> None:
    """Replace the statistics by the plain mean of those of batches of samples, each norm behind measured ones.

    Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima", section 3.2; Wu and Johnson 2021, "Rethinking
    'Batch' in BatchNorm"; of another domain's samples it is what Li et al. 2017, "Revisiting Batch Normalization for
    Practical Domain Adaptation", do.

    Args:
        network: on ``device``; in evaluation mode afterwards.
        store: samples, as evaluation sees them.
        device: to compute on.
        most: samples that are looked at; None for all.
        step, progress: what is told.
    """
    norms = norms_of(network.backbone)
    kept = [module.momentum for module in norms]
    network.eval()
    for module in norms:
        module.reset_running_stats()
        module.train()
        # The plain mean over all batches.
        module.momentum = None
    # Batches of any classes, all of one size: their statistics count alike, and none is of one class alone.
    order = np.random.default_rng(0).permutation(len(store))[:most]
    size = min(_BATCH, len(order))
    with torch.no_grad():
        for first in range(0, len(order) - size + 1, size):
            for _, batch in store.batches(size, order[first : first + size].tolist()):
                network.fed(batch, device)
            progress(step, first + size, len(order))
    for module, momentum in zip(norms, kept, strict=True):
        module.momentum = momentum
        module.eval()


@contextmanager
def left_alone(backbone: nn.Module) -> Iterator[None]:
    """In the block, training uses a batch's statistics and keeps none of them."""
    norms = norms_of(backbone)
    kept = [module.momentum for module in norms]
    for module in norms:
        module.momentum = 0.0
    try:
        yield
    finally:
        for module, momentum in zip(norms, kept, strict=True):
            module.momentum = momentum
