"""Which parameters of a network train, as a strategy says; nothing else gets a gradient."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from edgetl.base.errors import EdgetlError, UnknownNameError
from edgetl.transfer.classifier import head_of
from edgetl.transfer.columns import learns
from edgetl.transfer.layer_groups import layer_groups
from edgetl.transfer.model import Deployable
from edgetl.transfer.strategies.base import ADDED, ParamPolicy, Strategy, Trainee
from edgetl.transfer.streams import Streams


def prepare(strategy: Strategy, network: Deployable, streams: Streams, seed: int, frozen: int = 0) -> Trainee:
    """The model as the strategy trains it: with what it puts in, and a gradient for what is to train alone.

    Args:
        strategy: puts in and chooses.
        network: as training starts.
        streams: what the strategy was given.
        frozen: groups of layers, from the input on, that stay as they are.
        seed: of the run; what is put in is drawn with it, the same in every process and after every interruption.

    Raises:
        UnknownNameError: a pattern that matches no parameter.
        EdgetlError: nothing trains.
    """
    before = {id(value) for value in network.parameters()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trainee = strategy.prepare(network, streams)
    added = {name for name, value in trainee.network.backbone.named_parameters() if id(value) not in before}
    names = _chosen(strategy.params, trainee.network.backbone, added)
    for name, value in trainee.network.named_parameters():
        value.requires_grad_(name.removeprefix("backbone.") in names)
    hold(trainee.network.backbone, frozen)
    return trainee


def hold(backbone: nn.Module, groups: int) -> None:
    """Take the gradient from so many groups of layers in front."""
    if not groups:
        return
    depths = depths_of(backbone)
    last = max(depths.values())
    for value in backbone.parameters():
        # A parameter of no group, such as a position embedding, lies in front.
        if depths.get(id(value), last) > last - groups:
            value.requires_grad_(False)


def _chosen(policy: ParamPolicy, backbone: nn.Module, added: Collection[str]) -> set[str]:
    known, (head, _) = [name for name, _ in backbone.named_parameters() if learns(backbone, name)], head_of(backbone)
    tables = set(_embeddings(backbone)) if policy.embeddings == "frozen" else set()
    found = set[str]()
    for word in (word.strip() for word in policy.trains.split(",")):
        if word == "all":
            found |= set(known) - tables
        elif word == "head":
            found |= {name for name in known if name.startswith(f"{head}.")}
        elif word == "backbone":
            found |= {name for name in known if not name.startswith(f"{head}.")} - tables
        elif word == ADDED:
            found |= set(added)
        else:
            matched = {name for name in known if fnmatchcase(name, word)}
            if not matched:
                raise UnknownNameError("parameter of the backbone", word, known)
            found |= matched
    if not found:
        raise EdgetlError(f"nothing of the backbone trains under '{policy.trains}'", "choose another strategy")
    return found


def depths_of(backbone: nn.Module) -> dict[int, int]:
    """Groups of layers between each parameter and the head, by the parameter's identity: 0 for the head itself.

    The groups are the architecture's own stages where timm knows them, and else those that it finds in the order of
    the modules.
    """
    found = layer_groups(backbone)
    numbers = sorted(set(found.values()), reverse=True)
    return {id(value): numbers.index(found[name]) for name, value in backbone.named_parameters() if name in found}


def _embeddings(backbone: nn.Module) -> Iterator[str]:
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Embedding):
            yield f"{name}.weight"


def check_gradients(network: Deployable, feeds: Mapping[str, Any]) -> None:
    """Whether whatever should train takes part in the answer, by one sample.

    Raises:
        EdgetlError: some of it does not: a layer whose weights are read by another rather than applied.
    """
    output = network.fed(feeds, torch.device("cpu"))
    training = {name: value for name, value in network.named_parameters() if value.requires_grad}
    found = torch.autograd.grad(output.sum(), list(training.values()), allow_unused=True)
    idle = [name for name, gradient in zip(training, found, strict=True) if gradient is None]
    if idle:
        what = f"{len(idle)} of {len(training)} tensors that should train have no part in the answer ({idle[0]})"
        raise EdgetlError(what, "leave out their layers, or choose another backbone or strategy")


class Trained:
    """What of a network changes in training, by name, as a checkpoint holds it: what trains, and every buffer."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def state_dict(self) -> dict[str, Tensor]:
        """The values as they are."""
        training = {name for name, value in self.network.named_parameters() if value.requires_grad}
        training |= {name for name, _ in self.network.named_buffers()}
        return {name: value for name, value in self.network.state_dict().items() if name in training}

    def load_state_dict(self, held: Mapping[str, Tensor]) -> None:
        """Put values back; a file of an older edgetl holds what does not train, too.

        Raises:
            RuntimeError: one is missing or of another shape.
        """
        missing = sorted(set(self.state_dict()) - set(held))
        if missing:
            raise RuntimeError(f"{missing[0]} is missing")
        self.network.load_state_dict(dict(held), strict=False)


def counts(network: Deployable) -> dict[str, int]:
    """Tensors and numbers that train, for the run's record."""
    training = [value for value in network.parameters() if value.requires_grad]
    return {
        "tensors": len(training),
        "parameters": sum(value.numel() for value in training),
    }
