"""Several backbones side by side, each reading what the earlier ones give: progressive neural networks.

Rusu et al. 2016, "Progressive Neural Networks": a column for what was learned at a time. Earlier columns stay as they
are, and so do their answers; the newest one reads their activations through adapters, which add to its own.

    earlier.0, earlier.1, …         columns that stay, with their heads
    newest                          the column that learns, or learned last
    lateral.TO.FROM.LAYER           what column TO adds behind a layer, or in front of its head, of column FROM's
                                    activation there; dots in names of layers are written as dashes
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from edgetl.transfer.classifier import head_of
from edgetl.transfer.layer_groups import layer_groups

EARLIER, NEWEST, LATERAL = "earlier", "newest", "lateral"
#: By the axes of its weight: what an adapter is made of, on the last axis of an activation or on the channels of a map.
_LAYERS: Mapping[int, Callable[[int, int], nn.Module]] = {
    2: nn.Linear,
    4: lambda inputs, outputs: nn.Conv2d(inputs, outputs, 1),
}
#: Column TO, column FROM, layer.
Place = tuple[int, int, str]


class Adapter(nn.Module):
    """What an activation of an earlier column adds to one of a later column; nothing, until it is trained.

    Args:
        axes: 4 for maps, (n, channels, height, width); 2 for whatever has its channels last.
        inputs, hidden, outputs: channels.
    """

    def __init__(self, axes: int, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.squeeze, self.spread = _LAYERS[axes](inputs, hidden), _LAYERS[axes](hidden, outputs)
        for value in self.spread.parameters():
            nn.init.zeros_(value)

    def forward(self, x: Tensor) -> Tensor:
        """Channels of the earlier column's activation to those of the later one's."""
        added: Tensor = self.spread(nn.functional.relu(self.squeeze(x)))
        return added


class Columns(nn.Module):
    """Columns of one architecture behind one input; its output is theirs side by side, the earliest first.

    Args:
        columns: backbones with heads of their own, the earliest first; at least two.
        adapters: by their places.
    """

    def __init__(self, columns: Sequence[nn.Module], adapters: Mapping[Place, Adapter]) -> None:
        super().__init__()
        self.earlier, self.newest = nn.ModuleList(columns[:-1]), columns[-1]
        self._heads = [head_of(column)[0] for column in columns]
        self.lateral = nn.ModuleDict()
        for (to, source, layer), adapter in adapters.items():
            sources = _within(self.lateral, str(to))
            _within(sources, str(source))[_dashed(layer)] = adapter
        self.places = tuple(adapters)
        # By this timm and the rest of the house know the head that learns.
        self.pretrained_cfg = {"classifier": f"{NEWEST}.{self._heads[-1]}"}

    @property
    def columns(self) -> list[nn.Module]:
        """The earliest first."""
        return [*self.earlier, self.newest]

    def adapter(self, place: Place) -> nn.Module:
        """The one at a place."""
        to, source, layer = place
        found: nn.Module = self.lateral.get_submodule(f"{to}.{source}.{_dashed(layer)}")
        return found

    def forward(self, *inputs: Tensor) -> Tensor:
        """The outputs of all columns, (n, their widths together)."""
        return torch.cat(self.apart(*inputs), 1)

    def apart(self, *inputs: Tensor) -> list[Tensor]:
        """The outputs of each column, (n, its width)."""
        seen, answers = list[dict[str, Tensor]](), list[Tensor]()
        for number, column in enumerate(self.columns):
            added = dict[str, Tensor]()
            for to, source, layer in self.places:
                if to == number:
                    told = self.adapter((to, source, layer))(seen[source][layer])
                    added[layer] = added[layer] + told if layer in added else told
            read = {layer for _, source, layer in self.places if source == number}
            activations = dict[str, Tensor]()
            with _ONE_AT_A_TIME, _joined(column, self._heads[number], read, added, activations):
                answers.append(column(*inputs))
            if missing := sorted(read - set(activations)):
                raise RuntimeError(f"the layer {missing[0]} took no part in an answer")
            seen.append(activations)
        return answers

    def train(self, mode: bool = True) -> Columns:
        """Earlier columns stay in evaluation mode: nothing of them is to change."""
        super().train(mode)
        self.earlier.train(False)
        return self

    def learns(self, name: str) -> bool:
        """Whether what has this name is of the newest column, or reads for it."""
        return name.startswith((f"{NEWEST}.", f"{LATERAL}.{len(self.earlier)}."))

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Which layer a tensor belongs to, as timm's layer-wise learning rates ask: adapters move as the head does."""
        groups = layer_groups(self.newest, coarse)
        last = max(groups.values())

        def group(name: str) -> int:
            column, _, rest = name.partition(".")
            return 0 if column == EARLIER else groups.get(rest, last) if column == NEWEST else last

        return group

    def no_weight_decay(self) -> set[str]:
        """Names of what the architecture keeps from weight decay."""
        named: Callable[[], Collection[str]] = getattr(self.newest, "no_weight_decay", tuple)
        return {f"{NEWEST}.{name}" for name in named()}


#: What joins the columns hangs on their modules while one thread computes, and would join another's.
_ONE_AT_A_TIME = threading.RLock()


