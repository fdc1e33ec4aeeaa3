"""The model as it is exported: a tensor for each of its outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgetl.transfer.columns import Columns
from edgetl.transfer.model import Deployable


class SeveralOutputs(nn.Module):
    """A model with a tensor for each of its outputs, as it is exported: its layers, by the names that they have."""

    def __init__(self, model: Deployable) -> None:
        super().__init__()
        self.normalise, self.backbone = model.normalise, model.backbone
        self._widths = list(model.shares.values())

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs of a batch, in order."""
        prepared = self.normalise(*inputs) if self.normalise is not None else inputs
        # What columns give is not joined first: joined, an 8-bit artifact would round it on one scale.
        found = self.backbone.apart(*prepared) if isinstance(self.backbone, Columns) else [self.backbone(*prepared)]
        widths, answers = iter(self._widths), list[Tensor]()
        for output in found:
            taken = list[int]()
            while sum(taken) < output.shape[1]:
                taken.append(next(widths))
            answers += torch.split(output.float(), taken, dim=1) if len(taken) > 1 else [output.float()]
        return tuple(answers)


def exportable(model: Deployable) -> nn.Module:
    """A model that gives its outputs one by one."""
    return SeveralOutputs(model).train(model.training) if model.shares else model
