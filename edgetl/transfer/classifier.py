"""The classifier that a backbone ends in: finding it, and giving it as many outputs as the task has."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgetl.base.errors import EdgetlError


class PointwiseHead(nn.Linear):
    """A linear layer in the place of a 1x1 convolution of pooled features: (n, c, 1, 1) to (n, outputs, 1, 1)."""

    @classmethod
    def of(cls, convolution: nn.Conv2d) -> PointwiseHead:
        """The same layer: equal weights, equal outputs."""
        made = cls(convolution.in_channels, convolution.out_channels, bias=convolution.bias is not None)
        with torch.no_grad():
            made.weight.copy_(convolution.weight.flatten(1))
            if convolution.bias is not None:
                made.bias.copy_(convolution.bias)
        return made

    def forward(self, x: Tensor) -> Tensor:
        """The outputs of a batch."""
        outputs: Tensor = super().forward(x.flatten(1))
        return outputs[:, :, None, None]


def with_head(model: nn.Module, outputs: int, name: str) -> nn.Module:
    """The model, with a classifier of so many outputs; its own is kept where it has as many.

    Raises:
        EdgetlError: the model does not end in one linear layer.
    """
    key = _key(model)
    layer = dict(model.named_modules()).get(key)
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1:
        _replace(model, key, PointwiseHead.of(layer))
    key, head = head_of(model, name)
    if head.out_features != outputs or head.bias is None:
        _replace(model, key, type(head)(head.in_features, outputs))
    return model


def head_of(model: nn.Module, name: str = "the model") -> tuple[str, nn.Linear]:
    """The classifier: its dotted name and the layer.

    Raises:
        EdgetlError: the model does not end in one linear layer.
    """
    key = _key(model)
    head = dict(model.named_modules()).get(key)
    if not isinstance(head, nn.Linear):
        raise EdgetlError(f"the classifier of '{name}' is not one linear layer", "choose another backbone")
    return key, head


def _key(model: nn.Module) -> str:
    """Dotted name of the classifier as timm tells it, else of the last linear layer; "" if there is no such one."""
    told = getattr(model, "pretrained_cfg", {}).get("classifier")
    if told:
        return told if isinstance(told, str) else ""
    linear = [key for key, module in model.named_modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else ""


def _replace(model: nn.Module, key: str, layer: nn.Module) -> None:
    parent, _, leaf = key.rpartition(".")
    setattr(model.get_submodule(parent), leaf, layer)
