"""What fine-tuning can be told: gradual unfreezing, mixing, averaging, the losses of one class a sample, schedules."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch.nn import functional

from edgetl.base.errors import EdgetlError
from edgetl.core.run import load_run
from edgetl.inputs import load_dataset
from edgetl.transfer import train
from edgetl.transfer.assembly import Job, Setup, assemble, enter_train_mode
from edgetl.transfer.averaging import Average
from edgetl.transfer.checkpoint import epoch_file, write_weights
from edgetl.transfer.finetune import finetune
from edgetl.transfer.mixing import mixed
from edgetl.transfer.plan import Options, plan
from edgetl.transfer.scores import Scores
from edgetl.transfer.strategies.base import Mix, Schedule, StepContext
from edgetl.transfer.strategies.fine_tuning import fine_tune
from edgetl.transfer.strategies.terms import classes
from edgetl.transfer.trainable import Trained, depths_of
from edgetl.transfer.weights import build

from .conftest import TINY
from .test_finetune import start

EVERY: dict[str, Any] = {
    "unfreeze": 0.5,
    "mixup": 0.2,
    "cutmix": 1.0,
    "average": 0.9,
    "focal": 2.0,
    "schedule": "triangular",
}


def setup_for(folder: Path, data: Path, **options: Any) -> tuple[Setup, Job]:
    given = {"task": None, "strategy": "fine-tune", "epochs": 4, "learning_rate": 0.01, "seed": 0, "devices": 1}
    order = plan(Options(data, folder, **given, **TINY, shares=None, checkpoint_seconds=60.0, set=options))
    job = Job(folder, load_dataset(data), order.input, order.settings, Scores({}, 0.0, 0, "balanced_accuracy"), 0, 60.0)
    torch.manual_seed(0)
    body = build("timm/test_efficientnet", 4, weights="none", definition=order.input)
    write_weights(epoch_file(job.checkpoints, 0), body.state_dict())
    setup = assemble(Fabric(accelerator="cpu", devices=1), job)
    enter_train_mode(setup)
    return setup, job


def step(setup: Setup, job: Job, epoch: int) -> dict[str, torch.Tensor]:
    """One step in an epoch; how far each parameter moved."""
    before = {name: value.detach().clone() for name, value in setup.network.backbone.named_parameters()}
    labels = torch.from_numpy(job.dataset.labels("train")[::6][:16])
    arrays = job.definition.batch(job.dataset.paths("train")[::6][:16])
    train.accumulate(setup, {n: torch.from_numpy(x) for n, x in arrays.items()}, labels, 16, 0.0)
    train.update(setup, 0.01, epoch)
    now = setup.network.backbone.named_parameters()
    return {name: (value.detach() - before[name]).abs().max() for name, value in now}


def test_layers_begin_to_train_one_group_after_the_other(tmp_path: Path, few_digits: Path) -> None:
    setup, job = setup_for(tmp_path, few_digits, unfreeze=1.0)
    depths = {name: setup.depths[id(value)] for name, value in setup.network.backbone.named_parameters()}
    assert depths["classifier.weight"] == 0
    assert depths["conv_stem.weight"] == max(depths.values()) >= 3
    for epoch in (0, 1, 2, 0):  # a function of the epoch: going back freezes again
        moved = step(setup, job, epoch)
        assert {name for name, by in moved.items() if by > 0} == {name for name, at in depths.items() if at <= epoch}


def test_groups_are_in_order_from_the_head(tmp_path: Path) -> None:
    body = build("timm/test_efficientnet", 3, weights="none")
    depths = depths_of(body)
    named = [depths[id(value)] for _, value in body.named_parameters()]
    assert named == sorted(named, reverse=True)


@pytest.mark.parametrize("mix", [Mix(mixup=0.4), Mix(cutmix=1.0)])
def test_mixed_images_hold_what_their_share_says(mix: Mix) -> None:
    images = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 20, 20, 3).contiguous() * 30
    torch.manual_seed(3)
    shares = []
    for _ in range(20):
        made = mixed({"image": images}, mix)
        found, partners = made.inputs["image"].float(), images[made.partners].float()
        wanted = made.share * images.float() + (1 - made.share) * partners
        assert torch.allclose(found.mean((1, 2, 3)), wanted.mean((1, 2, 3)), atol=0.51)
        if mix.cutmix:
            assert all(
                set(a.unique().tolist()) <= {float(b.max()), float(c.max())}
                for a, b, c in zip(found, images, partners, strict=True)
            )
        shares.append(made.share)
    assert len(set(shares)) > 10
    assert made.inputs["image"].dtype == torch.uint8


def test_the_loss_of_a_mixed_batch_is_of_both_labels(tmp_path: Path, few_digits: Path) -> None:
    setup, job = setup_for(tmp_path, few_digits, mixup=1.0, smoothing=0.0, balance=0.0)
    labels = torch.from_numpy(job.dataset.labels("train")[::6][:16])
    inputs = {n: torch.from_numpy(x) for n, x in job.definition.batch(job.dataset.paths("train")[::6][:16]).items()}
    torch.manual_seed(5)
    told = train.accumulate(setup, inputs, labels, 16, 0.0)
    torch.manual_seed(5)
    made = mixed(inputs, setup.strategy.mix)
    outputs = setup.network(made.inputs["image"])
    one, other = (functional.cross_entropy(outputs, y) for y in (labels, labels[made.partners]))
    wanted = made.share * one + (1 - made.share) * other
    assert float(told[0] / told[2]) == pytest.approx(wanted.item(), rel=1e-5)


def test_the_average_follows_and_is_applied_for_a_while() -> None:
    layer = torch.nn.Linear(2, 1, bias=False)
    average = Average(Trained(layer), 0.9)
    start_at, wanted = layer.weight.detach().clone(), layer.weight.detach().clone()
    for number in range(1, 40):
        with torch.no_grad():
            layer.weight.add_(1.0)
        average.update()
        kept = min(0.9, (1 + number) / (10 + number))
        wanted = kept * wanted + (1 - kept) * layer.weight.detach()
    assert torch.allclose(average.held["weight"], wanted)
    with average.applied():
        assert torch.allclose(layer.weight.detach(), wanted)
    assert torch.allclose(layer.weight.detach(), start_at + 39, atol=1e-4)
    again = Average(Trained(layer), 0.9)
    again.load_state_dict(average.state_dict())
    assert (again.steps, torch.equal(again.held["weight"], average.held["weight"])) == (39, True)


def context(outputs: torch.Tensor, targets: torch.Tensor, counts: list[float]) -> StepContext:
    held = torch.nn.Identity()
    given = torch.tensor(counts)
    return StepContext(held, {}, targets, outputs, given, {}, None, 0.0, "class", lambda module, inputs: outputs)


def test_the_losses_of_one_class_a_sample() -> None:
    torch.manual_seed(0)
    outputs, targets = torch.randn(30, 3), torch.arange(30) % 3
    plain = functional.cross_entropy(outputs, targets)
    assert classes(0.0, 0.0, 0.0).loss(context(outputs, targets, [10, 10, 10])) == pytest.approx(float(plain))
    p = outputs.softmax(1)[torch.arange(30), targets]
    focal = (-((1 - p) ** 2) * p.log()).mean()
    assert classes(0.0, 0.0, 2.0).loss(context(outputs, targets, [10, 10, 10])) == pytest.approx(float(focal), rel=1e-5)
    rare = torch.tensor([0] * 28 + [1, 2])
    weights = torch.tensor([1 / 28, 1.0, 1.0]) / (3 / 30)
    wanted = (functional.cross_entropy(outputs, rare, reduction="none") * weights[rare]).mean()
    assert classes(0.0, 1.0, 0.0).loss(context(outputs, rare, [28, 1, 1])) == pytest.approx(float(wanted), rel=1e-5)


def test_the_slanted_triangle_rises_for_a_tenth_and_falls_along_a_line() -> None:
    told = fine_tune(schedule="triangular").schedule
    assert told.shape == "triangular"
    rates = np.array([told.rate(number, 100) for number in range(told.epochs * 100)])
    top = int(rates.argmax())
    assert top == pytest.approx(150, abs=2)
    assert np.allclose(np.diff(rates[:top], 2), 0)
    assert np.allclose(np.diff(rates[top:], 2), 0)
    assert rates[-1] < 0.002 * rates[top]
    assert Schedule(10, 1.0, shape="cosine").rate(500, 100) == pytest.approx(0.5)


def test_all_of_it_at_once_survives_sigkill(tmp_path: Path, few_digits: Path) -> None:
    options = {**TINY, "epochs": 4, "learning_rate": 0.003, "checkpoint_seconds": 0.0, "set": EVERY}
    whole = finetune(few_digits, tmp_path / "whole", **{**options, "checkpoint_seconds": 1000.0})
    assert whole.settings["details"]["mix"] == {"mixup": 0.2, "cutmix": 1.0}
    assert whole.settings["details"]["average"] == 0.9
    out = tmp_path / "killed"
    process = start(tmp_path, few_digits, out, options)
    while not (out / "checkpoint" / "last.pt").is_file():
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = finetune(few_digits, out, **options)
    assert resumed.weights_sha256 == whole.weights_sha256
    assert load_run(out).history == whole.history


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_norm": "adapt"}, "frozen or train"),
        ({"schedule": "step"}, "cosine or triangular"),
        ({"mixup": -1}, "0 or more"),
        ({"average": 1.0}, "from 0 to below 1"),
        ({"layer_decay": 0.0}, "over 0"),
    ],
)
def test_values_that_cannot_be(tmp_path: Path, few_digits: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(EdgetlError, match=words):
        finetune(few_digits, tmp_path / "run", **TINY, set=options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("head", "rows", "options", "words"),
    [
        ("text,label", "good {n},a\nbad {n},b\n", {"mixup": 0.2}, "texts cannot be mixed"),
        ("text,labels", "good {n},a\nbad {n},a|b\n", {"focal": 2.0}, "samples of one class each"),
    ],
)
def test_what_means_nothing_to_the_samples(
    tmp_path: Path, head: str, rows: str, options: dict[str, Any], words: str
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(f"{head}\n" + "".join(rows.format(n=n) for n in range(20)))
    with pytest.raises(EdgetlError, match=words):
        finetune(table, tmp_path / "run", set=options, accelerator="cpu")
    assert not (tmp_path / "run").exists()
