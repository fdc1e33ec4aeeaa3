"""How many groups of layers in front stay as they are: a share of them, or as many as the data hardly move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgetl.base.schema import Json
from edgetl.base.wording import percent
from edgetl.transfer.model import Deployable
from edgetl.transfer.samples import SampleStore
from edgetl.transfer.strategies.base import StepContext, Strategy
from edgetl.transfer.tasks import Learner, Scale
from edgetl.transfer.trainable import depths_of

AUTO = "auto"
#: Share of all relative gradients that the frozen groups may have together; batches that they are measured on, samples
#: of each.
LITTLE, BATCHES, SIZE = 0.1, 8, 32


@dataclass(frozen=True)
class Frozen:
    """What stays as it is.

    Attributes:
        groups: of layers, from the input on.
        of: how many there are, the head's among them.
        reason: in a sentence; "" where it was asked for.
        gradients: relative gradient norm of each group, from the input on; empty where none was measured.
    """

    groups: int = 0
    of: int = 0
    reason: str = ""
    gradients: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """As plain JSON values."""
        return {"groups": self.groups, "of": self.of, "reason": self.reason, "gradients": list(self.gradients)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Frozen:
        """What :meth:`to_json` wrote."""
        return cls(int(record["groups"]), int(record["of"]), str(record["reason"]), tuple(record["gradients"]))


def share(network: Deployable, given: float) -> Frozen:
    """So large a part of the groups, the head never among them."""
    of = max(depths_of(network.backbone).values()) + 1
    return Frozen(min(round(given * of), of - 1), of)


def chosen(found: Sequence[float]) -> Frozen:
    """As many groups in front as have together little of the relative gradients that :func:`gradients` found.

    Lee et al. 2023, "Surgical Fine-Tuning Improves Adaptation to Distribution Shifts" (Auto-RGN): what the loss hardly
    moves relative to its size suits the data already.
    """
    total = max(sum(found), 1e-12)
    shares = np.cumsum(found) / total
    groups = int(np.searchsorted(shares[:-1], LITTLE, side="right"))
    told = percent(shares[groups - 1], 1) if groups else "0 %"
    reason = (
        f"the first {groups} of {len(found)} groups of layers have together {told} of the relative gradients of the "
        f"loss on training samples, the first of the others {percent(found[groups] / total, 1)} alone"
    )
    return Frozen(groups, len(found), reason, tuple(round(value, 6) for value in found))


def gradients(
    network: Deployable,
    strategy: Strategy,
    learner: Learner,
    samples: tuple[SampleStore, Any],
    classes: int,
    scale: Scale,
) -> list[float]:
    """‖gradient‖ / ‖weights‖ of each group of layers, from the input on.

    Args:
        network: as training starts, its head fitted.
        strategy: whose loss counts.
        learner: of the task.
        samples: those to train on, as evaluation sees them, and their labels.
        classes: how many there are.
        scale: of the head's outputs.
    """
    store, labels = samples
    depths, named = depths_of(network.backbone), list(network.backbone.parameters())
    kept = [value.requires_grad for value in named]
    network.eval().requires_grad_(True)
    order = np.random.default_rng(0).permutation(len(store))[: BATCHES * SIZE]
    counts = torch.from_numpy(learner.counts(labels, classes))
    targets = learner.targets(labels, scale)
    for first in range(0, len(order), SIZE):
        for rows, arrays in store.batches(SIZE, order[first : first + SIZE].tolist()):
            loss = strategy.loss(_context(network, arrays, torch.from_numpy(targets[list(rows)]), counts, learner))
            (loss * len(rows) / len(order)).backward()
    last = max(depths.values())
    moved, size = np.zeros(last + 1), np.zeros(last + 1)
    for value in named:
        group = last - depths.get(id(value), last)
        moved[group] += 0.0 if value.grad is None else float(value.grad.double().square().sum())
        size[group] += float(value.detach().double().square().sum())
        value.grad = None
    for value, trains in zip(named, kept, strict=True):
        value.requires_grad_(trains)
    return [float(value) for value in np.sqrt(moved) / np.sqrt(np.maximum(size, 1e-24))]


def _context(
    network: Deployable, arrays: Mapping[str, Any], targets: Tensor, counts: Tensor, learner: Learner
) -> StepContext:
    inputs = {name: torch.from_numpy(values) for name, values in arrays.items()}
    names: Sequence[str] = [spec.name for spec in network.definition.tensors]

    def feed(module: nn.Module, given: Mapping[str, Tensor]) -> Tensor:
        found: Tensor = module(*(given[name] for name in names))
        return found.float()

    return StepContext(network, inputs, targets, feed(network, inputs), counts, {}, network, 0.0, learner.labels, feed)
