"""Fault 14: exported graphs whose batch norms take their statistics from the batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import torch

from edgetl.compress import graph
from edgetl.compress.quiet import quiet
from edgetl.core.bundle import Bundle
from edgetl.inputs import preprocess_of
from tests.diagnosis.faults import calibration_images, copied, quantized_again, sealed


def in_training_mode(bundle: Bundle, folder: Path, model: torch.nn.Module) -> Bundle:
    """Batch norms that were never told that training is over: ONNX BatchNormalization with ``training_mode``."""

    def spoil(layer: torch.nn.BatchNorm2d) -> None:
        layer.training, layer.momentum = True, 0.1

    options = {"dynamic_axes": {"image": {0: "batch"}}, "training": torch.onnx.TrainingMode.PRESERVE}
    # ONNX Runtime cannot run what its quantizer makes of such a graph, so the artifact stays as it was.
    _spoiled(bundle, folder, model, spoil, dynamo=False, do_constant_folding=False, **options)
    return sealed(bundle, folder)


def of_batch_statistics(bundle: Bundle, folder: Path, model: torch.nn.Module) -> Bundle:
    """Batch norms that lost their running statistics, and take the batch's."""

    def spoil(layer: torch.nn.BatchNorm2d) -> None:
        layer.track_running_stats = False
        layer.running_mean = layer.running_var = layer.num_batches_tracked = None

    shapes = {"image": {0: torch.export.Dim("batch")}}
    exported = _spoiled(bundle, folder, model, spoil, dynamo=True, dynamic_shapes=shapes)
    quantized_again(bundle, folder, calibration_images(bundle), exported)
    return sealed(bundle, folder)


def _spoiled(
    bundle: Bundle,
    folder: Path,
    model: torch.nn.Module,
    spoil: Callable[[torch.nn.BatchNorm2d], None],
    **options: Any,
) -> Path:
    copied(bundle, folder)
    damaged = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format)
    for name, layer in damaged.named_modules():
        if isinstance(layer, torch.nn.BatchNorm2d) and not name.startswith("normalise"):
            spoil(layer)
    example = torch.zeros(2, preprocess_of(bundle).height, preprocess_of(bundle).width, 3, dtype=torch.uint8)
    path = folder / bundle.exported.relative_to(bundle.path)
    names = {"input_names": ["image"], "output_names": ["logits"]}
    with quiet():
        torch.onnx.export(damaged, (example,), str(path), opset_version=18, external_data=False, **names, **options)
    exported = onnx.load(str(path))
    graph.canonicalise(exported)
    return graph.save(onnx.shape_inference.infer_shapes(exported), path)
