"""A new column beside those that there are: behind which layers it reads what they give."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from edgetl.base.errors import EdgetlError
from edgetl.core.tensors import Arrays
from edgetl.transfer.classifier import head_of
from edgetl.transfer.columns import Adapter, Columns, Place, columns_of
from edgetl.transfer.model import Deployable

#: Parts of the depth after which a network of one shape throughout is read, in front of its head besides.
_DEPTHS = (0.25, 0.5, 0.75)
#: Fewest shapes of activations by which a network is said to have stages.
_STAGES = 3
#: Fewest channels within an adapter: kernels of 8-bit integers take multiples of 8.
_NARROWEST = 8
_HOST = torch.device("cpu")
#: Layers whose channels are the first axis behind that of the samples; of all others they are the last.
_MAPS = (nn.Conv2d, nn.modules.batchnorm._BatchNorm)


def grown(previous: Deployable, network: Deployable, feeds: Arrays, reduction: int) -> Columns:
    """The columns of a run and a new one that reads all of them.

    Args:
        previous: of the run, in evaluation mode; its columns are shared, not copied.
        network: the new column, in evaluation mode.
        feeds: some samples.
        reduction: by which an adapter divides the channels that it reads.

    Raises:
        EdgetlError: no layer of the network can be read.
    """
    earlier, new = columns_of(previous.backbone), network.backbone
    layers = list(_layers(new, _watched(network, new, _blocks(new), feeds)))
    if not layers:
        raise EdgetlError("no activation of this backbone can be read by another column", "choose another backbone")
    own = _shapes(network, new, layers, feeds)
    adapters: dict[Place, Adapter] = {}
    if isinstance(previous.backbone, Columns):
        adapters |= {place: previous.backbone.adapter(place) for place in previous.backbone.places}
    for source, column in enumerate(earlier):
        for layer, given in _shapes(previous, column, layers, feeds).items():
            axis = _channels(new, layer, own[layer])
            inputs, outputs = given[axis], own[layer][axis]
            hidden = max(inputs // reduction, min(inputs, _NARROWEST))
            adapters[len(earlier), source, layer] = Adapter(4 if axis == 1 else 2, inputs, hidden, outputs)
    return Columns([*earlier, new], adapters)


def _channels(column: nn.Module, layer: str, shape: Sequence[int]) -> int:
    """The axis of the channels of what a layer gives, or the head reads."""
    module = column.get_submodule(layer)
    if len(shape) != 4:
        return -1
    maps = any(isinstance(part, _MAPS) for part in module.modules())
    return 1 if maps or layer == head_of(column)[0] else -1


def _blocks(column: nn.Module) -> list[str]:
    """Names of the parts that follow each other, from the input on: containers, and what holds most of a network, are
    looked into."""
    most = sum(value.numel() for value in column.parameters()) / 2

    def below(parent: nn.Module, prefix: str) -> Iterator[str]:
        for name, child in parent.named_children():
            size = sum(value.numel() for value in child.parameters())
            opened = isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict) or size > most
            if opened and any(child.children()):
                yield from below(child, f"{prefix}{name}.")
            elif size:
                yield f"{prefix}{name}"

    return list(below(column, ""))


def _layers(column: nn.Module, shapes: Sequence[tuple[str, tuple[int, ...]]]) -> Iterator[str]:
    """Where a column is read: behind the last block of each resolution but the last, or at some depths; and its head.

    Args:
        column: whose blocks they are.
        shapes: of what each block gives, in the order of execution.
    """
    head, _ = head_of(column)
    times = Counter(name for name, _ in shapes)
    # The stem sees what the input shows, and nothing that was learned of a task.
    found = [(name, shape) for name, shape in shapes[1:] if times[name] == 1 and name != head]
    sizes = [_size(column, name, shape) for name, shape in found]
    if len(set(sizes)) >= _STAGES:
        yield from (name for (name, _), (one, next_) in zip(found, pairwise(sizes), strict=False) if one != next_)
    elif found:
        kinds = Counter(type(column.get_submodule(name)) for name, _ in found)
        alike = [name for name, _ in found if isinstance(column.get_submodule(name), kinds.most_common(1)[0][0])]
        yield from dict.fromkeys(alike[math.ceil(depth * len(alike)) - 1] for depth in _DEPTHS)
    yield head


def _size(column: nn.Module, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """An activation's shape but for samples and channels."""
    axis = _channels(column, name, shape) % len(shape)
    return tuple(size for place, size in enumerate(shape) if place not in (0, axis))


def _shapes(network: Deployable, column: nn.Module, layers: Sequence[str], feeds: Arrays) -> dict[str, tuple[int, ...]]:
    """Of what a column's layers give, and its head reads."""
    return dict(_watched(network, column, layers, feeds))


def _watched(
    network: Deployable, column: nn.Module, layers: Sequence[str], feeds: Arrays
) -> list[tuple[str, tuple[int, ...]]]:
    """Layers with the shapes of what they give, in the order of execution; of the head, of what it reads."""
    head, seen = head_of(column)[0], list[tuple[str, tuple[int, ...]]]()

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            value = inputs[0] if name == head else output
            if isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1:
                seen.append((name, tuple(value.shape)))

        return hook

    with contextlib.ExitStack() as stack:
        for name in layers:
            handle = column.get_submodule(name).register_forward_hook(look(name))
            stack.callback(handle.remove)
        with torch.inference_mode():
            network.fed(feeds, _HOST)
    return seen
