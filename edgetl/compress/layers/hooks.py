"""What the convolutions and linear layers of a torch model give, batch norm included."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Set
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgetl.core.tensors import Arrays

WATCHED = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


class Watched:
    """A torch model whose layers can be read.

    Args:
        model: any; its mode is left as it is.
        bare: names of layers whose batch norm is not to be included.

    Attributes:
        modules: dotted names of the layers that can be read.
    """

    def __init__(self, model: nn.Module, bare: Set[str]) -> None:
        self._model, self._bare = model, bare
        self._named = {name: module for name, module in model.named_modules() if isinstance(module, WATCHED)}
        self._norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        self.modules = frozenset(self._named)

    def outputs(self, sample: Arrays) -> dict[str, list[npt.NDArray[np.float64]]]:
        """Layer → its output at each call, float64; behind the batch norm if one reads it."""
        # Kept alive to the end, so that no other tensor takes over an identity.
        seen: list[tuple[str, torch.Tensor, torch.Tensor]] = []
        behind: dict[int, torch.Tensor] = {}

        def layer(name: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
                # Activations may work in place.
                seen.append((name, output, output.clone()))

            return hook

        def norm(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            behind[id(inputs[0])] = _normalised(module, inputs[0])

        handles = [module.register_forward_hook(layer(name)) for name, module in self._named.items()]
        handles += [module.register_forward_pre_hook(norm) for module in self._norms]
        device = next((tensor.device for tensor in self._model.state_dict().values()), torch.device("cpu"))
        try:
            with torch.no_grad():
                self._model(*(torch.tensor(values, device=device) for values in sample.values()))
        finally:
            for handle in handles:
                handle.remove()
        found: dict[str, list[npt.NDArray[np.float64]]] = defaultdict(list)
        for name, output, copy in seen:
            tensor = copy if name in self._bare else behind.get(id(output), copy)
            found[name].append(tensor.double().cpu().numpy())
        return found


def _normalised(norm: Any, values: torch.Tensor) -> torch.Tensor:
    # Some batch norms of timm contain an activation, which the exported graph has in a node of its own.
    training = norm.training or norm.running_mean is None
    mean, variance = (None, None) if training else (norm.running_mean, norm.running_var)
    return nn.functional.batch_norm(values, mean, variance, norm.weight, norm.bias, training, 0.0, norm.eps)
