"""The artifact's weights against those of the float graph: lost channels, damaged classes, scales too coarse."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.compress.layers.points import Point
from edgetl.compress.layers.topology import Topology
from edgetl.core.bundle import Bundle
from edgetl.core.findings import Finding

Rows = npt.NDArray[np.float64]
#: A destroyed channel is farther than this from its float weights, in steps of its scale; rounding, half a step.
STEPS = 2.0
#: Highest cosine between a channel that is called destroyed and its float weights.
ALIKE = 0.7
#: Channels with less than this share of the median norm in their layer say nothing: NNCF flushes some below a
#: ten-thousandth to zero.
FAINT = 1e-2
#: Another model's artifact: a larger share of the layers than this is unlike the float ones.
OTHERS = 0.5


@dataclass(frozen=True)
class Layer:
    """One weighted layer: its output channels as rows, in float and as executed."""

    point: Point
    before: Rows
    after: Rows
    group: int

    @property
    def name(self) -> str:
        """Torch module, or node where that is not known."""
        return self.point.module or self.point.node


def audit_weights(bundle: Bundle, points: Sequence[Point], topology: Topology) -> tuple[Finding, ...]:
    """Compare what is executed with the float graph that was compressed."""
    layers = [layer for point in points if (layer := _layer(point, topology)) is not None]
    if (other := _another_model(layers)) is not None:
        return (other,)
    found = [*_per_tensor(layers), *_first_layer(layers)]
    for layer in layers:
        last = layer.point.node == points[-1].node and len(layer.before) == len(bundle.labels)
        found += _head(layer, bundle.labels) if last else _channels(layer)
    return _merged(found)


def _layer(point: Point, topology: Topology) -> Layer | None:
    if point.weight is None:
        return None
    node = topology.nodes[point.node]
    before = np.asarray(topology.constants[node.input[1]], np.float64)
    group = int(_attribute(node, "group", 1))
    rows = [_rows(array, point.operator, node, group) for array in (before, np.asarray(point.weight, np.float64))]
    return Layer(point, rows[0], rows[1], group)


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(entry.i) for entry in node.attribute if entry.name == name), default)


def _rows(weight: Rows, operator: str, node: Any, group: int) -> Rows:
    """A row for each output channel."""
    if operator == "ConvTranspose":
        inputs, outputs = weight.shape[:2]
        return weight.reshape(group, inputs // group, outputs, -1).swapaxes(1, 2).reshape(group * outputs, -1)
    stored_by_input = operator == "MatMul" or (operator == "Gemm" and not _attribute(node, "transB", 0))
    return weight.T if stored_by_input else weight.reshape(len(weight), -1)


def _another_model(layers: Sequence[Layer]) -> Finding | None:
    """Weights unlike the float ones nearly everywhere; layers whose rows or channels only moved are like them."""
    alike = {layer.name: float(_alike(layer.before.reshape(1, -1), layer.after.reshape(1, -1))[0]) for layer in layers}
    unlike = [layer.name for layer in layers if alike[layer.name] < ALIKE and not _moved(layer)]
    if len(unlike) <= OTHERS * len(layers):
        return None
    worst = min(unlike, key=lambda name: alike[name])
    what = (
        f"The weights of {len(unlike)} of {len(layers)} layers are unlike those of the float graph: their cosine with "
        f"them is {alike[worst]:.2f} in {worst}."
    )
    cosines = {name: round(alike[name], 3) for name in unlike[:10]}
    return Finding("another-model", what, tuple(unlike), {"layers": len(unlike), "of": len(layers), "cosine": cosines})


def _moved(layer: Layer) -> bool:
    return _permutation(layer) is not None or any(_first_layer([layer]))


def _per_tensor(layers: Sequence[Layer]) -> Iterator[Finding]:
    coarse = [x for x in layers if x.group > 1 and (x.point.per_channel is False or _one_scale(x.after))]
    if not coarse:
        return

    def spread(layer: Layer) -> float:
        peaks = np.abs(layer.before).max(axis=1)
        return float(peaks.max() / max(np.median(peaks), 1e-30))

    worst = sorted(coarse, key=spread, reverse=True)
    what = (
        f"{len(coarse)} depthwise layers have one weight scale for all channels; in {worst[0].name} the largest "
        f"channel is {spread(worst[0]):.1f} times the median one, for which that leaves "
        f"{255 / spread(worst[0]):.0f} of 255 steps."
    )
    evidence = {"nodes": [x.point.node for x in worst], "spread": [round(spread(x), 2) for x in worst]}
    yield Finding("per-tensor-depthwise", what, tuple(x.name for x in worst), evidence)


def _one_scale(executed: Rows) -> bool:
    """Whether one step divides every weight, though channels differ in size: a file may store it once a channel."""
    peaks = np.abs(executed).max(axis=1)
    steps = executed / max(float(peaks.max()) / 127, 1e-30)
    return bool(peaks.max() > 1.02 * peaks.min() and np.abs(steps - np.rint(steps)).max() < 0.02)


def _first_layer(layers: Sequence[Layer]) -> Iterator[Finding]:
    """Red and blue swapped in the weights, where the image itself comes right."""
    first = next((x for x in layers if x.point.producer == "" and x.group == 1 and x.before.shape[1] % 3 == 0), None)
    if first is None or first.point.weight is None or first.point.weight.ndim != 4 or first.point.weight.shape[1] != 3:
        return
    swapped = first.before.reshape(len(first.before), 3, -1)[:, ::-1].reshape(first.before.shape)
    straight, turned = (_alike(first.after.reshape(1, -1), rows.reshape(1, -1))[0] for rows in (first.before, swapped))
    if turned > 0.95 and straight < ALIKE + 0.2:
        what = f"{first.name} weighs red as blue: its weights equal the float ones with the channels reversed."
        yield Finding("channel-order", what, (first.name,), {"node": first.point.node})


def _alike(one: Rows, other: Rows) -> Rows:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / np.maximum(norms, 1e-30))


def _destroyed(layer: Layer) -> list[int]:
    """Output channels whose weights rounding cannot explain."""
    norms = np.linalg.norm(layer.before, axis=1)
    peaks = np.abs(layer.after).max(axis=1)
    # A lost channel tells no scale of its own: the next best is what its float weights would have got.
    own = np.maximum(peaks, np.abs(layer.before).max(axis=1)) / 127
    step = own if layer.point.per_channel else np.full(len(own), max(float(own.max()), 1e-30))
    away = np.abs(layer.after - layer.before).max(axis=1)
    changed = (away > STEPS * step) & (_alike(layer.before, layer.after) < ALIKE)
    return [int(i) for i in np.flatnonzero(changed & (norms > FAINT * np.median(norms)))]


def _channels(layer: Layer) -> Iterator[Finding]:
    lost = _destroyed(layer)
    # Where much of a layer is unlike the float one, it is another layer, and no channel of it was lost.
    if not lost or len(lost) > max(1, len(layer.before) // 4):
        return
    empty = sum(not layer.after[row].any() for row in lost)
    state = "zero" if empty == len(lost) else "destroyed"
    named = f"channel {lost[0]}" if len(lost) == 1 else f"{len(lost)} channels (first: {lost[0]})"
    what = f"In {layer.name}, the weights of {named} of {len(layer.before)} are {state} and in the float graph are not."
    evidence = {"node": layer.point.node, "module": layer.point.module, "channels": lost}
    yield Finding("dead-channel", what, (layer.name,), evidence)


def _head(layer: Layer, labels: Sequence[str]) -> Iterator[Finding]:
    order = _permutation(layer)
    if order is not None:
        moved = [(row, source) for row, source in enumerate(order) if row != source]
        first = "; ".join(f"logit {row} ('{labels[row]}') has the weights of '{labels[s]}'" for row, s in moved[:3])
        what = f"The rows of the last layer, {layer.name}, are permuted: {first}{' …' if len(moved) > 3 else ''}."
        yield Finding("label-order", what, (layer.name,), {"node": layer.point.node, "order": order})
        return
    lost = _destroyed(layer)
    if len(lost) > max(1, OTHERS * len(layer.before)):
        what = (
            f"The last layer, {layer.name}, is another model's: {len(lost)} of its {len(labels)} rows are unlike the "
            "float ones."
        )
        yield Finding("another-model", what, (layer.name,), {"node": layer.point.node, "rows": lost})
        return
    for row in lost:
        alike = float(_alike(layer.before[[row]], layer.after[[row]])[0])
        what = (
            f"The weights of the class '{labels[row]}' in the last layer, {layer.name}, are damaged: their cosine with "
            f"the float ones is {alike:.2f}."
        )
        evidence = {"node": layer.point.node, "classes": [labels[row]], "rows": [row], "cosine": round(alike, 3)}
        yield Finding("damaged-class", what, (layer.name,), evidence)


def _permutation(layer: Layer) -> list[int] | None:
    """Row of the float layer that each row of the executed one equals; None if that is its own, or none."""
    unit = [
        rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30) for rows in (layer.before, layer.after)
    ]
    cosines = unit[1] @ unit[0].T
    order = cosines.argmax(axis=1)
    own, best = cosines.diagonal(), cosines.max(axis=1)
    moved = (order != np.arange(len(order))) & (best > 0.9) & (best - own > 0.05)
    order = np.where(moved, order, np.arange(len(order)))
    return order.tolist() if moved.any() and len(set(order.tolist())) == len(order) else None


def _merged(found: Sequence[Finding]) -> tuple[Finding, ...]:
    """Several lost channels or classes as one finding each: the first is told, all are named."""
    merged: dict[str, Finding] = {}
    for finding in found:
        first = merged.setdefault(finding.kind, finding)
        if first is finding:
            continue
        classes = [*first.evidence.get("classes", ()), *finding.evidence.get("classes", ())]
        layers = tuple(dict.fromkeys((*first.layers, *finding.layers)))
        count = int(first.evidence.get("more", 0)) + 1
        evidence = {**first.evidence, "more": count, **({"classes": classes} if classes else {})}
        merged[finding.kind] = Finding(finding.kind, first.what, layers, evidence)
    return tuple(merged.values())
