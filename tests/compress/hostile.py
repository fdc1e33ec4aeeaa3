"""A function-preserving rescaling of channels that ruins quantization, for the small network."""

from __future__ import annotations

import math

import torch

from tests.compress.models import Small, small_model

#: Layers that write or read the rescaled tensors.
RESCALED = {"body.4.layers.6", "body.5.layers.0", "body.5.layers.6", "head"}


def hostile_model(span: float = 32.0) -> Small:
    """The small network whose 24 last channels are scaled by 1/span to span, and scaled back where they are read."""
    model = small_model()
    draw = torch.Generator().manual_seed(5)
    factors = torch.exp((torch.rand(24, generator=draw) * 2 - 1) * math.log(span))
    with torch.no_grad():
        for block in (model.body[4], model.body[5]):
            block.layers[7].weight.mul_(factors)
            block.layers[7].bias.mul_(factors)
        model.body[5].layers[0].weight.div_(factors.reshape(1, -1, 1, 1))
        model.head.weight.div_(factors)
    return model
