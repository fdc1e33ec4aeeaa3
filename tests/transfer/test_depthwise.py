"""Depthwise convolutions train as the library's do, only quicker."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from edgetl.transfer.depthwise import PLACES, Depthwise, quicken


def layers(size: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(6, 6, size, stride, size // 2, groups=6, bias=bias)


@pytest.mark.parametrize(("side", "size"), [(1, 5), (2, 5), (4, 7)])
def test_gradients_are_those_of_the_library(side: int, size: int) -> None:
    torch.manual_seed(1)
    x = torch.randn(3, 6, side, side, dtype=torch.double, requires_grad=True)
    weight = torch.randn(6, 1, size, size, dtype=torch.double, requires_grad=True)
    bias = torch.randn(6, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(Depthwise.apply, (x, weight, bias))
    ours = torch.autograd.grad(Depthwise.apply(x, weight, bias).square().sum(), (x, weight, bias))
    plain = conv2d(x, weight, bias, padding=size // 2, groups=6).square().sum()
    for own, given in zip(ours, torch.autograd.grad(plain, (x, weight, bias)), strict=True):
        torch.testing.assert_close(own, given)


@pytest.mark.parametrize("side", [3, 4, 5, 9])
@pytest.mark.parametrize("layer", [layers(5), layers(5, bias=False), layers(3), layers(5, stride=2), layers(4)])
def test_a_network_trains_the_same(layer: nn.Conv2d, side: int) -> None:
    plain, quick = nn.Sequential(copy.deepcopy(layer), nn.ReLU()), nn.Sequential(copy.deepcopy(layer), nn.ReLU())
    quicken(quick)
    x = torch.randn(8, 6, side, side).to(memory_format=torch.channels_last)
    found: list[list[Tensor]] = []
    for network in (plain, quick):
        given = x.clone().requires_grad_()
        network(given).square().sum().backward()
        assert given.grad is not None
        found.append([given.grad, *(value.grad for value in network.parameters() if value.grad is not None)])
    assert len(found[0]) == len(found[1])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_own_gradient_is_used_where_it_is_quicker() -> None:
    layer = layers(5)
    quicken(layer)
    side = round(PLACES**0.5)
    small, large = (layer(torch.randn(2, 6, n, n, requires_grad=True)).grad_fn for n in (side, side + 1))
    assert "Depthwise" in type(small).__name__
    assert "Depthwise" not in type(large).__name__


def test_what_does_not_train_is_left_to_the_library() -> None:
    layer = layers(5).requires_grad_(False)
    quicken(layer)
    assert "Depthwise" not in type(layer(torch.randn(2, 6, 2, 2, requires_grad=True)).grad_fn).__name__


def test_autocast_leaves_it_in_float32() -> None:
    layer = layers(5)
    quicken(layer)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(2, 6, 4, 4)).dtype == torch.float32
