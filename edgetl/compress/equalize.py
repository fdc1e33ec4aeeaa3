"""Cross-layer equalization: channels rescaled across layers so that 8 bits suit all of them; the function stays.

Nagel, van Baalen, Blankevoort and Welling 2019, "Data-Free Quantization through Weight Equalization and Bias
Correction", section 4.1, for groups of layers: what an addition joins has to be scaled alike, so all producers of a
residual stream are divided by one vector of factors, and all its readers multiplied by it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.compress import graph
from edgetl.compress.batches import fed
from edgetl.compress.equalize_groups import Group, find_groups
from edgetl.compress.layers.arithmetic import session_of
from edgetl.compress.layers.topology import Topology, read_topology
from edgetl.core.tensors import Arrays

Floats = npt.NDArray[np.float64]
#: Largest difference that rescaling may make, as a share of the logits' range.
PARITY = 1e-3
#: Batches that the outcome is compared on.
COMPARED = 8
#: Sweeps over all groups, and the logarithm of a factor at which they have settled.
_SWEEPS, _SETTLED = 30, 1e-3


@dataclass(frozen=True)
class Rescaled:
    """One group of layers that was rescaled.

    Attributes:
        producers, readers: names of the nodes that write and read the group's tensors.
        channels: how many factors there are.
        spread: the largest factor over the smallest.
    """

    producers: tuple[str, ...]
    readers: tuple[str, ...]
    channels: int
    spread: float


@dataclass(frozen=True)
class Equalized:
    """What was done to a model.

    Attributes:
        groups: rescaled, in the order of the graph.
        max_abs: largest difference of any logit between the original and the outcome.
        logit_range: highest minus lowest logit of the original.
    """

    groups: tuple[Rescaled, ...]
    max_abs: float
    logit_range: float

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        found = asdict(self)
        return {**found, "groups": [{**g, **_lists(g, "producers", "readers")} for g in found["groups"]]}


def _lists(group: dict[str, Any], *names: str) -> dict[str, list[str]]:
    return {name: list(group[name]) for name in names}


def equalize(model: Path, out: Path, samples: Iterable[Arrays] | None = None) -> Equalized:
    """Write an equalized copy of a float ONNX model; nodes and tensors keep their names.

    The factor of a channel is √(r₁/r₂), with r₁ the largest weight of any producer for that channel and r₂ that of
    any reader. Biases do not count: with them, the logits of a rescaled EfficientNet-Lite0 were off by 0.164 (root
    of the mean square) instead of 0.139. Nor did it help to take r₁ from the activations: 0.140. Channels without
    weights on one side keep the factor 1. Groups of which a factor would not come out again unchanged (Clip,
    HardSwish, Sigmoid, the graph's output, …) are left alone.

    Args:
        model: float ONNX file.
        out: file to write.
        samples: inputs by name, (n, …) each; the outcome is compared on the first :data:`COMPARED`, or on noise.

    Raises:
        CompressionError: the outcome differs from the original by more than :data:`PARITY` of the logits' range.
    """
    topology = read_topology(model)
    groups = find_groups(topology)
    weights = {name: array.astype(np.float64) for name, array in topology.constants.items() if array.dtype.kind == "f"}
    factors = _settle(groups, weights)
    changed = {name for group in groups for name in group.constants()}
    graph.save(_with(topology, {name: weights[name] for name in changed}), out)
    difference, spread = _compare(model, out, samples)
    rescaled = (
        Rescaled(group.producer_names, group.reader_names, len(scale), float(scale.max() / scale.min()))
        for group, scale in zip(groups, factors, strict=True)
    )
    return Equalized(tuple(rescaled), difference, spread)


def _settle(groups: Sequence[Group], weights: dict[str, npt.NDArray[Any]]) -> list[Floats]:
    """Rescale the weights until nothing moves: a depthwise layer ends one group and begins the next."""
    factors = [np.ones_like(group.read(weights)) for group in groups]
    for _ in range(_SWEEPS):
        moved = 0.0
        for index, group in enumerate(groups):
            above, below = group.written(weights), group.read(weights)
            usable = (above > 0) & (below > 0)
            scale = np.sqrt(np.where(usable, above, 1.0) / np.where(usable, below, 1.0))
            group.rescale(weights, scale)
            factors[index] = factors[index] * scale
            moved = max(moved, float(np.abs(np.log(scale)).max()))
        if moved < _SETTLED:
            break
    return factors


def _with(topology: Topology, weights: dict[str, npt.NDArray[Any]]) -> Any:
    onnx = require("onnx", "equalizing channels")
    model = onnx.ModelProto()
    model.CopyFrom(topology.model)
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(onnx.numpy_helper.from_array(weights[tensor.name].astype(np.float32), tensor.name))
    return model


def _compare(model: Path, out: Path, samples: Iterable[Arrays] | None) -> tuple[float, float]:
    sessions = [session_of(graph.load(path)) for path in (model, out)]
    batches = list(itertools.islice(samples, COMPARED)) if samples is not None else [_noise(sessions[0])]
    before, after = (np.concatenate([s.run(None, fed(b, s))[0] for b in batches]) for s in sessions)
    spread, difference = float(np.ptp(before)), float(np.abs(after - before).max())
    # Written so that a NaN fails too.
    if not difference <= PARITY * spread:
        raise CompressionError(
            f"equalized, {model} differs by {difference:.3g} in logits that span {spread:.3g}",
            "quantize it without equalization",
        )
    return difference, spread


def _noise(session: Any) -> Arrays:
    """Random bytes for images, standard normal numbers for floats, token 1 and the like for other integers."""
    draw, found = np.random.default_rng(0), {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else COMPARED for size in value.shape]
        if value.type == "tensor(uint8)":
            found[value.name] = draw.integers(0, 256, shape, dtype=np.uint8)
        elif value.type == "tensor(float)":
            found[value.name] = draw.standard_normal(shape).astype(np.float32)
        else:
            found[value.name] = np.ones(shape, value.type.removeprefix("tensor(").removesuffix(")"))
    return found
