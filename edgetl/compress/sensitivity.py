"""Mixed precision by measurement: the error that each layer in float takes off the outputs, and the time it costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from edgetl.base.progress import Progress, silent, tracked
from edgetl.compress.layers.attribution import LayerNoise
from edgetl.compress.layers.emulation import Emulation
from edgetl.compress.layers.points import Point
from edgetl.core.tensors import Arrays

#: Least cost of a group, as a share of that of all layers: smaller differences of times are noise, and many are
#: negative.
_LEAST = 0.01


@dataclass(frozen=True)
class Gain:
    """What returning some nodes to float takes off the error of the outputs.

    Attributes:
        node: the layer to blame, as attribution names it; "" for the input.
        cause: whether it is its weights or the activations that it produces.
        nodes: what has to be in float together for the noise to go, in the order of the graph: a recipe's
            ``exclude_nodes``. For weights, the layer itself; for a tensor, everything that asks for its rounding.
        removed: mean squared error of the outputs with everything quantized, minus that with ``nodes`` in float.
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
    reference = emulation.outputs(samples, set(emulation.names))
    # Outputs of several kinds are added up as shares of their own size; a single one keeps its unit.
    sizes = {name: float(np.square(values, dtype=np.float64).mean()) or 1.0 for name, values in reference.items()}
    units = sizes if len(sizes) > 1 else dict.fromkeys(sizes, 1.0)

    def error(floating: frozenset[str]) -> float:
        found = emulation.outputs(samples, floating)
        return sum(float(((found[n] - reference[n].astype(np.float64)) ** 2).mean()) / units[n] for n in reference)

    groups = list(_groups(emulation, points, noises))[:most]
    worst = error(frozenset())
    found = []
    for noise, nodes in tracked(groups, "sensitivity of each layer", progress):
        ordered = tuple(name for name in emulation.topology.nodes if name in nodes)
        found.append(Gain(noise.node, noise.cause, ordered, worst - error(nodes), worst))
    return tuple(found)


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
