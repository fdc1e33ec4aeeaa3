"""One process and two: the same gradients, and a run from end to end."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from edgetl.inputs import load_dataset
from edgetl.transfer import train
from edgetl.transfer.assembly import Job, assemble, enter_train_mode
from edgetl.transfer.checkpoint import epoch_file, write_weights
from edgetl.transfer.finetune import finetune
from edgetl.transfer.placement import Placement
from edgetl.transfer.plan import Options, plan
from edgetl.transfer.scores import Scores
from edgetl.transfer.weights import build

from .conftest import TINY

BATCH = 7


def gradients(fabric: Fabric, job: Job, into: Path) -> None:
    """Write those of one global batch of seven images, an odd number, so that two processes get unequal shares."""
    setup = assemble(fabric, job)
    enter_train_mode(setup)
    paths, labels = job.dataset.paths("train"), job.dataset.labels("train")
    mine = np.array_split(np.arange(0, 10 * BATCH, 10), fabric.world_size)[fabric.global_rank]
    arrays = job.definition.batch([paths[i] for i in mine])
    inputs = {name: torch.from_numpy(values) for name, values in arrays.items()}
    train.accumulate(setup, inputs, torch.from_numpy(labels[mine]), BATCH, 0.0)
    named = setup.network.backbone.named_parameters()
    found = {name: value.grad.numpy() for name, value in named if value.grad is not None}
    if fabric.is_global_zero:
        np.savez(into, **found)


def test_gradients_of_one_and_two_processes_agree(tmp_path: Path, few_digits: Path) -> None:
    given = {"task": None, "strategy": "fine-tune", "epochs": 1, "learning_rate": 0.001, "seed": 0, "devices": 1}
    order = plan(Options(few_digits, tmp_path, **given, **TINY, shares=None, checkpoint_seconds=60.0))
    start = Scores({}, 0.0, 0, "balanced_accuracy")
    job = Job(tmp_path, load_dataset(few_digits), order.input, order.settings, start, 0, 60.0)
    torch.manual_seed(0)
    body = build("timm/test_efficientnet", 4, weights="none", definition=order.input)
    write_weights(epoch_file(job.checkpoints, 0), body.state_dict())
    for count in (1, 2):
        fabric = Placement("cpu", count, "32-true").fabric()
        fabric.launch(partial(gradients, job=job, into=tmp_path / f"{count}.npz"))
    one, two = (dict(np.load(tmp_path / f"{count}.npz")) for count in (1, 2))
    assert one.keys() == two.keys()
    assert len(one) == len(list(body.parameters()))
    largest = max(np.abs(value).max() for value in one.values())
    assert largest > 1e-4
    assert all(np.abs(one[name] - two[name]).max() < 1e-5 * largest for name in one)


def test_a_run_on_two_processes(tmp_path: Path, few_digits: Path) -> None:
    seen: list[tuple[str, int]] = []

    def note(task: str, done: int, total: int, detail: str = "") -> None:
        seen.append((task, done))

    run = finetune(few_digits, tmp_path / "run", **TINY, epochs=2, devices=2, progress=note)
    assert run.metrics.epochs_run == 2
    steps = [done for task, done in seen if task == "training"]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) == 2 * (len(run.dataset.split("train")) // TINY["batch_size"])
    assert replace(run, path=tmp_path).settings["devices"] == 2
