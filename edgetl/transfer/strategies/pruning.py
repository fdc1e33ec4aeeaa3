"""Fewer channels (NVIDIA Model Optimizer), then fine-tuning: the artifact computes less, in whatever precision."""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from edgetl.base.errors import EdgetlError
from edgetl.base.extras import require
from edgetl.base.wording import percent
from edgetl.transfer.strategies.base import Strategy
from edgetl.transfer.strategies.fine_tuning import fine_tune
from edgetl.transfer.strategies.options import check

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgetl.core.tensors import Arrays
    from edgetl.transfer.model import Deployable

#: Of the library's search spaces the one of widths alone.
_SPACE = "fastnas"
#: Relative to the largest output: what another order of the same sums may come to, and no lost channel stays below.
_ROUNDING = 1e-3
#: Epochs without a better score that end training: none do, as what lost channels is at first worse than its fitted
#: head makes it. EfficientNet-Lite0 without a quarter of them (magnetic-tile, 96 pixels) had no better balanced
#: accuracy than its start in the eight epochs that end fine-tuning, while training accuracy rose from 56 to 73 %.
_PATIENCE = 1000
_OTHER = "use --strategy fine-tune, or choose another backbone"


def prune(ratio: float = 0.3, multiple: int = 16, layer_decay: float = 0.8, batch_norm: str = "frozen") -> Strategy:
    """Channels that the least is read of are removed, then the head is fitted and everything that is left trains.

    Li et al. 2017, "Pruning Filters for Efficient ConvNets": one share of every layer; layers that must stay as wide as
    each other lose the same channels. A channel counts as much as the Euclidean norm of the weights that read it, times
    its root mean square on training samples (Sun et al. 2024, "A Simple and Effective Pruning Approach for Large
    Language Models"). A certificate compares the artifact with the pruned model as it is trained, and says nothing of
    what the lost channels cost: compare the run with one that has them all.

    Args:
        ratio: share of the channels of each layer that is removed, as near as the multiple allows.
        multiple: widths that are left are multiples of it, as kernels of 8-bit integers like them; a layer that is no
            wider keeps its width.
        layer_decay: factor on the learning rate for each layer group further from the head; 1 for one rate.
        batch_norm: "frozen" keeps the statistics of the channels that are left, "train" uses and updates those of the
            batches.
    """
    check("ratio", ratio, 0 < ratio < 1, "a number between 0 and 1")
    check("multiple", multiple, 1 <= multiple <= 256, "1 to 256")
    return replace(
        fine_tune(layer_decay=layer_decay, batch_norm=batch_norm, patience=_PATIENCE),
        rebuild=partial(_narrowed, ratio=ratio, multiple=multiple),
    )


def _narrowed(
    network: Deployable, feeds: Arrays, previous: Deployable | None, *, ratio: float, multiple: int
) -> dict[str, Tensor]:
    """The tensors of the backbone without its least channels; the network stays as it is.

    Raises:
        EdgetlError: none can be removed.
    """
    load = partial(require, purpose="the strategy prune")
    with _alone():
        optimizer, spaces = load("modelopt.torch.nas"), load("modelopt.torch.nas.utils")
        named = load("modelopt.torch.opt.utils").named_hparams
        nothing = load("modelopt.torch.opt.conversion").ApplyModeError
        rules = _rules(load("modelopt.torch.prune.fastnas").FastNASConfig, 1 - ratio, multiple)
    copies, refused = _copies(network, feeds), "the channels of this backbone cannot be removed"
    try:
        with _alone():
            scaled, space = (optimizer.convert(each, mode=[(_SPACE, rules)]) for each in copies)
            found = dict(named(scaled, configurable=True))
            for name, width in named(space, configurable=True):
                if (importance := found[name].importance) is not None:
                    width.enforce_order(importance.argsort(descending=True))
            whole = {name: _read(space, name) for name in space.state_dict()}
            spaces.sample(space, sample_func=min)
            narrow = optimizer.export(space).state_dict()
    except nothing as error:
        what = f"no layer of this backbone gets narrower by {percent(ratio, 0)} at a multiple of {multiple} channels"
        raise EdgetlError(what, f"give another --set ratio=… or --set multiple=…, or {_OTHER}") from error
    except Exception as error:
        # The library asserts what it takes for granted of an architecture.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EdgetlError(f"{refused} ({reason[:120]})", _OTHER) from error
    if not _same(network, whole, feeds):
        raise EdgetlError(f"{refused}: which of them belong together is not known", _OTHER)
    return {name: value.detach().clone() for name, value in narrow.items()}


