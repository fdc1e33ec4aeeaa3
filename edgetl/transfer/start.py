"""The start of a transfer: the pretrained backbone, with a head fitted on its features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgetl.base.errors import EdgetlError
from edgetl.base.progress import Progress
from edgetl.base.storage import check_room
from edgetl.core.data import Dataset
from edgetl.core.tensors import Arrays, packed
from edgetl.transfer import features, statistics
from edgetl.transfer import weights as sources
from edgetl.transfer.anchor import Teacher
from edgetl.transfer.classifier import head_of
from edgetl.transfer.columns import newest_of
from edgetl.transfer.model import Deployable, filled, head_width, load_model, network_for, outputs, val_outputs
from edgetl.transfer.plan import Plan
from edgetl.transfer.scores import Scores
from edgetl.transfer.stores import store_of
from edgetl.transfer.strategies.base import ADDED, HeadSpec
from edgetl.transfer.streams import Streams
from edgetl.transfer.tasks import scored
from edgetl.transfer.trainable import check_gradients, prepare
from edgetl.transfer.validators import VALIDATORS, judged
from edgetl.transfer.widths import take_widths

#: Files of a model's size that training keeps at once: epoch 0, the best epoch and the next best, twice the model with
#: both moments of its optimizer, and the finished weights. A strategy without steps keeps the first and the last.
TRAINED, FITTED = 9, 2
NOTHING = Streams()
#: Of the training samples, by which a strategy chooses what of the network is left.
_SAMPLES = 32


def check_sizes(order: Plan, dataset: Dataset) -> Deployable:
    """Feed one sample to the architecture, before anything is written.

    Returns:
        it, without any weights that were learned.

    Raises:
        EdgetlError: it cannot take it, or the disk has no room for what training keeps.
        DataError: the sample cannot be read.
    """
    feeds = order.input.batch(dataset.paths("train")[:1])
    try:
        body = sources.architecture(order.backbone, _own_width(order, dataset), order.source, order.input)
        network: Deployable = network_for(order.task, dataset.classes, body, order.input)
        network.eval()
        if order.sources.previous is not None and order.source.of_run:
            take_widths(body, newest_of(load_model(order.sources.previous).backbone.state_dict()))
        with torch.inference_mode():
            network.fed(feeds, torch.device("cpu"))
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        shown = ", ".join(f"{name} of {'x'.join(map(str, array.shape[1:]))}" for name, array in feeds.items())
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        remedy = "choose another --image-size or --backbone" if "image" in feeds else "choose another --backbone"
        raise EdgetlError(f"the backbone '{order.backbone.name}' cannot take {shown} ({reason})", remedy) from error
    size = sum(tensor.numel() * tensor.element_size() for tensor in body.state_dict().values())
    if order.strategy.column is not None and order.sources.previous is not None:
        size += order.sources.previous.weights.stat().st_size
    files = TRAINED if order.strategy.schedule.epochs else FITTED
    check_room(order.out, files * size, "training")
    return network


def check_strategy(order: Plan, dataset: Dataset, network: Deployable, streams: Streams) -> None:
    """What only a real network tells: whether the strategy can be prepared, and whether what trains takes part.

    Args:
        order: of the run.
        dataset: its samples.
        network: of :func:`check_sizes`; the strategy's own layers stay in it.
        streams: what the strategy was given.

    Raises:
        EdgetlError: it cannot, or does not.
    """
    if order.strategy.params.batch_norm == "adapt":
        statistics.check_norms(network.backbone, order.backbone.name)
    if streams.teacher is not None:
        Teacher(streams.teacher, order.input, dataset.classes, order.learner.scale(dataset.labels("train")))
    if order.strategy.rebuild is not None:
        network = _rebuilt(order, dataset, network.eval())
    if order.strategy.schedule.epochs:
        trainee = prepare(order.strategy, network, streams, order.settings.seed)
        if ADDED in order.strategy.params.trains:
            check_gradients(trainee.network, order.input.batch(dataset.paths("train")[:1]))


def with_head(
    order: Plan, dataset: Dataset, spec: HeadSpec, progress: Progress, beside: Streams = NOTHING
) -> tuple[Deployable, Scores, Arrays]:
    """The pretrained backbone of an order with the head that ``spec`` asks for; nothing is written but the features.

    Where batch norms adapt, the head is fitted under the statistics of the samples to train on, and the network ends
    with the target's: under a head that was fitted with the pretrained ones, adapting them lost 8 to 26 points.

    Args:
        order: of the run.
        dataset: its samples.
        spec: of the head.
        progress: told of each sample.
        beside: the target's samples, where the strategy has any.

    Returns:
        the model, in evaluation mode, float32, on the CPU, its head in the scale of training, and its scores and
        outputs, in the labels' unit, on the validation samples.
    """
    # A column that starts at random is not to be the one again that an earlier run drew from the same seed.
    torch.manual_seed(order.settings.seed + len(order.kept))
    body = sources.load(order.backbone, _own_width(order, dataset), order.source, order.input)
    model = network_for(order.task, dataset.classes, body, order.input).eval().to(memory_format=torch.channels_last)
    adapts = order.strategy.params.batch_norm == "adapt" and "target" in beside.samples
    if order.strategy.rebuild is not None:
        model = _rebuilt(order, dataset, model)
        body = model.backbone
    device = order.placement.device
    # What never was trained has no statistics yet: a head that was fitted to features of any size upsets the training.
    own = adapts or (order.strategy.params.batch_norm == "train" and not order.backbone.pretrained)
    if own and statistics.norms_of(body):
        _measure(order, model, dataset.paths("train"), "batch statistics", progress)
    held = _features(order, dataset, model, own, progress)
    model.cpu()
    learner, labels = order.learner, {name: dataset.labels(name) for name in ("train", "val")}
    scale = learner.scale(labels["train"])
    _, layer = head_of(body, order.backbone.name)
    if spec.start == "fitted":
        progress("fitting the head", 0, 0)
        parts = [(held[name], learner.targets(labels[name], scale)) for name in ("train", "val")]
        fitted = learner.fit(parts[0], parts[1], len(dataset.classes), spec)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(fitted.weight))
            layer.bias.copy_(torch.from_numpy(fitted.bias))
    if adapts or order.strategy.column is not None:
        if adapts:
            _measure(order, model, beside.samples["target"].paths, "statistics of the target", progress)
        raw = packed(val_outputs(model.to(device), dataset, device, progress=progress))
        model.cpu()
    else:
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        raw = np.asarray(held["val"] @ weight.T + bias, dtype=np.float32)
    told = scale.applied(raw)
    answers = model.named(told)
    found = scored(order.task, answers, labels["val"])
    return model, _judged(order, model, found, (told, labels["val"]), beside, progress), answers


def _own_width(order: Plan, dataset: Dataset) -> int:
    """Outputs of the head that is learned: of several tasks those that are not kept as they are."""
    widths = {part.name: part.width for part in dataset.parts if part.name not in order.kept}
    return sum(widths.values()) or head_width(order.task, dataset.classes)


def _rebuilt(order: Plan, dataset: Dataset, network: Deployable) -> Deployable:
    """The network of the shape that the strategy gives it, in evaluation mode."""
    assert order.strategy.rebuild is not None
    previous = None if order.sources.previous is None else load_model(order.sources.previous)
    tensors = order.strategy.rebuild(network, order.input.batch(_some(dataset)), previous)
    width = head_width(order.task, dataset.classes)
    body, _ = filled(order.backbone.name, width, tensors, order.input)
    made = network_for(order.task, dataset.classes, body, order.input)
    made.eval().to(memory_format=torch.channels_last)
    return made


def _some(dataset: Dataset) -> list[Path]:
    """Training samples from all over the split, which is sorted by class."""
    paths = dataset.paths("train")
    return list(paths[:: max(len(paths) // _SAMPLES, 1)])[:_SAMPLES]


def _measure(order: Plan, model: Deployable, paths: Sequence[Path], step: str, progress: Progress) -> None:
    device, store = order.placement.device, store_of(order.input, paths)
    statistics.measure(model.to(device), store, device, step=step, progress=progress)


def _judged(
    order: Plan, model: Deployable, found: Scores, val: tuple[Any, Any], beside: Streams, progress: Progress
) -> Scores:
    """Scores, ranked as the strategy's validator ranks them; the model is on the CPU afterwards."""
    validator = VALIDATORS.get(order.strategy.validator)
    if validator is not None and beside.judged is not None and order.strategy.schedule.epochs:
        store, device = store_of(order.input, beside.judged.paths), order.placement.device
        answers = packed(outputs(model.to(device), store, device, "validating", progress))
        found = judged(found, validator, answers, val)
    model.cpu()
    return found


def _features(
    order: Plan, dataset: Dataset, model: Deployable, own: bool, progress: Progress
) -> dict[str, features.Floats]:
    settings = order.settings
    key: list[Any] = [settings.backbone, settings.weights_sha256, settings.weights, dataset.digest]
    key += [order.input.digest, settings.seed, settings.accelerator, *(["own statistics"] if own else [])]
    if order.strategy.rebuild is not None:
        key += [settings.strategy, dict(settings.options), settings.to_json()["given"]]

    def computed() -> dict[str, features.Floats]:
        device, held = order.placement.device, {}
        for name in ("train", "val"):
            store = store_of(order.input, dataset.paths(name))
            held[name] = features.compute(model, store, device, f"features of {name}", progress)
        return held

    return features.cached(order.checkpoints, key, computed)
