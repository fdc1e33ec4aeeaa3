"""The start of a transfer: the pretrained backbone, with a head fitted on its features."""

from __future__ import annotations

import numpy as np
import torch

from edgetl.base.progress import Progress
from edgetl.core.data import Dataset
from edgetl.transfer import features, heads
from edgetl.transfer import weights as sources
from edgetl.transfer.images import ImageStore
from edgetl.transfer.model import Deployable
from edgetl.transfer.plan import Plan
from edgetl.transfer.scores import Scores, score
from edgetl.transfer.strategies import HeadSpec


def with_head(order: Plan, dataset: Dataset, spec: HeadSpec, progress: Progress) -> tuple[Deployable, Scores]:
    """The pretrained backbone of an order with the head that ``spec`` asks for; nothing is written but the features.

    Returns:
        the model, in evaluation mode, float32, on the CPU, and its scores on the validation images.
    """
    torch.manual_seed(order.settings["seed"])
    body = sources.load(order.backbone, len(dataset.classes), order.source, order.preprocess)
    model = Deployable(body, order.preprocess).eval().to(memory_format=torch.channels_last)
    held = _features(order, dataset, model, progress)
    model.cpu()
    labels = {name: dataset.labels(name) for name in ("train", "val")}
    _, layer = sources.head_of(body, order.backbone.name)
    if spec.start == "fitted":
        progress("fitting the head", 0, 0)
        fitted = heads.fit_head(
            (held["train"], labels["train"]), (held["val"], labels["val"]),
            len(dataset.classes), spec.class_balance, spec.weakest_penalty,
        )  # fmt: skip
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(fitted.weight))
            layer.bias.copy_(torch.from_numpy(fitted.bias))
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return model, score(np.asarray(held["val"] @ weight.T + bias, dtype=np.float32), labels["val"])


def _features(order: Plan, dataset: Dataset, model: Deployable, progress: Progress) -> dict[str, features.Floats]:
    key = [order.settings["backbone"], order.settings["weights_sha256"], order.settings["weights"], dataset.digest]
    key += [order.preprocess.digest, order.settings["seed"], order.placement.accelerator]

    def computed() -> dict[str, features.Floats]:
        device, held = order.placement.device, {}
        for name in ("train", "val"):
            store = ImageStore(dataset.paths(name), order.preprocess)
            held[name] = features.compute(model, store, device, f"features of {name}", progress)
        return held

    return features.cached(order.checkpoints, key, computed)
