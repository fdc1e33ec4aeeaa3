"""The weights trained again for the arithmetic of a recipe: to the trained model's answers, and then to the labels.

What is trained is compressed by the recipe in the ordinary way afterwards. Quantizers that bring their own rounded
network export where *they* round: what NNCF writes runs at 0.4 times the speed of float in ONNX Runtime, and what ONNX
Runtime writes is refused by TensorRT. The rounding imitated here is the one that the target's own recipe deploys.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetl.base.errors import CompressionError
from edgetl.base.extras import require
from edgetl.base.storage import read_json, write_bytes, write_json
from edgetl.compress.recipes import Recipe
from edgetl.compress.repair import TRAINED, Attempt
from edgetl.core.data import Sample
from edgetl.core.run import WEIGHTS
from edgetl.inputs import input_of
from edgetl.tasks import find_task
from edgetl.workflow.candidates import Candidates
from edgetl.workflow.reference import EXPORTED, OPSET
from edgetl.workflow.stage_cache import stage, versions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgetl.compress.distil import Labelled, Training

#: Most seconds of each.
SECONDS = 300.0
#: Weight of the loss to the labels, beside the divergence from the trained model.
LABELS = 1.0


def distilled(candidates: Candidates, best: Attempt) -> tuple[str, str]:
    """Train on training samples with the trained model as the teacher; what was done, and the stage that holds it.

    Raises:
        CompressionError: there is no torch model, nothing is quantized, or there are no samples to train on.
    """
    from edgetl.compress.distil import Training

    return _trained(candidates, best, Training(seconds=SECONDS), "steps of distillation (divergence")


def trained(candidates: Candidates, best: Attempt) -> tuple[str, str]:
    """The same to the labels, too, from the weights of the attempt.

    Raises:
        CompressionError: as :func:`distilled`.
    """
    from edgetl.compress.distil import Training

    how = Training(seconds=SECONDS, labels=LABELS)
    return _trained(candidates, best, how, "steps of quantization-aware training (held-out loss")


def _trained(candidates: Candidates, best: Attempt, how: Training, words: str) -> tuple[str, str]:
    run, recipe = candidates.run, best.recipe
    _teacher(candidates)
    # What labels a model that was adapted has are another domain's.
    learned = () if run.adaptation is not None else run.dataset.split("train")
    samples = learned or (() if how.labels else run.dataset.split("calibration"))
    if recipe is None or not samples:
        raise CompressionError("there are no samples to train on", "train on samples of your own")

    def build(folder: Path) -> None:
        _train(candidates, best, recipe, samples, how, folder)

    inputs = {
        "run": run.digest,
        "onnx": candidates.floating.name,
        "recipe": recipe.to_json(),
        "start": best.source,
        "labels": how.labels,
        "versions": versions("torch", "onnx"),
    }
    folder = stage(candidates.work, "trained-again", inputs, build)
    record = read_json(folder / "training.json")
    start, end = (record["loss"][name] for name in ("start", "end"))
    return f"{record['steps']} {words} {start:.3g} → {end:.3g})", folder.name


def _train(
    candidates: Candidates, best: Attempt, recipe: Recipe, samples: Sequence[Sample], how: Training, folder: Path
) -> None:
    import safetensors.torch as tensors

    from edgetl.compress.distil import MOST, distil
    from edgetl.compress.divergences import divergence_of
    from edgetl.compress.export import export_onnx
    from edgetl.transfer.exportable import exportable

    run, teacher = candidates.run, _teacher(candidates)
    order = np.random.default_rng(run.settings.get("seed", 0)).permutation(len(samples))[:MOST]
    chosen = [samples[row] for row in order]
    inputs = input_of(run).batch([run.dataset.file(sample) for sample in chosen])
    labelled = _to_labels(candidates, chosen) if how.labels else None
    done = distil(
        _start(candidates, best, teacher), recipe, inputs, teacher=teacher, labelled=labelled,
        divergence=divergence_of(run.dataset.label_kind, run.classes), training=how, progress=candidates.progress,
    )  # fmt: skip
    names = [spec.name for spec in find_task(run.task).outputs(run.classes)]
    model = exportable(done.model)
    export_onnx(model, input_of(run), folder / EXPORTED, outputs=names, batch=candidates.batch, opset=OPSET)
    write_bytes(folder / WEIGHTS, tensors.save({k: v.contiguous() for k, v in done.model.state_dict().items()}))
    write_json(folder / "training.json", dict(done.record))


def _teacher(candidates: Candidates) -> nn.Module:
    if candidates.reference.module is None:
        raise CompressionError("an adopted network has no torch model, which this trains", "leave it")
    return candidates.reference.module


def _start(candidates: Candidates, best: Attempt, teacher: nn.Module) -> nn.Module:
    """The torch model with the weights of an attempt."""
    kept = candidates.work / best.source / WEIGHTS
    if best.source == TRAINED or not kept.is_file():
        return teacher
    model = copy.deepcopy(teacher)
    state: Mapping[str, Any] = require("safetensors.torch", "training the weights again").load_file(kept)
    model.load_state_dict(state)
    return model


def _to_labels(candidates: Candidates, samples: Sequence[Sample]) -> Labelled:
    """The loss of the task, as every strategy without terms of its own has it."""
    import torch

    from edgetl.transfer.strategies.base import HeadSpec, ParamPolicy, StepContext, Strategy
    from edgetl.transfer.tasks import learner_of

    run = candidates.run
    learner = learner_of(find_task(run.task), run.classes, run.dataset.unlearned)
    every = run.dataset.labels("train")
    scale = learner.scale(every)
    targets = torch.from_numpy(learner.targets(run.dataset.labels_of(samples), scale))
    counts = torch.from_numpy(learner.counts(every, len(run.classes)))
    model, plain = _teacher(candidates), Strategy(ParamPolicy(), HeadSpec()).resolved(learner.terms)

    def loss(outputs: Tensor, rows: Tensor) -> Tensor:
        device = outputs.device
        context = StepContext(
            model, {}, targets[rows].to(device), scale.standardised(outputs), counts.to(device), {}, None, 1.0,
            run.dataset.label_kind, lambda network, inputs: network(*inputs.values()),
        )  # fmt: skip
        return plain.loss(context)

    return loss
