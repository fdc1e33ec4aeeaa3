"""Layers in front that stay: which, that nothing of them moves, and that computing them once changes nothing else."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn import functional

from edgetl.base.errors import EdgetlError
from edgetl.core.run import WEIGHTS, Run
from edgetl.inputs import load_dataset
from edgetl.tasks import find_task
from edgetl.transfer import ahead
from edgetl.transfer.backbones import find as find_backbone
from edgetl.transfer.definitions import preprocess_for
from edgetl.transfer.finetune import finetune
from edgetl.transfer.freezing import LITTLE, Frozen, chosen, gradients, share
from edgetl.transfer.model import Deployable, network_for
from edgetl.transfer.prefix import Cut, cut
from edgetl.transfer.stores import store_of
from edgetl.transfer.strategies import find, resolve
from edgetl.transfer.strategies.base import ParamPolicy, Strategy
from edgetl.transfer.tasks import Scale, learner_of
from edgetl.transfer.trainable import depths_of, hold
from edgetl.transfer.weights import build

from .conftest import TINY
from .test_finetune import start
from .test_strategies import written

FAST: dict[str, Any] = {**TINY, "epochs": 3, "learning_rate": 0.003, "augment": "none"}
NAMES = ("timm/test_efficientnet", "timm/test_resnet", "timm/test_convnext", "torchvision/mobilenet_v3_small")


def network(name: str, size: int = 64) -> Deployable:
    torch.manual_seed(0)
    definition = preprocess_for(name, size)
    body = build(name, 4, weights="none", definition=definition)
    made: Deployable = network_for(find_task("classification"), list("abcd"), body, definition)
    return made


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", [0.3, 0.7])
def test_both_parts_of_a_cut_network_are_the_network(name: str, part: float) -> None:
    whole = network(name)
    held = share(whole, part)
    hold(whole.backbone, held.groups)
    found = cut(whole)
    assert isinstance(found, Cut)
    side = whole.definition.tensors[0].shape[1]
    images = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    whole.eval()
    with torch.no_grad():
        kept = found.activations({"image": images}, torch.device("cpu"))
    assert set(kept) == set(found.names)
    answers = [whole(torch.from_numpy(images)), found.tail(*(torch.from_numpy(kept[name]) for name in found.names))]
    assert torch.allclose(*answers, atol=1e-5)
    trained = [value for value in whole.parameters() if value.requires_grad]
    both = [torch.autograd.grad(answer.square().sum(), trained, allow_unused=True) for answer in answers]
    for ours, theirs in zip(*both, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.allclose(ours, theirs, atol=1e-4, rtol=1e-3)


def test_what_trains_whole_is_not_cut() -> None:
    assert cut(network("timm/test_efficientnet")) is None
    made = network("timm/test_efficientnet")
    for name, value in made.backbone.named_parameters():
        value.requires_grad_(name.startswith("conv_stem"))
    assert cut(made) is None, "nothing lies in front of the stem"
    # Its position embedding is chosen by the image's size, which nobody knows before there is one.
    turned = network("timm/test_vit", 160)
    hold(turned.backbone, 3)
    assert cut(turned) is None


def test_layers_of_every_library_are_in_groups() -> None:
    for name in NAMES:
        made = network(name)
        depths = depths_of(made.backbone)
        assert set(depths) == {id(value) for value in made.backbone.parameters()}
        assert max(depths.values()) >= 3, name
        head = dict(made.backbone.named_parameters())
        assert depths[id(next(reversed(list(head.values()))))] == 0


def tensors(run: Run) -> dict[str, torch.Tensor]:
    return dict(safetensors.torch.load_file(run.path / WEIGHTS))


def test_activations_computed_once_give_the_same_run(tmp_path: Path) -> None:
    few_digits = written(tmp_path / "digits", 0, 250)
    options = {**FAST, "learning_rate": 0.01, "set": {"freeze": 0.6, "keep": "last"}}
    ahead_of = mock.Mock(wraps=ahead.computed)
    with mock.patch.object(ahead, "computed", ahead_of):
        once = finetune(few_digits, tmp_path / "once", **options)
    assert ahead_of.call_count == 2, "train and val"
    with mock.patch.object(ahead, "_same_every_time", return_value=False):
        each = finetune(few_digits, tmp_path / "each", **options)
    assert once.metrics.best_epoch == each.metrics.best_epoch > 0
    for name, value in each.metrics.val.items():
        assert once.metrics.val[name] == pytest.approx(value, abs=1e-3), name
    frozen = once.lineage["frozen"]
    assert 0 < frozen["groups"] < frozen["of"]
    probe = tensors(finetune(few_digits, tmp_path / "probe", **TINY, strategy="linear-probe"))
    moved = {name.split(".")[0] for name, value in tensors(once).items() if not torch.equal(value, probe[name])}
    assert "conv_stem" not in moved
    assert "classifier" in moved
    # Where images vary from epoch to epoch nothing is computed ahead.
    with mock.patch.object(ahead, "computed", mock.Mock(side_effect=AssertionError)):
        finetune(few_digits, tmp_path / "varied", **{**options, "augment": "light", "epochs": 1})


def test_relative_gradients_are_those_of_the_loss_on_the_training_samples(few_digits: Path) -> None:
    dataset, made = load_dataset(few_digits), network("timm/test_efficientnet", 32)
    task, found = find_task("classification"), find("fine-tune", {"smoothing": 0.0, "balance": 0.0})
    strategy = resolve("fine-tune", find_backbone("timm/test_efficientnet"), learner_of(task).terms, 1, None, {
        "smoothing": 0.0, "balance": 0.0,
    })  # fmt: skip
    assert isinstance(found, Strategy)
    store, labels = store_of(made.definition, dataset.paths("train")), dataset.labels("train")
    told = gradients(made, strategy, learner_of(task), (store, labels), 4, Scale())
    images = made.definition.batch(dataset.paths("train"))["image"]
    loss = functional.cross_entropy(made(torch.from_numpy(images)), torch.from_numpy(labels))
    named = list(made.backbone.parameters())
    depths, parts = depths_of(made.backbone), torch.autograd.grad(loss, named)
    for group in range(len(told)):
        inside = [(v, g) for v, g in zip(named, parts, strict=True) if max(depths.values()) - depths[id(v)] == group]
        wanted = torch.cat([g.flatten() for _, g in inside]).norm() / torch.cat([v.flatten() for v, _ in inside]).norm()
        assert told[group] == pytest.approx(wanted.item(), rel=1e-3)
    held = chosen(told)
    shares = np.cumsum(told) / sum(told)
    assert held.groups == sum(shares <= LITTLE)
    assert f"first {held.groups} of {len(told)} groups" in held.reason
    assert Frozen.from_json(held.to_json()) == held


def test_freeze_as_an_option(few_digits: Path, tmp_path: Path) -> None:
    assert find("fine-tune", {"freeze": "auto"}).params == ParamPolicy(layer_decay=0.8, freeze="auto")
    for wrong in ("1", "-0.1", "all"):
        with pytest.raises(EdgetlError, match="give auto, or a number from 0 to below 1"):
            finetune(few_digits, tmp_path / "run", **{**FAST, "set": {"freeze": wrong}})


def test_resumed_after_sigkill_equals_uninterrupted(few_digits: Path, tmp_path: Path) -> None:
    options = {**FAST, "set": {"freeze": "auto"}, "checkpoint_seconds": 0.0}
    whole = finetune(few_digits, tmp_path / "whole", **options)
    assert whole.lineage["frozen"]["reason"]
    process = start(tmp_path, few_digits, tmp_path / "killed", options)
    while not (tmp_path / "killed" / "checkpoint" / "last.pt").is_file():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = finetune(few_digits, tmp_path / "killed", **options)
    assert resumed.weights_sha256 == whole.weights_sha256
    assert resumed.lineage["frozen"] == whole.lineage["frozen"]
