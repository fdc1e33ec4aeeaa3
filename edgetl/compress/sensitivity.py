"""Mixed precision by measurement: the error that each layer in float takes off the outputs, and the time it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edgetl.base.progress import Progress, silent, tracked
from edgetl.compress.layers.attribution import LayerNoise
from edgetl.compress.layers.emulation import Emulation
from edgetl.compress.layers.points import Point
from edgetl.core.tensors import Arrays, count, rows

#: Least cost of a group, as a share of that of all layers: smaller differences of times are noise, and many are
#: negative.
_LEAST = 0.01
#: All groups are tried on one sample in so many; the best one in so many of them on all samples.
_FIRST, _BEST = 4, 4


@dataclass(frozen=True)
class Gain:
    """What returning some nodes to float takes off the error of the outputs.

    Attributes:
        node: the layer to blame, as attribution names it; "" for the input.
        cause: whether it is its weights or the activations that it produces.
        nodes: what has to be in float together for the noise to go, in the order of the graph: a recipe's
            ``exclude_nodes``. For weights, the layer itself; for a tensor, everything that asks for its rounding.
        removed: mean squared error of the outputs with everything quantized, minus that with ``nodes`` in float; of
            groups that did badly on a part of the samples, their share there of the whole error.
        error: the former.
    """

    node: str
    cause: str
    nodes: tuple[str, ...]
    removed: float
    error: float


@dataclass(frozen=True)
class Costs:
    """What each layer costs in float instead of int8.

    Attributes:
        unit: milliseconds a sample, or the share of multiply-accumulates where no time can be measured.
        by_node: weighted node → cost; negative where float is faster.
    """

    unit: Literal["ms", "share of MACs"]
    by_node: Mapping[str, float]

    def of(self, nodes: Sequence[str]) -> float:
        """Cost of several nodes in float together; those without weights are not counted."""
        return sum(self.by_node.get(node, 0.0) for node in nodes)


def gains(
    exported: Path,
    model: Path,
    points: Sequence[Point],
    noises: Sequence[LayerNoise],
    samples: Arrays,
    *,
    most: int = 16,
    progress: Progress = silent,
) -> tuple[Gain, ...]:
    """Measure, for the layers with most noise, what each alone in float takes off the error of the outputs.

    Args:
        exported: float ONNX file.
        model: what was made from it.
        points, noises: of ``model``; see :mod:`edgetl.compress.layers`.
        samples: inputs by name, (n, …) each.
        most: how many groups of nodes are tried.
        progress: told of each.

    Returns:
        one entry for each group, in the order of ``noises``.

    Raises:
        CompressionError: files that do not belong together.
    """
    emulation = Emulation(exported, model)
    on_few, on_all = (_errors(emulation, part) for part in (rows(samples, slice(None, None, _FIRST)), samples))
    groups = list(_groups(emulation, points, noises))[:most]
    few, whole = on_few(frozenset()), on_all(frozenset())
    tried = tracked(groups, "sensitivity of each layer", progress)
    removed = [(few - on_few(nodes)) * (whole / few if few else 0.0) for _, nodes in tried]
    order = sorted(range(len(groups)), key=lambda number: -removed[number])
    best = order[: -(-len(groups) // _BEST)] if count(samples) > _FIRST else order
    for number in tracked(best, "sensitivity of the layers that matter", progress):
        removed[number] = whole - on_all(groups[number][1])
    return tuple(
        Gain(noise.node, noise.cause, tuple(n for n in emulation.topology.nodes if n in nodes), gain, whole)
        for (noise, nodes), gain in zip(groups, removed, strict=True)
    )


def _errors(emulation: Emulation, samples: Arrays) -> Callable[[frozenset[str]], float]:
    """The mean squared error of the outputs on samples, with some nodes in float."""
    reference = emulation.outputs(samples, set(emulation.names))
    # Outputs of several kinds are added up as shares of their own size; a single one keeps its unit.
    sizes = {name: float(np.square(values, dtype=np.float64).mean()) or 1.0 for name, values in reference.items()}
    units = sizes if len(sizes) > 1 else dict.fromkeys(sizes, 1.0)

    def error(floating: frozenset[str]) -> float:
        found = emulation.outputs(samples, floating)
        return sum(float(((found[n] - reference[n].astype(np.float64)) ** 2).mean()) / units[n] for n in reference)

    return error


def _groups(
    emulation: Emulation, points: Sequence[Point], noises: Sequence[LayerNoise]
) -> Iterator[tuple[LayerNoise, frozenset[str]]]:
    sources = {point.node: point.source for point in points}
    seen: set[frozenset[str]] = set()
    for noise in noises:
        if noise.cause == "weights":
            nodes = frozenset({noise.node})
        else:
            nodes = emulation.holding(noise.consumer, sources[noise.consumer])
        if nodes and nodes not in seen:
            seen.add(nodes)
            yield noise, nodes


def costs(points: Sequence[Point], quantized: Mapping[str, float], floating: Mapping[str, float]) -> Costs:
    """What each weighted layer would cost in float.

    Args:
        points: of the compressed model.
        quantized, floating: milliseconds of each node in the int8 and the float artifact, from
            :func:`edgetl.compress.layers.profiling.profile_layers`; empty where they cannot be executed here. The
            conversions that a float layer needs at its borders are not in these times.

    Returns:
        differences of times, or shares of multiply-accumulates if there are none.
    """
    both = [p.node for p in points if p.node in quantized and p.node in floating]
    if both:
        return Costs("ms", {node: floating[node] - quantized[node] for node in both})
    total = sum(point.macs for point in points) or 1
    return Costs("share of MACs", {point.node: point.macs / total for point in points})


def choose(measured: Sequence[Gain], cost: Costs) -> tuple[Gain, ...]:
    """Order by error removed per cost, the best first; what removes nothing is left out."""
    floor = _LEAST * sum(abs(value) for value in cost.by_node.values()) or 1.0
    worth = [gain for gain in measured if gain.removed > 0]
    return tuple(sorted(worth, key=lambda gain: -gain.removed / max(cost.of(gain.nodes), floor)))
