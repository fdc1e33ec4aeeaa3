"""Small networks for arrays, from random weights: table rows, sensor windows, spectrograms.

What they see is standardised already, by the statistics that the input definition holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from edgetl.base.errors import EdgetlError
from edgetl.core.tensors import TensorSpec

HIDDEN = 128
CHANNELS = (32, 64, 128)


class Mlp(nn.Module):
    """Two residual blocks of a hidden layer each, on numbers side by side (as in Gorishniy et al. 2021).

    A block starts as the identity, so that what the head sees is at first the input itself: a linear probe is a linear
    model, and fine-tuning starts from it.

    Args:
        sizes: numbers in each of the network's inputs.
        outputs: width of the head.
    """

    def __init__(self, sizes: Sequence[int], outputs: int) -> None:
        super().__init__()
        width = sum(sizes)
        self.blocks = nn.ModuleList(_block(width) for _ in range(2))
        self.head = nn.Linear(width, outputs)

    def forward(self, *inputs: Tensor) -> Tensor:
        """From arrays, float32 (n, …), to (n, outputs)."""
        parts = [x.flatten(1) for x in inputs]
        x = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Which layer a tensor belongs to, as timm's layer-wise learning rates ask."""
        return {"blocks": r"^blocks\.(\d+)"}


def _block(width: int) -> nn.Sequential:
    last = nn.Linear(HIDDEN, width)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), last)


class Cnn(nn.Module):
    """Three stages of two 3x3 convolutions, each halving height and width, and the mean over what is left.

    Args:
        shape: of one array, (height, width) or (channels, height, width).
        outputs: width of the head.
    """

    def __init__(self, shape: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.grey = len(shape) == 2
        widths = (1 if self.grey else shape[0], *CHANNELS)
        self.stages = nn.Sequential(*(_stage(a, b) for a, b in pairwise(widths)))
        self.head = nn.Linear(CHANNELS[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """From arrays, float32 (n, height, width) or (n, channels, height, width), to (n, outputs)."""
        return self.head(self.stages(x[:, None] if self.grey else x).mean((2, 3)))

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Which layer a tensor belongs to, as timm's layer-wise learning rates ask."""
        return {"blocks": r"^stages\.(\d+)"}


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def mlp(specs: Sequence[TensorSpec], outputs: int) -> Mlp:
    """An :class:`Mlp` for these inputs of a network."""
    return Mlp([math.prod(size or 1 for size in spec.shape[1:]) for spec in specs], outputs)


def cnn(specs: Sequence[TensorSpec], outputs: int) -> Cnn:
    """A :class:`Cnn` for these inputs of a network.

    Raises:
        EdgetlError: more than one input, or no array of two or three axes.
    """
    shape = [size or 1 for size in specs[0].shape[1:]]
    if len(specs) > 1 or len(shape) not in (2, 3):
        given = ", ".join(map(str, specs))
        raise EdgetlError(
            f"the backbone 'cnn' takes one array, (height, width) or (channels, height, width), not {given}",
            "use --backbone mlp",
        )
    return Cnn(shape, outputs)


#: By the backbone's name.
NETWORKS: Mapping[str, Callable[[Sequence[TensorSpec], int], nn.Module]] = {"mlp": mlp, "cnn": cnn}
