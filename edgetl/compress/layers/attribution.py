"""Which layers quantization hurts: each one alone, its noise measured where it acts.

One model is built from the float graph. For every weighted layer with input x and weights W it also computes
``op(x, Wq - W)``, the noise of the weights, and ``op(q(x) - x, W)``, the noise of the activations, and reduces both
to one number for each output channel, so that a run costs about three inferences and no memory to speak of.
Layers are linear: these differences are exactly what quantizing the weights, or the input, alone adds to the output.

The noise is measured at the output of the layer that *reads* the tensor, because that decides what matters of it: a
small channel drowned in noise is harmless where it meets small weights, and fatal where large ones bring it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CompressionError
from edgetl.base.parallel import CORES, in_order
from edgetl.base.progress import Progress, silent, tracked
from edgetl.compress.batches import fed
from edgetl.compress.layers.arithmetic import Builder, session_of
from edgetl.compress.layers.points import Point
from edgetl.compress.layers.topology import Topology, read_topology
from edgetl.core.compression import LayerNoise
from edgetl.core.tensors import Arrays

__all__ = ["LayerNoise", "attribute", "ranked", "responsible"]

#: Noise is reported no further than this above or below the signal, in decibels.
_LIMIT_DB = 120.0


def attribute(
    exported: Path, points: Sequence[Point], samples: Iterable[Arrays], progress: Progress = silent
) -> tuple[LayerNoise, ...]:
    """Measure what quantization does to each layer by itself, with float inputs.

    The signal of an output channel is its variance over positions and samples: a constant, the bias among others,
    tells samples apart no more than it hides them. Each channel's noise is taken as its part of noise and signal
    together, and these parts, 0 to 1, are averaged over the channels: measured over all energy at once, a layer with
    one strong channel looks healthy however many weak ones are lost. ``sqnr_db`` is the ratio that this mean stands
    for.

    Args:
        exported: float ONNX file.
        points: how a compressed model executes its layers, from :func:`edgetl.compress.layers.points.read_points`.
        samples: the inputs of one each, (1, …) by name; they are read once, and only sums are kept.
        progress: told of each sample.

    Returns:
        one entry for each layer and cause, the worst first. A tensor that several layers read counts with the worst.

    Raises:
        CompressionError: there is no sample, or samples have another size than the model's.
    """
    topology = read_topology(exported)
    probe = _Probe(topology, [p for p in points if p.weight is not None or p.grid is not None])
    sums = _run(probe, samples, progress)
    return ranked(probe.noises(sums))


def ranked(noises: Iterable[LayerNoise]) -> tuple[LayerNoise, ...]:
    """The worst of each layer and cause, worst first, with ``share`` filled in."""
    worst: dict[tuple[str, str], LayerNoise] = {}
    for noise in noises:
        key = noise.node, noise.cause
        if key not in worst or noise.sqnr_db < worst[key].sqnr_db:
            worst[key] = noise
    ratios = {key: 10 ** (-noise.sqnr_db / 10) for key, noise in worst.items()}
    total = sum(ratios.values()) or 1.0
    order = sorted(worst, key=lambda key: (worst[key].sqnr_db, key))
    return tuple(replace(worst[key], share=ratios[key] / total) for key in order)


def responsible(noises: Sequence[LayerNoise], share: float = 0.9, most: int = 10) -> tuple[LayerNoise, ...]:
    """The fewest layers that make up a share of the noise, at most ``most``; each with its worse cause, worst first."""
    by_layer: dict[str, list[LayerNoise]] = {}
    for noise in noises:
        by_layer.setdefault(noise.node, []).append(noise)
    order = sorted(by_layer, key=lambda node: -sum(noise.share for noise in by_layer[node]))
    named, covered = [], 0.0
    for node in order[:most]:
        if covered >= share:
            break
        named.append(max(by_layer[node], key=lambda noise: noise.share))
        covered += sum(noise.share for noise in by_layer[node])
    return tuple(named)


Sums = dict[str, npt.NDArray[np.float64]]


class _Probe:
    """The float graph with the two branches of every layer; its outputs are named after node and quantity."""

    def __init__(self, topology: Topology, points: Sequence[Point]) -> None:
        self.topology, self.points = topology, points
        self.builder = Builder(topology.model)
        self.names: dict[tuple[str, str], str] = {}
        for point in points:
            self._add(point)
        self.builder.expose(list(self.names.values()))
        self.model = self.builder.model

    def _add(self, point: Point) -> None:
        build, node = self.builder, self.topology.nodes[point.node]
        rank = len(self.topology.shapes[node.output[0]])
        channel = 1 if "Conv" in point.operator else rank - 1
        axes = build.constant([axis for axis in range(rank) if axis != channel], np.int64)

        def mean(tensor: str, keep: int = 0) -> str:
            return build.node("ReduceMean", tensor, axes, keepdims=keep)

        def squared(tensor: str) -> str:
            return mean(build.node("Mul", tensor, tensor))

        output = node.output[0]
        centred = build.node("Sub", output, mean(output, keep=1))
        self.names[point.node, "mean"], self.names[point.node, "variance"] = mean(output), squared(centred)
        weight = self.topology.constants[node.input[1]]
        if point.weight is not None:
            difference = build.constant(point.weight - weight)
            self.names[point.node, "weights"] = squared(build.like(node, point.source, difference))
        if point.grid is not None:
            width = len(self.topology.shapes[point.source])
            rounded, exact, value = build.snapped(point.source, point.grid, width)
            error = build.node("Sub", value, point.source)
            self.names[point.node, "activations"] = squared(build.like(node, error, node.input[1]))
            # Rounding alone moves a value by half a step at most.
            far = build.node("Greater", build.node("Abs", build.node("Sub", exact, rounded)), build.constant(0.501))
            everywhere = build.node("ReduceMean", build.node("Cast", far, to=1), keepdims=0)
            self.names[point.node, "outside"] = everywhere

    def noises(self, sums: Sums) -> list[LayerNoise]:
        modules = {point.node: point.module for point in self.points}
        found = []
        for point in self.points:
            total = {key: sums[name] for (node, key), name in self.names.items() if node == point.node}
            signal = total["variance"]
            if point.weight is not None:
                db = _decibels(total["weights"], signal)
                found.append(LayerNoise(point.node, point.module, "weights", db, 0.0, 0.0, point.node))
            if point.grid is not None:
                db, outside = _decibels(total["activations"], signal), float(total["outside"])
                blamed = point.producer
                found.append(LayerNoise(blamed, modules.get(blamed, ""), "activations", db, 0.0, outside, point.node))
        return found


def _run(probe: _Probe, samples: Iterable[Arrays], progress: Progress) -> Sums:
    """Means over the samples of every output; "variance" also holds what the channel means differ by."""
    # One thread each, as several run at once.
    session, names = session_of(probe.model, threads=1), list(probe.names.values())
    sums: Sums = {name: np.zeros(()) for name in names}
    squares: Sums = {}
    count = 0

    def run(sample: Arrays) -> list[npt.NDArray[Any]]:
        try:
            return list(session.run(names, fed(sample, session)))
        except Exception as error:  # pybind exceptions of ONNX Runtime share no base class
            shapes = ", ".join(f"{name} {array.shape}" for name, array in sample.items())
            raise CompressionError(f"the model does not take {shapes}", "prepare the sample first") from error

    for values in in_order([run] * CORES, tracked(samples, "quantization noise of each layer", progress)):
        count += 1
        for name, value in zip(names, values, strict=True):
            sums[name] = sums[name] + value.astype(np.float64)
        for (node, key), name in probe.names.items():
            if key == "mean":
                value = values[names.index(name)].astype(np.float64)
                squares[node] = squares.get(node, 0.0) + value**2
    if not count:
        raise CompressionError("there is no sample to measure the layers on", "give at least one")
    means = {name: total / count for name, total in sums.items()}
    for node, total in squares.items():
        between = total / count - means[probe.names[node, "mean"]] ** 2
        means[probe.names[node, "variance"]] += np.maximum(between, 0.0)
    return means


def _decibels(noise: npt.NDArray[np.float64], signal: npt.NDArray[np.float64]) -> float:
    together = noise + signal
    # A channel without signal and without noise is silent: it says nothing about the layer.
    parts = (noise[together > 0] / together[together > 0]) if np.isfinite(together).all() else np.ones(1)
    part = float(parts.mean()) if len(parts) else 0.0
    tiny = 10 ** (-_LIMIT_DB / 10)
    return float(10 * np.log10(max(1 - part, tiny) / max(part, tiny)))
