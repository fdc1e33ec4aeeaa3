"""The faults by number: what each is called, what diagnosis has to call it, and how it is planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edgetl.core.bundle import Bundle
from edgetl.inputs import preprocess_of
from tests.diagnosis import faults, training_mode
from tests.diagnosis.healthy import Logits, deployed_logits
from tests.diagnosis.runners import Pixels, runners

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
    return [
        *_graphs(healthy, model),
        *_runners(healthy, certified),
        *_files(healthy),
        *_ranges(healthy, other),
        *_weights(healthy),
    ]


def _by(plant: Callable[..., Bundle], healthy: Bundle, *what: Any, **how: Any) -> Callable[[Path], Faulty]:
    return lambda folder: (plant(healthy, folder, *what, **how), None)


def _graphs(b: Bundle, model: torch.nn.Module) -> list[Fault]:
    other = faults.normalised_by((0.3, 0.35, 0.4), (0.2, 0.22, 0.24), preprocess_of(b))
    return [
        Fault(1, "BGR in the graph", "channel-order", _by(faults.faulty_graph, b, faults.bgr)),
        Fault(2, "wrong mean and std in the graph", "normalisation", _by(faults.faulty_graph, b, other)),
        Fault(6, "NHWC/NCHW mix-up in the graph", "layout", _by(faults.faulty_graph, b, faults.mixed_up)),
        Fault(14, "batch statistics", "batch-norm-training", _by(training_mode.of_batch_statistics, b, model)),
        Fault(14, "batch norm in training mode", "batch-norm-training", _by(training_mode.in_training_mode, b, model)),
    ]


def _runners(b: Bundle, certified: int) -> list[Fault]:
    numbers = {
        "channel-order": 1,
        "normalisation": 2,
        "crop-before-resize": 3,
        "interpolation": 4,
        "crop-ratio": 5,
        "layout": 6,
    }
    paths = b.dataset.paths("certify")[:certified]
    found = []
    for kind, prepare in runners(preprocess_of(b)).items():

        def plant(folder: Path, prepare: Callable[[Path], Pixels] = prepare) -> Faulty:
            return b, deployed_logits(b, [prepare(path) for path in paths])

        found.append(Fault(numbers[kind], f"runner: {kind}", kind, plant))
    return found


def _files(b: Bundle) -> list[Fault]:
    filter_ = "bilinear" if preprocess_of(b).interpolation != "bilinear" else "nearest"
    side = max(preprocess_of(b).height, preprocess_of(b).width)
    return [
        Fault(
            4, f"{filter_} in preprocess.json", "interpolation", _by(faults.other_preprocess, b, interpolation=filter_)
        ),
        Fault(5, "crop ratio 1 in preprocess.json", "crop-ratio", _by(faults.other_preprocess, b, resize=side)),
        Fault(7, "labels.json permuted", "label-order", _by(faults.permuted_labels, b)),
        Fault(9, "calibration with one class", "calibration-one-class", _by(faults.of_one_class, b)),
        Fault(10, "calibration with 4 images", "calibration-too-few", _by(faults.of_four, b)),
        Fault(13, "calibration overlaps certify", "calibration-overlap", _by(faults.overlapping, b)),
    ]


def _ranges(b: Bundle, other: Bundle) -> list[Fault]:
    return [
        Fault(8, "calibration with uniform noise", "calibration-noise", _by(faults.of_noise, b)),
        Fault(8, "calibration with normal noise", "calibration-noise", _by(faults.of_noise, b, normal=True)),
        Fault(11, "ranges of another model", "calibration-stale", _by(faults.stale, b, other)),
        Fault(15, "saturating s8 activations", "saturation", _by(faults.saturating, b)),
    ]


def _weights(b: Bundle) -> list[Fault]:
    classes, layer = len(b.labels), faults.middle_layer(b)
    return [
        Fault(7, "head's rows permuted", "label-order", _by(faults.rewritten, b, faults.permuted_rows(classes))),
        Fault(12, "one scale for depthwise weights", "per-tensor-depthwise", _by(faults.per_tensor, b)),
        Fault(16, "one channel zeroed", "dead-channel", _by(faults.rewritten, b, faults.dead_channel(*layer))),
        Fault(17, "head row damaged", "damaged-class", _by(faults.rewritten, b, faults.damaged_row(classes))),
    ]
