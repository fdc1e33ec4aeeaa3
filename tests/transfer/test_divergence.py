"""Losses between domains: against their definitions, scikit-learn and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import rbf_kernel

from edgetl.transfer.divergence import Discriminator, coral, information, mmd, reversed_gradient, told_apart


def pair(seed: int = 0, n: int = 12, m: int = 17, d: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=draw, dtype=torch.float64), 1 + 2 * torch.randn(
        m, d, generator=draw, dtype=torch.float64
    )


def test_coral_is_the_distance_of_numpy_s_covariances() -> None:
    source, target = pair()
    apart = np.cov(source.numpy().T) - np.cov(target.numpy().T)
    assert coral(source, target).item() == pytest.approx((apart**2).sum() / (4 * 25))
    assert coral(source, source + 3).item() == pytest.approx(0.0, abs=1e-12), "means do not count"


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(2, 30), m=st.integers(2, 30), d=st.integers(1, 12))
def test_coral_and_mmd_are_skada_s(seed: int, n: int, m: int, d: int) -> None:
    theirs = pytest.importorskip("skada.deep.losses", reason="skada is not installed")
    source, target = pair(seed, n, m, d)
    assert coral(source, target).item() == pytest.approx(theirs.deepcoral_loss(source, target).item(), abs=1e-9)
    both = torch.cat([source, target])
    mean = torch.cdist(both, both).square().sum() / (len(both) * (len(both) - 1))

    def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        # The estimate is skada's. Its own kernel takes the distance where the paper has its square.
        squared = torch.cdist(x, y).square()
        return torch.stack([torch.exp(-squared / (w * mean)) for w in (0.25, 0.5, 1.0, 2.0, 4.0)]).sum(0)

    wanted = theirs._maximum_mean_discrepancy(source, target, kernel).item()
    assert mmd(source, target).item() == pytest.approx(wanted, abs=1e-9)


def test_mmd_is_its_definition_by_scikit_learn_s_kernels() -> None:
    source, target = (x.numpy() for x in pair(1))
    both = np.concatenate([source, target])
    squared = ((both[:, None] - both[None]) ** 2).sum(-1)
    mean = squared.sum() / (len(both) * (len(both) - 1))
    wanted = 0.0
    for width in (0.25, 0.5, 1.0, 2.0, 4.0):
        gamma = 1 / (width * mean)
        wanted += rbf_kernel(source, source, gamma).mean() + rbf_kernel(target, target, gamma).mean()
        wanted -= 2 * rbf_kernel(source, target, gamma).mean()
    assert mmd(*pair(1)).item() == pytest.approx(wanted)
    assert mmd(pair()[0], pair()[0]).item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("loss", [coral, mmd])
def test_gradients_are_those_of_finite_differences(loss: object) -> None:
    source, target = (x.requires_grad_() for x in pair(2, 6, 7, 3))
    if loss is coral:
        assert torch.autograd.gradcheck(coral, (source, target))
    else:  # the widths are held still: lower it by a step along its gradient instead
        before = mmd(source, target)
        before.backward()
        assert source.grad is not None
        assert mmd(source - 0.01 * source.grad / source.grad.norm(), target) < before


def test_the_reversed_gradient() -> None:
    x = pair()[0].requires_grad_()
    (reversed_gradient(x, 0.3) ** 2).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, -0.3 * 2 * x.detach())
    assert torch.equal(reversed_gradient(x, 0.3), x)
    # Reversed twice, finite differences find it: the product of both factors is 1. Once, they do not.
    assert torch.autograd.gradcheck(lambda y: reversed_gradient(reversed_gradient(y, 0.5), 2.0).sin(), (x,))
    assert not torch.autograd.gradcheck(lambda y: reversed_gradient(y, 1.0).sin(), (x,), raise_exception=False)


def test_a_discriminator_learns_to_tell_and_features_learn_not_to_be_told() -> None:
    torch.manual_seed(0)
    source, target = (x.float() for x in pair(3, 200, 200, 4))
    judge, shift = Discriminator(4, 16), torch.zeros(4, requires_grad=True)
    optimizer = torch.optim.Adam([*judge.parameters()], 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        told_apart(judge, source, target).backward()
        optimizer.step()
    assert told_apart(judge, source, target) < 0.5
    for _ in range(3):
        loss = told_apart(judge, source, reversed_gradient(target + shift, 1.0))
        (gradient,) = torch.autograd.grad(loss, shift)
        with torch.no_grad():
            shift -= 0.2 * gradient / gradient.norm()
    moved, before = (target + shift).mean(0), target.mean(0)
    assert (moved - source.mean(0)).norm() < (before - source.mean(0)).norm()


def test_information_is_least_where_answers_are_sure_and_divided() -> None:
    sure = 50 * torch.eye(4)
    assert information(sure).item() == pytest.approx(-np.log(4), abs=1e-4)
    assert information(torch.zeros(4, 4)).item() == pytest.approx(0.0, abs=1e-5)
    assert information(50 * torch.eye(4)[[0, 0, 0, 0]]).item() == pytest.approx(0.0, abs=1e-4), "all of one class"
