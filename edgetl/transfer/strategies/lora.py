"""Low-rank adapters (peft), merged into the weights before the model is saved: the device sees none of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING

from edgetl.base.errors import EdgetlError, UnknownNameError
from edgetl.base.extras import require
from edgetl.transfer.strategies.base import HeadSpec, ParamPolicy, Schedule, Strategy, Trainee
from edgetl.transfer.strategies.options import check

if TYPE_CHECKING:
    from torch import nn

    from edgetl.transfer.model import Deployable
    from edgetl.transfer.streams import Streams

#: Kinds of layers whose outcome is their weight times their input, as merging takes for granted, and nothing else: a
#: subclass may normalise its weight first. timm's padded convolution does not.
_LAYERS = ("torch.nn.modules.linear.Linear", "torch.nn.modules.conv.Conv2d", "timm.layers.conv2d_same.Conv2dSame")
#: Reads the weights of the layers within it rather than calling them, so that adapters would do nothing.
_UNCALLED = ("torch.nn.modules.activation.MultiheadAttention", "torch.nn.modules.transformer.TransformerEncoderLayer")
_SHOWN = 5


def lora(rank: int = 8, alpha: float = 16.0, dropout: float = 0.0, layers: str = "*") -> Strategy:
    """The linear probe's head first, then low-rank changes of the backbone's layers (LoRA).

    Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models".

    Args:
        rank: of each change; a layer of n inputs and m outputs trains rank * (n + m) numbers.
        alpha: a change counts alpha / rank times.
        dropout: share of a layer's inputs that its change does not see in training.
        layers: patterns of layer names with commas between; dense layers and convolutions that are not grouped.
    """
    check("rank", rank, rank >= 1, "at least 1")
    check("alpha", alpha, alpha > 0, "a positive number")
    check("dropout", dropout, 0 <= dropout < 1, "0 or more, and less than 1")
    return Strategy(
        ParamPolicy(trains="added,head", batch_norm="frozen"),
        HeadSpec(weakest_penalty=0.01, class_balance=1.0),
        schedule=Schedule(epochs=15, learning_rate=1e-3, warmup_epochs=1.0, patience=8, clip=1.0),
        prepare=partial(_adapted, rank=rank, alpha=alpha, dropout=dropout, layers=layers),
    )


def _adapted(network: Deployable, streams: Streams, *, rank: int, alpha: float, dropout: float, layers: str) -> Trainee:
    peft = require("peft", "the strategy lora")
    names = "|".join(map(re.escape, _chosen(network.backbone, layers)))
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names)
    adapted = peft.LoraModel(network.backbone, config, "default")

    def merged() -> Deployable:
        network.backbone = adapted.merge_and_unload(safe_merge=True)
        return network

    return Trainee(network, merged)


def _chosen(backbone: nn.Module, patterns: str) -> list[str]:
    """Names of the layers that get an adapter.

    Raises:
        UnknownNameError: a pattern matches no layer that can have one.
        EdgetlError: there is no such layer at all.
    """
    able = list(_able(backbone))
    if not able:
        raise EdgetlError("the backbone has no layer for an adapter", "use --strategy fine-tune")
    wanted = [pattern.strip() for pattern in patterns.split(",")]
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in able):
            raise UnknownNameError("layer for an adapter", pattern, able)
    return [name for name in able if any(fnmatchcase(name, pattern) for pattern in wanted)]


def _able(backbone: nn.Module) -> Iterator[str]:
    from edgetl.transfer.classifier import head_of

    head, _ = head_of(backbone)
    uncalled = tuple(f"{name}." for name, module in backbone.named_modules() if _kind(module) in _UNCALLED)
    for name, module in backbone.named_modules():
        # A depthwise convolution has no low-rank part to speak of: each of its filters sees one channel.
        fits = _kind(module) in _LAYERS and getattr(module, "groups", 1) == 1
        if fits and name != head and not name.startswith(uncalled):
            yield name


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
