"""Batches of mixed samples: mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edgetl.transfer.strategies.base import Mix


@dataclass(frozen=True)
class Mixed:
    """A batch whose samples are made of two.

    Attributes:
        inputs: the network's, by name.
        partners: for each sample the one that it was mixed with, int64 (n,).
        share: of the sample's own, 0.5 to 1; the rest is its partner's.
    """

    inputs: Mapping[str, Tensor]
    partners: Tensor
    share: float


def mixed(inputs: Mapping[str, Tensor], mix: Mix) -> Mixed:
    """Mix every sample with another one of the batch, drawn from torch's generator.

    Args:
        inputs: images, uint8 (n, height, width, channels), or arrays, float (n, …), by name.
        mix: how; of both ways one is drawn.
    """
    first = next(iter(inputs.values()))
    ways = [name for name, alpha in (("mixup", mix.mixup), ("cutmix", mix.cutmix)) if alpha]
    way = ways[int(torch.randint(len(ways), ()))]
    alpha = mix.mixup if way == "mixup" else mix.cutmix
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    share = max(share, 1 - share)
    partners = torch.randperm(len(first)).to(first.device)
    if way == "mixup" or first.ndim != 4:
        return Mixed({name: _blended(x, partners, share) for name, x in inputs.items()}, partners, share)
    return _patched(inputs, partners, share)


def _blended(x: Tensor, partners: Tensor, share: float) -> Tensor:
    blend = share * x.float() + (1 - share) * x[partners].float()
    return blend.round().to(x.dtype) if x.dtype == torch.uint8 else blend.to(x.dtype)


def _patched(inputs: Mapping[str, Tensor], partners: Tensor, share: float) -> Mixed:
    ((name, images),) = inputs.items()
    height, width = images.shape[1:3]
    side = math.sqrt(1 - share)
    middle = torch.rand(2).tolist()
    ends = [
        (max(round(at * size - side * size / 2), 0), min(round(at * size + side * size / 2), size))
        for at, size in zip(middle, (height, width), strict=True)
    ]
    (top, bottom), (left, right) = ends
    cut = images.clone()
    cut[:, top:bottom, left:right] = images[partners, top:bottom, left:right]
    # At an edge the window is smaller than what was drawn.
    covered = (bottom - top) * (right - left) / (height * width)
    return Mixed({name: cut}, partners, 1 - covered)
