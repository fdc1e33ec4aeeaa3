"""The layers of a network in groups, from its input to its head."""

from __future__ import annotations

import timm.models
import timm.optim
from torch import nn


def layer_groups(network: nn.Module, coarse: bool = True) -> dict[str, int]:
    """The group of each parameter by its name, 0 for those next to the input; the head is in the last one.

    The groups are the architecture's own where timm knows them, its stages or (not ``coarse``) its layers, and else
    those that timm finds in the order of the modules.
    """
    matcher = getattr(network, "group_matcher", None)
    found: dict[str, int] = (
        timm.models.group_parameters(network, matcher(coarse=coarse), reverse=True)
        if matcher is not None
        else timm.optim._param_groups.auto_group_layers(network)
    )
    return found
