"""How far the features of two domains lie apart, with gradients: what adaptation lowers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Widths of the kernels, as shares of the mean squared distance (Long et al. 2015).
_WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


def coral(source: Tensor, target: Tensor) -> Tensor:
    """Squared Frobenius distance of the covariances, over 4 d² (Sun and Saenko 2016, "Deep CORAL").

    Args:
        source, target: features, float (n, d) and (m, d), at least two samples each.
    """
    apart = torch.cov(source.T) - torch.cov(target.T)
    return apart.square().sum() / (4 * source.shape[1] ** 2)


def mmd(source: Tensor, target: Tensor) -> Tensor:
    """Squared maximum mean discrepancy under a sum of Gaussian kernels, biased, so that it is never below 0.

    The widths follow the mean distance of the batch, without a gradient of their own. Long et al. 2015, "Learning
    Transferable Features with Deep Adaptation Networks".

    Args:
        source, target: features, float (n, d) and (m, d).
    """
    both = torch.cat([source, target])
    squared = torch.cdist(both, both).square()
    mean = squared.detach().sum() / max(len(both) * (len(both) - 1), 1)
    kernel = torch.stack([torch.exp(-squared / (width * mean).clamp_min(1e-12)) for width in _WIDTHS]).sum(0)
    n = len(source)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


class Reversal(torch.autograd.Function):
    """The identity, whose gradient is turned round (Ganin and Lempitsky 2015)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        """As it is."""
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Minus the factor times it."""
        return -ctx.factor * gradient, None


def reversed_gradient(x: Tensor, factor: float) -> Tensor:
    """``x``, through which the gradient comes back times ``-factor``."""
    found: Tensor = Reversal.apply(x, factor)
    return found


class Discriminator(nn.Sequential):
    """Tells which of two domains features come from; no part of what is exported.

    Args:
        features: how many.
        width: of both hidden layers.
    """

    def __init__(self, features: int, width: int = 256) -> None:
        super().__init__(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


def told_apart(discriminator: nn.Module, source: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of a discriminator that is to answer 1 to the source and 0 to the target, each a half."""
    # Together: of two calls of a module between processes, the gradients of one would be lost.
    one, zero = discriminator(torch.cat([source, target])).split([len(source), len(target)])
    first = functional.binary_cross_entropy_with_logits(one, torch.ones_like(one))
    return (first + functional.binary_cross_entropy_with_logits(zero, torch.zeros_like(zero))) / 2


def information(outputs: Tensor) -> Tensor:
    """Minus the mutual information of samples and answers: sure of each, and divided over all classes.

    Liang et al. 2020, "Do We Really Need to Access the Source Data?" (SHOT-IM).

    Args:
        outputs: logits, float (n, classes).
    """
    p = outputs.softmax(1)
    each = -(p * outputs.log_softmax(1)).sum(1).mean()
    mean = p.mean(0)
    return each + (mean * mean.clamp_min(1e-8).log()).sum()
