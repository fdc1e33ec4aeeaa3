"""Where a network looks: the energy of its activations over the channels, at each resolution.

Zagoruyko and Komodakis 2017, "Paying More Attention to Attention: Improving the Performance of Convolutional Neural
Networks via Attention Transfer".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgetl.base.errors import EdgetlError

#: Their outputs are planes, (n, channels, height, width), in whatever order memory has them.
_PLANES = (nn.Conv2d, nn.modules.batchnorm._BatchNorm)


class Maps:
    """What the last layer at each resolution gave in the last pass, from the finest on: float32 (n, c, height, width).

    Args:
        backbone: is watched until :meth:`release`.

    Raises:
        EdgetlError: it has no planes but those of patches.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self._seen: dict[int, Tensor] = {}
        layers = [module for module in backbone.modules() if isinstance(module, _PLANES)]
        if len(layers) < 2:
            what = f"attention is transferred between the planes of convolutions, and the network has {len(layers)}"
            raise EdgetlError(what, "leave --set attention out")
        self._hooks = [module.register_forward_hook(self._keep) for module in layers]
        self._hooks.append(backbone.register_forward_pre_hook(self._begin))

    @property
    def last(self) -> tuple[Tensor, ...]:
        """Of the last pass, with their gradients."""
        return tuple(self._seen[side] for side in sorted(self._seen, reverse=True))

    def release(self) -> None:
        """Watch no longer."""
        for hook in self._hooks:
            hook.remove()

    def _begin(self, module: nn.Module, inputs: Any) -> None:
        self._seen = {}

    def _keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        # Of one point there is nowhere to look.
        if output.dim() == 4 and output.shape[2] > 1:
            self._seen[int(output.shape[2])] = output.float()


def apart(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean squared distance of normalised attention at the resolutions that both have, the coarsest with the coarsest.

    Args:
        student, teacher: of :attr:`Maps.last`; a teacher's map is brought to the student's size.
    """
    pairs = list(zip(reversed(student), reversed(teacher), strict=False))
    parts = []
    for ours, theirs in pairs:
        there = functional.interpolate(_energy(theirs), ours.shape[2:], mode="bilinear", antialias=True)
        parts.append((_unit(_energy(ours)) - _unit(there)).square().sum(1).mean())
    return torch.stack(parts).mean()


def _energy(planes: Tensor) -> Tensor:
    return planes.square().mean(1, keepdim=True)


def _unit(energy: Tensor) -> Tensor:
    return functional.normalize(energy.flatten(1), dim=1)
