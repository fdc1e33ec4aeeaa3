"""Networks narrower than the backbone's own, as pruning leaves them: their widths are those of their tensors.

A weights file is all that says how wide a layer is. What it says is bounded by the backbone: a layer may be narrower
than its own, never wider and never of another kernel, so that no file makes a network larger than its backbone is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor, nn

from edgetl.transfer.classifier import head_of

#: Layers that may be narrower.
_LAYERS = (nn.Conv2d, nn.Linear, nn.modules.batchnorm._BatchNorm)


def take_widths(backbone: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Make layers as narrow as a file's tensors are, in place; their values are still to be loaded.

    The head keeps its outputs. A shape that no narrower layer can have stays the backbone's own, so that whoever loads
    the tensors refuses it.

    Args:
        backbone: of its own widths.
        tensors: a state dict of the same backbone, some of its layers narrower.

    Returns:
        whether any layer changed.
    """
    head, _ = head_of(backbone)
    layers = [(name, layer) for name, layer in backbone.named_modules() if isinstance(layer, _LAYERS)]
    changed = [name for name, layer in layers if _narrowed(name, layer, tensors, name == head)]
    return bool(changed)


def _narrowed(name: str, layer: nn.Module, tensors: Mapping[str, Tensor], head: bool) -> bool:
    own = {**dict(layer.named_parameters(recurse=False)), **dict(layer.named_buffers(recurse=False))}
    sizes = dict[str, tuple[int, ...]]()
    for key, value in own.items():
        given = tensors.get(f"{name}.{key}", value)
        size = tuple(given.shape) if not head else (*value.shape[:1], *given.shape[1:])
        if size == tuple(value.shape):
            continue
        if len(size) != value.ndim or size[2:] != tuple(value.shape[2:]):
            return False
        if not all(1 <= narrow <= wide for narrow, wide in zip(size, value.shape, strict=True)):
            return False
        sizes[key] = size
    if not sizes or not _may_be(layer, sizes):
        return False
    for key, size in sizes.items():
        own[key].data = own[key].data[tuple(slice(length) for length in size)].clone()
    _count(layer)
    return True


def _may_be(layer: nn.Module, sizes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the groups of a convolution would stay whole: there may be fewer of them, each of its own size."""
    if not isinstance(layer, nn.Conv2d) or layer.groups == 1 or "weight" not in sizes:
        return True
    outputs, inputs = sizes["weight"][:2]
    return bool(outputs % (layer.out_channels // layer.groups) == 0 and inputs == layer.in_channels // layer.groups)


def _count(layer: nn.Module) -> None:
    """Tell a layer how wide it is, by its tensors."""
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.Conv2d):
        outputs, inputs = layer.weight.shape[:2]
        if layer.groups > 1:
            layer.groups = outputs // (layer.out_channels // layer.groups)
        layer.out_channels, layer.in_channels = outputs, inputs * layer.groups
    else:
        layer.num_features = len(next(value for value in (layer.weight, layer.running_mean) if value is not None))


def digest(backbone: nn.Module) -> str:
    """SHA-256 of what a network has learned, but for its head: equal of two that have the same channels."""
    head, _ = head_of(backbone)
    held = sorted((name, value) for name, value in backbone.named_parameters() if not name.startswith(f"{head}."))
    found = hashlib.sha256()
    for name, value in held:
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
