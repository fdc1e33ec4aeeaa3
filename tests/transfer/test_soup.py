"""Means of weights: of runs (soups), of a run and its start (WiSE-FT); exact at their ends."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import edgetl as package
from edgetl.base.errors import RunError
from edgetl.base.progress import silent
from edgetl.core.run import WEIGHTS, Run, load_run
from edgetl.inputs import load_dataset
from edgetl.tasks import find_task
from edgetl.transfer.assembly import finished
from edgetl.transfer.averaging import blended
from edgetl.transfer.checkpoint import epoch_file, write_weights
from edgetl.transfer.finetune import finetune
from edgetl.transfer.model import load_model
from edgetl.transfer.plan import Options, plan
from edgetl.transfer.scores import Scores
from edgetl.transfer.streams import Streams
from edgetl.transfer.tasks import scored
from edgetl.transfer.weights import build
from edgetl.workflow.reference import TorchReference, reproduced
from tests.records import put_into_run

from .conftest import TINY

Cli = Callable[..., subprocess.CompletedProcess[str]]
FAST_PLAN: dict[str, Any] = {**TINY, "epochs": 2, "shares": None, "checkpoint_seconds": 60.0}


def weights(run: Run) -> dict[str, torch.Tensor]:
    return dict(safetensors.torch.load_file(run.path / WEIGHTS))


@pytest.fixture(scope="module")
def three(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A run, one whose weights moved, and one with statistics of its own, too."""
    folder = tmp_path_factory.mktemp("three")
    made = [finetune(few_digits, folder / "first", **TINY, strategy="linear-probe")]
    for number, name in enumerate(("moved", "own"), 1):
        draw, there = torch.Generator().manual_seed(number), folder / name
        shutil.copytree(made[0].path, there)
        held = weights(made[0])
        for key, value in held.items():
            statistic = key.endswith(("running_mean", "running_var"))
            if value.is_floating_point() and (not statistic or name == "own"):
                held[key] = value + 0.02 * torch.rand(value.shape, generator=draw)
        put_into_run(there, WEIGHTS, safetensors.torch.save(held))
        made.append(load_run(there))
    return made


def test_blends_are_exact_at_their_ends() -> None:
    torch.manual_seed(0)
    one, other = ({"w": torch.randn(5, 3), "n": torch.tensor(3)} for _ in range(2))
    assert torch.equal(blended([one, other], [1, 0])["w"], one["w"])
    assert torch.equal(blended([one, other], [0, 1])["w"], other["w"])
    assert torch.allclose(blended([one, other], [0.25, 0.75])["w"], 0.25 * one["w"] + 0.75 * other["w"])
    assert torch.equal(blended([one, one, one], [1 / 3] * 3)["w"], one["w"])
    assert blended([one, other], [0.5, 0.5])["n"] == 3


def test_a_uniform_soup_is_the_mean_and_a_run_like_any_other(three: list[Run], tmp_path: Path) -> None:
    made = package.soup([run.path for run in three[:2]], tmp_path / "mean", uniform=True)
    first, second, mean = weights(three[0]), weights(three[1]), weights(made)
    assert all(
        torch.allclose(mean[n], (first[n] + second[n]) / 2, atol=1e-7) for n in mean if mean[n].dtype.is_floating_point
    )
    recorded, again, _ = reproduced(made, TorchReference(made).outputs("val", silent))
    assert recorded == again
    assert made.dataset.digest == three[0].dataset.digest
    (done,) = package.export(made, targets="x86-generic", out=tmp_path / "out", repair=False, bench=False)
    assert done.certificate.verdict in ("pass", "fail", "underpowered")


def test_a_greedy_soup_is_never_worse_than_its_best(three: list[Run], tmp_path: Path) -> None:
    made = package.soup([run.path for run in three[:2]], tmp_path / "greedy")
    labels = made.dataset.labels("val")
    best = max(
        scored(find_task(run.task), TorchReference(run).outputs("val", silent), labels).metrics["balanced_accuracy"]
        for run in three[:2]
    )
    assert made.metrics.val["balanced_accuracy"] >= best
    members = made.lineage["members"]
    assert members[0]["taken"]
    assert members[0]["val"]["balanced_accuracy"] == best


