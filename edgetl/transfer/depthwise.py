"""Depthwise convolutions as they train fastest on a CPU, with the gradients that they have anyway.

Figures are of EfficientNet-Lite0 and torch 2.15.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

#: Width of the windows from which on, and places of the output up to which, the library has no quick kernel for the
#: gradient of the weights. Of 32 images, on one core of an EPYC with AVX2: 1,152 channels of 2 by 2 took 45 ms, and 6
#: this way; of 4 by 4, 60 and 28; of 7 by 7, 43 and 79.
WINDOW, PLACES = 5, 16


def quicken(network: nn.Module) -> None:
    """Run grouped convolutions in float32 inside CPU autocast, small ones with a backward pass of their own, in place.

    Their bfloat16 backward has no fast kernel: at 224 pixels 10.4 images a second are trained on one core with all of
    it in bfloat16, 12.9 in float32 and 15.7 with only these in float32 (Zen 4).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            forward = functools.partial(_quick, module) if _windowed(module) else module.forward
            module.forward = functools.partial(_in_float32, forward)


def _in_float32(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return forward(x.float())


def _windowed(layer: nn.Conv2d) -> bool:
    """Whether each channel has a wide window of its own, over an input that is as large as the output."""
    plain = type(layer).forward is nn.Conv2d.forward and layer.padding_mode == "zeros"
    still = layer.stride == (1, 1) and layer.dilation == (1, 1)
    own = layer.groups == layer.in_channels == layer.out_channels
    size = layer.kernel_size
    around = layer.padding == (size[0] // 2, size[1] // 2)
    return plain and still and own and around and size[0] == size[1] >= WINDOW and size[0] % 2 == 1


def _quick(layer: nn.Conv2d, x: Tensor) -> Tensor:
    if x.shape[-2] * x.shape[-1] > PLACES or not layer.weight.requires_grad:
        return conv2d(x, layer.weight, layer.bias, padding=layer.padding, groups=layer.groups)
    found: Tensor = Depthwise.apply(x, layer.weight, layer.bias)
    return found


class Depthwise(torch.autograd.Function):
    """A convolution of each channel by itself, whose weights' gradient is a sum of products for each place of a window.

    Input (n, channels, height, width), weight (channels, 1, size, size) of an odd size, bias (channels,) or None; the
    output is of the input's shape.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution."""
        ctx.save_for_backward(x, weight)
        return conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Of the input, the weights and the bias."""
        (gradient,), (x, weight) = gradients, ctx.saved_tensors
        size, around, groups = weight.shape[-1], weight.shape[-1] // 2, len(weight)
        of_input = None
        if ctx.needs_input_grad[0]:
            # The same convolution, with its windows turned round.
            of_input = conv2d(gradient, weight.flip(2, 3), padding=around, groups=groups)
        height, width = x.shape[-2:]
        wide = pad(x, (around,) * 4)
        of_weight = torch.empty_like(weight)
        for row in range(size):
            for column in range(size):
                seen = wide[:, :, row : row + height, column : column + width]
                of_weight[:, 0, row, column] = (gradient * seen).sum((0, 2, 3))
        return of_input, of_weight, gradient.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