def _within(parent: nn.ModuleDict, key: str) -> nn.ModuleDict:
    if key not in parent:
        parent[key] = nn.ModuleDict()
    found = parent[key]
    assert isinstance(found, nn.ModuleDict)
    return found


def _dashed(layer: str) -> str:
    return layer.replace(".", "-")


@contextlib.contextmanager
def _joined(
    column: nn.Module, head: str, read: Collection[str], added: Mapping[str, Tensor], seen: dict[str, Tensor]
) -> Iterator[None]:
    """In the block, layers of a column give what they do plus what is added, and that is kept of those that are read.

    Of the head it is what it reads.
    """

    def behind(layer: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> Tensor:
            if not isinstance(output, Tensor):
                raise RuntimeError(f"the layer {layer} gives no single tensor")
            seen[layer] = output + added[layer] if layer in added else output
            return seen[layer]

        return hook

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen[head] = inputs[0] + added[head] if head in added else inputs[0]
        return (seen[head], *inputs[1:])

    with contextlib.ExitStack() as stack:
        for layer in sorted({*read, *added}):
            module = column.get_submodule(layer)
            # In front of whoever watches what the head reads.
            handle = (
                module.register_forward_pre_hook(before, prepend=True)
                if layer == head
                else module.register_forward_hook(behind(layer))
            )
            stack.callback(handle.remove)
        yield


def learns(network: nn.Module, name: str) -> bool:
    """Whether what has this name may change: all but earlier columns and what they read."""
    return not isinstance(network, Columns) or network.learns(name)


def columns_of(network: nn.Module) -> list[nn.Module]:
    """The columns of a network, the earliest first; itself, if it is one."""
    return network.columns if isinstance(network, Columns) else [network]


def are_of_columns(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is one of several columns."""
    return any(name.startswith(f"{EARLIER}.") for name in tensors)


def newest_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The newest column of a state dict; all of it, if there is no other."""
    return _below(tensors, NEWEST) if are_of_columns(tensors) else dict(tensors)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): v for name, v in tensors.items() if name.startswith(f"{prefix}.")}


def of_tensors(
    tensors: Mapping[str, Tensor], outputs: int, column: Callable[[int, Mapping[str, Tensor]], nn.Module]
) -> Columns:
    """The network whose state dict has tensors of these names and shapes; their values are still to be loaded.

    Args:
        tensors: of a file, anybody's.
        outputs: how many all columns give together, and so a bound on how many columns there are.
        column: outputs of a column and its tensors → the column, as wide as these.

    Raises:
        RuntimeError: no such network can be.
    """
    count = len({name.split(".")[1] for name in tensors if name.startswith(f"{EARLIER}.")})
    prefixes = (*(f"{EARLIER}.{number}" for number in range(count)), NEWEST)
    if count >= outputs:
        raise RuntimeError(f"{len(prefixes)} columns cannot have {outputs} outputs")
    # What cannot be filled is not built: a file says nothing of a size without a tensor of that size.
    parts = [_below(tensors, prefix) for prefix in prefixes]
    plain = column(1, parts[0])
    if any(part.keys() != plain.state_dict().keys() for part in parts):
        raise RuntimeError("a column has other tensors than the backbone")
    head = head_of(plain)[0]
    widths = [len(part[f"{head}.bias"]) if part[f"{head}.bias"].ndim else 0 for part in parts]
    if sum(widths) != outputs or min(widths) < 1:
        raise RuntimeError(f"columns of {widths} outputs, and not of {outputs} together")
    made = [column(width, part) for width, part in zip(widths, parts, strict=True)]
    return Columns(made, _adapters(tensors, made))


def _adapters(tensors: Mapping[str, Tensor], columns: Sequence[nn.Module]) -> dict[Place, Adapter]:
    """Adapters of the shapes that a file's tensors have.

    Raises:
        RuntimeError: they are for no layer of the columns, or of no shape that an adapter has.
    """
    layers = {_dashed(name): name for name, _ in columns[0].named_modules() if name}
    found: dict[Place, Adapter] = {}
    for prefix in sorted({name.rsplit(".", 2)[0] for name in tensors if name.startswith(f"{LATERAL}.")}):
        match = re.fullmatch(rf"{LATERAL}\.(\d{{1,4}})\.(\d{{1,4}})\.([^.]+)", prefix)
        weights = [tensors.get(f"{prefix}.{part}.weight", torch.empty(0)) for part in ("squeeze", "spread")]
        (hidden, inputs), (outputs, same) = ((*weight.shape, 0, 0)[:2] for weight in weights)
        axes = weights[0].ndim
        if match is None or match[3] not in layers or hidden != same or not min(hidden, inputs, outputs):
            raise RuntimeError(f"'{prefix}' is no adapter")
        to, source = int(match[1]), int(match[2])
        if not source < to < len(columns) or axes not in _LAYERS or (to, source, layers[match[3]]) in found:
            raise RuntimeError(f"'{prefix}' is between no two columns")
        found[to, source, layers[match[3]]] = Adapter(axes, inputs, hidden, outputs)
    return found