def test_a_soup_of_one_run_twice_is_that_run(three: list[Run], tmp_path: Path) -> None:
    made = package.soup([three[1].path, three[1].path], tmp_path / "twice", uniform=True)
    one, other = weights(made), weights(three[1])
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_statistics_that_differ_are_measured_again(three: list[Run], tmp_path: Path) -> None:
    made = package.soup([three[1].path, three[2].path], tmp_path / "own", uniform=True)
    first, second, mean = weights(three[1]), weights(three[2]), weights(made)
    name = next(name for name in mean if name.endswith("running_mean"))
    assert not torch.equal(first[name], second[name])
    assert not torch.allclose(mean[name], (first[name] + second[name]) / 2)
    # The first batch norm sees what the stem gives to the training samples.
    network, seen = load_model(made), []
    stem = network.backbone.conv_stem
    hook = stem.register_forward_hook(lambda module, given, found: seen.append(found.mean((0, 2, 3))))
    for path in made.dataset.paths("train"):
        network.fed(network.definition.feeds(path), torch.device("cpu"))
    hook.remove()
    wanted, spread = torch.stack(seen).mean(0), torch.stack(seen).std(0)
    assert ((wanted - mean["bn1.running_mean"]).abs() < 0.3 * spread + 1e-4).all(), "but for a last batch"
    first_differs = (wanted - first["bn1.running_mean"]).abs() > 0.3 * spread
    assert first_differs.any()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_start_is_kept(few_digits: Path, tmp_path: Path, share: float) -> None:
    order = plan(Options(few_digits, tmp_path, None, strategy="fine-tune", seed=0, devices=1, learning_rate=0.01,
                         **FAST_PLAN, set={"start_share": share}))  # fmt: skip
    job = order.job(load_dataset(few_digits), Scores({}, 0.0, 0, "balanced_accuracy"), Streams())
    torch.manual_seed(0)
    start = build("timm/test_efficientnet", 4, weights="none", definition=order.input).state_dict()
    tuned = {name: value + 0.1 if value.is_floating_point() else value for name, value in start.items()}
    for epoch, state in ((0, start), (1, tuned)):
        write_weights(epoch_file(job.checkpoints, epoch), state)
    found = finished(job, 1)[0].backbone.state_dict()
    for name, value in found.items():
        if value.is_floating_point():
            assert torch.allclose(value, start[name] + (1 - share) * 0.1, atol=1e-6)
    assert all(torch.equal(found[name], (start if share == 1 else tuned)[name]) for name in found if share in (0, 1))


def test_the_command(edgetl: Cli, three: list[Run], tmp_path: Path) -> None:
    done = edgetl("soup", three[0].path, three[1].path, "--out", tmp_path / "made", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["strategy"] == "soup"
    shown = edgetl("soup", three[0].path, three[1].path, "--uniform", "--out", tmp_path / "other")
    assert "the mean of" in shown.stdout
    printed = edgetl("run", "--print", tmp_path / "made")
    assert (printed.returncode, "is a mean of several runs" in printed.stderr) == (2, True)
    refused = edgetl("soup", three[0].path, three[1].path, "--out", tmp_path / "other")
    assert (refused.returncode, "is not empty" in refused.stderr) == (2, True)


def test_what_makes_no_soup(three: list[Run], few_digits: Path, tmp_path: Path) -> None:
    other = finetune(few_digits, tmp_path / "seed", **TINY, strategy="linear-probe", seed=7)
    with pytest.raises(RunError, match="differ in samples and splits"):
        package.soup([three[0].path, other.path], tmp_path / "made")
    with pytest.raises(RunError, match="one run makes no soup"):
        package.soup([three[0].path], tmp_path / "made")
    assert not (tmp_path / "made").exists()
