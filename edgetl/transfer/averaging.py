"""Means of weights: over the steps of one training (Polyak and Juditsky 1992), or of several models."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from edgetl.transfer.trainable import Trained


class Average:
    """Of the values that train; buffers are those of the last step.

    Args:
        trained: what changes in training.
        decay: share of the average that a step leaves; less in the first steps, so that the start is soon forgotten.
    """

    def __init__(self, trained: Trained, decay: float) -> None:
        self.trained, self.decay, self.steps = trained, decay, 0
        self.held = {name: value.detach().clone() for name, value in trained.state_dict().items()}

    def update(self) -> None:
        """Take in the values after a step."""
        self.steps += 1
        kept = min(self.decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for name, value in self.trained.state_dict().items():
                if value.is_floating_point():
                    self.held[name].lerp_(value, 1 - kept)
                else:
                    self.held[name].copy_(value)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The network with the average in the place of its values."""
        raw = {name: value.detach().clone() for name, value in self.trained.state_dict().items()}
        self.trained.load_state_dict(self.held)
        try:
            yield
        finally:
            self.trained.load_state_dict(raw)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"steps": self.steps, "held": dict(self.held)}

    def load_state_dict(self, kept: Mapping[str, Any]) -> None:
        """From a checkpoint.

        Raises:
            KeyError: a value is missing.
        """
        self.steps, held = int(kept["steps"]), kept["held"]
        for name, value in self.held.items():
            found: Tensor = held[name]
            value.copy_(found)


def blended(states: Sequence[Mapping[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """The weighted sum of floating tensors, in float64 and rounded once; of other tensors the first one's."""
    found = {}
    for name, value in states[0].items():
        if not value.is_floating_point():
            found[name] = value.clone()
            continue
        total = torch.zeros_like(value, dtype=torch.float64)
        for state, share in zip(states, shares, strict=True):
            total += share * state[name].double() if share else 0.0
        found[name] = total.to(value.dtype)
    return found
