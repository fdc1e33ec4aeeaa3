"""The layers in front that do not train: what they give is the same in every epoch, and is computed once.

A network is cut where its first trainable parameter takes part, by torch.fx. Containers of which everything trains, or
nothing does, stay whole, so that what they do in training and in evaluation is theirs; what cannot be traced, whose
samples vary, or whose activations do not fit into memory is trained as ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from edgetl.base.progress import Progress
from edgetl.transfer.model import Deployable, eval_batch
from edgetl.transfer.samples import Batch, Row, SampleStore

#: In names of modules that draw at random in training, which have no place in front of the cut.
_RANDOM = "Drop"


class Tail(nn.Module):
    """What is behind the cut: from activations to the network's output, float32 (n, width of the head)."""

    def __init__(self, graph: nn.Module) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, *activations: Tensor) -> Tensor:
        """The output of a batch."""
        output: Tensor = self.graph(*activations)
        return output.float()


@dataclass(frozen=True)
class Cut:
    """A network in two parts that share its modules.

    Attributes:
        front: from prepared inputs to the activations at the cut, a tuple.
        tail: from those to the output.
        normalise: what prepares the inputs; None for nothing.
        names: of the activations.
        inputs: the network's own, in their order.
    """

    front: nn.Module
    tail: Tail
    normalise: nn.Module | None
    names: tuple[str, ...]
    inputs: tuple[str, ...]

    def behind(self, activations: Mapping[str, Tensor]) -> Tensor:
        """The network's output for named activations, on the device."""
        found: Tensor = self.tail(*(activations[name] for name in self.names))
        return found

    def activations(self, arrays: Row, device: torch.device) -> dict[str, npt.NDArray[Any]]:
        """At the cut, for a batch of the network's inputs, as evaluation computes them."""
        given = [torch.from_numpy(arrays[name]).to(device) for name in self.inputs]
        prepared = self.normalise(*given) if self.normalise is not None else given
        found = self.front(*prepared)
        return {name: value.cpu().numpy() for name, value in zip(self.names, found, strict=True)}


class _Whole(fx.Tracer):
    """Traces containers in which some parameters train and others do not, and nothing else."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether it stays a call."""
        training = {value.requires_grad for value in m.parameters()}
        return len(training) < 2 or not any(m.children())


def cut(network: Deployable) -> Cut | None:
    """Where a network's first trainable parameter takes part; None where nothing stays in front, or nobody can tell."""
    backbone = network.backbone
    if all(value.requires_grad for value in backbone.parameters()):
        return None
    try:
        graph = _Whole().trace(backbone)
    except Exception:  # whatever a thousand architectures do that cannot be traced
        return None
    front = _front(graph, backbone)
    border = [node for node in graph.nodes if node in front and any(user not in front for user in node.users)]
    modules = {node for node in front if node.op == "call_module"}
    if not modules or not border or any(node.op == "placeholder" for node in border):
        return None
    names = tuple(f"activation{index}" for index in range(len(border)))
    inputs = tuple(spec.name for spec in network.definition.tensors)
    parts = _part(graph, backbone, front, border)
    return Cut(parts[0], Tail(parts[1]), network.normalise, names, inputs)


def _front(graph: fx.Graph, backbone: nn.Module) -> set[fx.Node]:
    found = set[fx.Node]()
    for node in graph.nodes:
        if node.op == "placeholder" or (node.op != "output" and all(given in found for given in node.all_input_nodes)):
            if node.op == "call_module" and not _still(backbone.get_submodule(str(node.target))):
                continue
            if node.op == "get_attr" and _trains(backbone, str(node.target)):
                continue
            if node.op == "call_function" and "drop" in getattr(node.target, "__name__", ""):
                continue
            found.add(node)
    return found


def _still(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    # A container of what does not train is in evaluation mode, and what is in it draws nothing.
    drops = any(_RANDOM in type(part).__name__ for part in module.modules())
    return not any(value.requires_grad for value in parameters) and (bool(parameters) or not drops)


def _trains(backbone: nn.Module, name: str) -> bool:
    value: Any = backbone
    for part in name.split("."):
        value = getattr(value, part)
    return isinstance(value, nn.Parameter) and value.requires_grad


def _part(
    graph: fx.Graph, backbone: nn.Module, front: set[fx.Node], border: Sequence[fx.Node]
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Both parts, as graphs over the backbone's own modules."""
    first, second = fx.Graph(), fx.Graph()
    before: dict[fx.Node, fx.Node] = {}
    behind = {node: second.placeholder(f"activation{index}") for index, node in enumerate(border)}
    for node in graph.nodes:
        if node in front:
            before[node] = first.node_copy(node, before.__getitem__)
        elif node.op == "output":
            second.output(fx.node.map_arg(node.args[0], behind.__getitem__))
        else:
            behind[node] = second.node_copy(node, behind.__getitem__)
    first.output(tuple(before[node] for node in border))
    return fx.GraphModule(backbone, first), fx.GraphModule(backbone, second)


class Activations:
    """The samples of a split as they arrive at the cut, in memory; a :class:`SampleStore`."""

    def __init__(self, kept: dict[str, npt.NDArray[Any]]) -> None:
        self.kept = kept

    def __len__(self) -> int:
        return len(next(iter(self.kept.values())))

    @property
    def lengths(self) -> npt.NDArray[np.int64] | None:
        """All are of one shape."""
        return None

    def varied(self, index: int, epoch: int, seed: int) -> Row:
        """The sample itself: what varies is not kept."""
        return {name: values[index] for name, values in self.kept.items()}

    def collate(self, rows: Sequence[Row]) -> dict[str, npt.NDArray[Any]]:
        """Several as one batch."""
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[Batch]:
        """At most ``size`` at a time, in their order."""
        wanted = list(range(len(self)) if indices is None else indices)
        for first in range(0, len(wanted), size):
            part = wanted[first : first + size]
            yield part, {name: values[part] for name, values in self.kept.items()}


def computed(
    found: Cut, network: Deployable, store: SampleStore, device: torch.device, limit: int, told: tuple[str, Progress]
) -> Activations | None:
    """The activations of all samples; None where they differ in shape or take more than ``limit`` bytes."""
    step, progress = told
    kept: dict[str, npt.NDArray[Any]] = {}
    done = 0
    network.eval()
    with torch.inference_mode():
        for rows, arrays in store.batches(eval_batch(network.definition, device)):
            values = found.activations(arrays, device)
            if not kept:
                sizes = {
                    name: len(store) * value[0].nbytes for name, value in values.items() if len(value) == len(rows)
                }
                if len(sizes) < len(values) or sum(sizes.values()) > limit or store.lengths is not None:
                    return None
                kept = {name: np.empty((len(store), *v.shape[1:]), v.dtype) for name, v in values.items()}
            for name, value in values.items():
                kept[name][list(rows)] = value
            done += len(rows)
            progress(step, done, len(store))
    return Activations(kept)
