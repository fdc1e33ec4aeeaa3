"""The faults by number: what each is called, what diagnosis has to call it, and how it is planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from edgetl.bundle import Bundle
from tests.diagnosis import faults
from tests.diagnosis.healthy import Logits, deployed_logits

#: A faulty bundle; and, where a runner is at fault, its answers.
Faulty = tuple[Bundle, Logits | None]


@dataclass(frozen=True)
class Fault:
    """One fault, and where it is planted.

    Attributes:
        number: 1 to 17.
        name: in words.
        kind: what it has to be called.
        plant: makes the faulty bundle in a folder that does not exist yet.
    """

    number: int
    name: str
    kind: str
    plant: Callable[[Path], Faulty]


def planted(healthy: Bundle, other: Bundle, model: torch.nn.Module, certified: int = 40) -> list[Fault]:
    """All faults of one healthy bundle.

    Args:
        healthy: the bundle that is copied and damaged.
        other: another model's bundle of the same architecture and target.
        model: the torch model behind ``healthy``.
        certified: certify images that broken runners answer.
    """
    return [*_graphs(healthy, model), *_runners(healthy, certified), *_files(healthy), *_ranges(healthy, other), *_weights(healthy)]


def _graphs(b: Bundle, model: torch.nn.Module) -> list[Fault]:
    other = faults.normalised_by((0.3, 0.35, 0.4), (0.2, 0.22, 0.24), b.preprocess)
    return [
        Fault(1, "BGR in the graph", "channel-order", lambda f: (faults.faulty_graph(b, f, faults.bgr), None)),
        Fault(2, "wrong mean and std in the graph", "normalisation", lambda f: (faults.faulty_graph(b, f, other), None)),
        Fault(6, "NHWC/NCHW mix-up in the graph", "layout", lambda f: (faults.faulty_graph(b, f, faults.mixed_up), None)),
        Fault(14, "batch statistics", "batch-norm-training", lambda f: (faults.of_batch_statistics(b, f, model), None)),
        Fault(14, "batch norm in training mode", "batch-norm-training", lambda f: (faults.in_training_mode(b, f, model), None)),
    ]  # fmt: skip


def _runners(b: Bundle, certified: int) -> list[Fault]:
    numbers = {"channel-order": 1, "normalisation": 2, "crop-before-resize": 3, "interpolation": 4, "crop-ratio": 5, "layout": 6}
    paths = b.dataset.paths("certify")[:certified]
    found = []
    for kind, prepare in faults.runners(b.preprocess).items():

        def plant(folder: Path, prepare: Callable[[Path], faults.Pixels] = prepare) -> Faulty:
            return b, deployed_logits(b, [prepare(path) for path in paths])

        found.append(Fault(numbers[kind], f"runner: {kind}", kind, plant))
    return found


def _files(b: Bundle) -> list[Fault]:
    filter_ = "bilinear" if b.preprocess.interpolation != "bilinear" else "nearest"
    side = max(b.preprocess.height, b.preprocess.width)
    return [
        Fault(4, f"{filter_} in preprocess.json", "interpolation", lambda f: (faults.other_preprocess(b, f, interpolation=filter_), None)),
        Fault(5, "crop ratio 1 in preprocess.json", "crop-ratio", lambda f: (faults.other_preprocess(b, f, resize=side), None)),
        Fault(7, "labels.json permuted", "label-order", lambda f: (faults.permuted_labels(b, f), None)),
        Fault(9, "calibration with one class", "calibration-one-class", lambda f: (faults.of_one_class(b, f), None)),
        Fault(10, "calibration with 4 images", "calibration-too-few", lambda f: (faults.of_four(b, f), None)),
        Fault(13, "calibration overlaps certify", "calibration-overlap", lambda f: (faults.overlapping(b, f), None)),
    ]  # fmt: skip


def _ranges(b: Bundle, other: Bundle) -> list[Fault]:
    return [
        Fault(8, "calibration with uniform noise", "calibration-noise", lambda f: (faults.of_noise(b, f), None)),
        Fault(8, "calibration with normal noise", "calibration-noise", lambda f: (faults.of_noise(b, f, normal=True), None)),
        Fault(11, "ranges of another model", "calibration-stale", lambda f: (faults.stale(b, f, other), None)),
        Fault(15, "saturating s8 activations", "saturation", lambda f: (faults.saturating(b, f), None)),
    ]  # fmt: skip


def _weights(b: Bundle) -> list[Fault]:
    classes, layer = len(b.labels), faults.middle_layer(b)
    return [
        Fault(7, "head's rows permuted", "label-order", lambda f: (faults.rewritten(b, f, faults.permuted_rows(classes)), None)),
        Fault(12, "one scale for depthwise weights", "per-tensor-depthwise", lambda f: (faults.per_tensor(b, f), None)),
        Fault(16, "one channel zeroed", "dead-channel", lambda f: (faults.rewritten(b, f, faults.dead_channel(*layer)), None)),
        Fault(17, "head row damaged", "damaged-class", lambda f: (faults.rewritten(b, f, faults.damaged_row(classes)), None)),
    ]  # fmt: skip