def _read(space: nn.Module, name: str) -> Tensor:
    """A tensor with its channels in the order of the search space, which keeps it in its first one."""
    layer, _, leaf = name.rpartition(".")
    found: Tensor = getattr(space.get_submodule(layer), leaf)
    return found.detach().clone()


def _rules(config: Any, kept: float, multiple: int) -> dict[str, Any]:
    """Each width as it is or so narrow, and kernels as they are; of kinds that are not named, nothing."""
    channels = {"channels_ratio": (kept,), "channel_divisor": multiple, "kernel_size": ()}
    features = {"features_ratio": (kept,), "feature_divisor": multiple}
    named = {"nn.Conv2d": channels, "nn.BatchNorm2d": features, "nn.Linear": features}
    return {kind: {"*": named[kind]} if kind in named else None for kind in config()}


def _same(network: Deployable, tensors: dict[str, Tensor], feeds: Arrays) -> bool:
    """Whether a network with its channels in another order still answers as it did."""
    import torch

    host, ordered = torch.device("cpu"), copy.deepcopy(network)
    ordered.backbone.load_state_dict(tensors)
    with torch.inference_mode():
        before, after = (each.eval().fed(feeds, host) for each in (copy.deepcopy(network), ordered))
    return bool((before - after).abs().max() <= _ROUNDING * before.abs().max())


def _copies(network: Deployable, feeds: Arrays) -> tuple[nn.Module, nn.Module]:
    """The backbone with each weight times the size of what it reads, by which channels are ordered; and as it is."""
    import torch

    sizes, scaled, plain = _sizes(network, feeds), _plain(network.backbone), _plain(network.backbone)
    with torch.no_grad():
        for name, layer in scaled.named_modules():
            if name in sizes:
                layer.weight.mul_(sizes[name].reshape(1, -1, *[1] * (layer.weight.ndim - 2)))
    return scaled, plain


def _sizes(network: Deployable, feeds: Arrays) -> dict[str, Tensor]:
    """The root mean square of each channel that a layer reads, by the layer's name; of depthwise ones none."""
    import torch
    from torch import nn

    seen = copy.deepcopy(network).eval()
    found: dict[str, Tensor] = {}

    def look(name: str, axis: int, inputs: tuple[Tensor, ...]) -> None:
        found[name] = inputs[0].square().transpose(axis, -1).flatten(0, -2).mean(0).sqrt()

    for name, layer in seen.backbone.named_modules():
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1):
            axis = 1 if isinstance(layer, nn.Conv2d) else -1
            layer.register_forward_pre_hook(lambda _, inputs, name=name, axis=axis: look(name, axis, inputs))
    with torch.inference_mode():
        seen.fed(feeds, torch.device("cpu"))
    return {name: value.clone() for name, value in found.items()}


def _plain(backbone: nn.Module) -> nn.Module:
    """A copy whose layers are of torch's own kinds, in torch's own layout: the library knows no others.

    timm's pad their input, or apply the activation, too; neither matters to which channels belong together.
    """
    import torch
    from torch import nn

    found = copy.deepcopy(backbone).to(memory_format=torch.contiguous_format)
    for layer in found.modules():
        for kind in (nn.Conv2d, nn.BatchNorm2d, nn.Linear):
            if isinstance(layer, kind):
                layer.__class__ = kind
    return found


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """The library prints what it does, warns of what it cannot trace, and adds to what torch.load takes from files."""
    from torch import serialization

    known = serialization.get_safe_globals()
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(known)
