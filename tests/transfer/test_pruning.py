"""Pruning: which channels go, that the network is the same but for them, and that it leaves a run like any other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import edgetl as package
from edgetl.base.errors import EdgetlError, RunError
from edgetl.core.run import WEIGHTS, Run, load_run
from edgetl.core.tensors import TensorSpec
from edgetl.inputs import input_of
from edgetl.transfer.finetune import finetune
from edgetl.transfer.model import Deployable, filled, load_model, outputs
from edgetl.transfer.stores import store_of
from edgetl.transfer.strategies import find
from edgetl.transfer.weights import build
from edgetl.transfer.widths import take_widths
from tests.records import put_into_run

from .conftest import TINY
from .test_strategies import deployable

pytest.importorskip("modelopt", reason="the extra prune is not installed")

SET: dict[str, Any] = {"ratio": 0.4, "multiple": 8}
PRUNED: dict[str, Any] = {**TINY, "strategy": "prune", "set": SET, "epochs": 2, "learning_rate": 0.003}
HOST = torch.device("cpu")


@pytest.fixture(scope="module")
def pruned(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)
    return finetune(few_digits, tmp_path_factory.mktemp("pruned") / "run", **PRUNED)


def shapes(run: Run) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in safetensors.torch.load_file(run.weights).items()}


def without(network: Deployable, batch: dict[str, Any], name: str, **options: Any) -> Deployable:
    """The network with the widths and weights that the strategy leaves."""
    narrow = find("prune", options).rebuild
    assert narrow is not None
    body, narrower = filled(name, network.width, narrow(network, batch, None), network.definition)
    assert narrower
    return Deployable(body, network.definition).eval()


@pytest.mark.parametrize(
    "name", ["minilm", "timm/test_vit", "timm/test_efficientnet", "timm/tf_efficientnet_lite0", "timm/resnet10t"]
)
def test_channels_that_nothing_reads_go_and_nothing_else_changes(name: str) -> None:
    network, batch = deployable(name)
    for layer in network.backbone.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear) and getattr(layer, "groups", 1) == 1:
            with torch.no_grad():
                layer.weight[:, : layer.weight.shape[1] // 2] = 0
    before = {key: value.clone() for key, value in network.backbone.state_dict().items()}
    found = without(network, batch, name, ratio=0.3, multiple=8)
    with torch.no_grad():
        whole, narrow = network.fed(batch, HOST), found.fed(batch, HOST)
    assert torch.allclose(whole, narrow, rtol=1e-4, atol=1e-5)
    assert not torch.equal(whole[0], whole[1])
    assert sum(p.numel() for p in found.parameters()) < sum(p.numel() for p in network.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.backbone.state_dict().items())


def test_the_library_adds_nothing_to_what_files_may_hold() -> None:
    before = torch.serialization.get_safe_globals()
    network, batch = deployable("timm/test_efficientnet")
    without(network, batch, "timm/test_efficientnet", ratio=0.3, multiple=8)
    after = torch.serialization.get_safe_globals()
    assert set(after) == set(before)
    assert not any("modelopt" in str(kind) for kind in after)


def test_a_pruned_run_is_a_run_like_any_other(pruned: Run, tmp_path: Path) -> None:
    whole = build(pruned.backbone, 4, weights="none", definition=input_of(pruned)).state_dict()
    found = shapes(pruned)
    narrower = {name for name, value in whole.items() if found[name] != tuple(value.shape)}
    assert narrower
    assert all(size[0] % 8 == 0 for name, size in found.items() if name in narrower and size[0] < whole[name].shape[0])
    told = pruned.lineage["pruned"]
    assert told["parameters"] == sum(p.numel() for p in load_model(pruned).parameters()) < told["of"]
    (done,) = package.export(pruned, targets="x86-generic", out=tmp_path / "out", repair=False, bench=False)
    assert done.certificate.verdict in ("pass", "fail", "underpowered")
    assert done.certificate.reference_accuracy > 0.5


def test_resumed_equals_uninterrupted(tmp_path: Path, few_digits: Path, pruned: Run) -> None:
    def interrupting(task: str, done: int, total: int, detail: str = "") -> None:
        if task == "training" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(few_digits, tmp_path / "run", **PRUNED, checkpoint_seconds=0.0, progress=interrupting)
    assert (tmp_path / "run" / "checkpoint" / "last.pt").is_file()
    resumed = finetune(few_digits, tmp_path / "run", **PRUNED)
    assert resumed.weights_sha256 == pruned.weights_sha256
    assert resumed.lineage["pruned"] == pruned.lineage["pruned"]


def test_a_run_goes_on_from_a_pruned_one_and_is_pruned_further(pruned: Run, few_digits: Path, tmp_path: Path) -> None:
    plain = {key: value for key, value in TINY.items() if key not in ("backbone", "weights", "image_size")}
    after = finetune(few_digits, tmp_path / "on", **plain, epochs=1, from_run=pruned.path)
    assert shapes(after) == shapes(pruned)
    assert after.lineage["pruned"] == pruned.lineage["pruned"]
    further = finetune(
        few_digits, tmp_path / "further", **plain, strategy="prune", set=SET, epochs=1, from_run=pruned.path,
        baseline="probe",
    )  # fmt: skip
    assert further.lineage["pruned"]["parameters"] < pruned.lineage["pruned"]["parameters"]
    baseline = safetensors.torch.load_file(further.path / "baseline.safetensors")
    assert {name: tuple(value.shape) for name, value in baseline.items()} == shapes(pruned)


def test_other_classes_are_learned_from_a_pruned_run(pruned: Run, few_digits: Path, tmp_path: Path) -> None:
    fewer = tmp_path / "fewer"
    for label in ("0", "1", "2"):
        shutil.copytree(few_digits / label, fewer / label)
    plain = {key: value for key, value in TINY.items() if key not in ("backbone", "weights", "image_size")}
    run = finetune(fewer, tmp_path / "run", **plain, strategy="linear-probe", from_run=pruned.path)
    model = load_model(run)
    assert model.width == 3
    assert model.fed(input_of(run).batch(run.dataset.paths("val")[:2]), HOST).shape == (2, 3)


def test_a_soup_is_of_runs_with_the_same_channels(pruned: Run, few_digits: Path, tmp_path: Path) -> None:
    twin = finetune(few_digits, tmp_path / "twin", **{**PRUNED, "learning_rate": 0.001})
    made = package.soup([pruned.path, twin.path], tmp_path / "soup", uniform=True)
    assert shapes(made) == shapes(pruned)
    assert made.lineage["pruned"] == pruned.lineage["pruned"]
    other = finetune(few_digits, tmp_path / "other", **{**PRUNED, "set": {**SET, "ratio": 0.5}, "epochs": 1})
    whole = finetune(few_digits, tmp_path / "whole", **TINY, strategy="linear-probe")
    for run in (other, whole):
        with pytest.raises(RunError, match="differ in the channels that were pruned: train"):
            package.soup([pruned.path, run.path], tmp_path / "none")
        with pytest.raises(RunError, match=r"channels were pruned that the head of .* reads"):
            package.retention(pruned, run)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda value: value[:-1], "conv_stem.weight"),
        (lambda value: value.repeat(2, 1, 1, 1), "conv_head.weight"),
        (lambda value: value[:, :, :1, :1], "conv_stem.weight"),
        (lambda value: value[:0], "conv_head.weight"),
        (lambda value: value[:, :1], "classifier.weight"),
    ],
)
def test_widths_of_a_file_that_fit_nothing_are_refused(pruned: Run, tmp_path: Path, change: Any, name: str) -> None:
    shutil.copytree(pruned.path, tmp_path / "run")
    held = safetensors.torch.load_file(pruned.weights)
    held[name] = change(held[name]).contiguous()
    put_into_run(tmp_path / "run", WEIGHTS, safetensors.torch.save(held))
    with pytest.raises(RunError, match="does not fit the backbone 'timm/test_efficientnet': train the run again"):
        load_model(load_run(tmp_path / "run"))


def test_weights_of_a_file_are_of_the_backbone_itself(pruned: Run, few_digits: Path, tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match="has another shape for"):
        finetune(few_digits, tmp_path / "run", **{**TINY, "weights": pruned.weights}, strategy="linear-probe")


def test_a_layer_is_never_wider_than_its_backbone() -> None:
    network = deployable("timm/test_efficientnet")[0].backbone
    own = {name: value.shape for name, value in network.state_dict().items()}
    assert not take_widths(network, {name: torch.empty(tuple(2 * n for n in shape)) for name, shape in own.items()})
    assert {name: value.shape for name, value in network.state_dict().items()} == own


def test_what_cannot_be_pruned_is_refused_before_any_work(few_digits: Path, tmp_path: Path) -> None:
    for options, words in (
        ({"set": {"multiple": 256}}, "no layer of this backbone gets narrower by 30 % at a multiple of 256 channels"),
        ({"set": {"ratio": 1.0}}, "the option ratio is 1.0: give a number between 0 and 1"),
        ({"backbone": "torchvision/densenet121"}, "the channels of this backbone cannot be removed"),
    ):
        with pytest.raises(EdgetlError, match=words):
            finetune(few_digits, tmp_path / "run", **{**TINY, **options}, strategy="prune")
        assert not (tmp_path / "run").exists()


def test_a_pruned_run_becomes_a_column_as_narrow_as_it_is(pruned: Run, few_digits: Path, tmp_path: Path) -> None:
    for name in ("0", "1"):
        shutil.copytree(few_digits / name, tmp_path / "new" / name)
    plain = {key: TINY[key] for key in ("weights", "precision", "accelerator", "workers", "batch_size")}
    run = finetune(tmp_path / "new", tmp_path / "run", **plain, strategy="progressive", epochs=1, from_run=pruned.path)
    store = store_of(load_model(run).definition, pruned.dataset.paths("certify"))
    before, after = (outputs(load_model(each), store, HOST) for each in (pruned, run))
    assert np.array_equal(before["logits"], after["task1"])
    held = run.lineage["columns"]
    assert held[0]["parameters"] < 0.8 * held[1]["parameters"]


def test_networks_for_arrays_are_pruned(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (120, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=(x[:, :4].mean((1, 2)) > 0).astype(np.int64))
    plain = {key: TINY[key] for key in ("precision", "accelerator", "workers", "batch_size")}
    run = finetune(tmp_path / "a.npz", tmp_path / "run", **plain, backbone="cnn", strategy="prune", epochs=1)
    model = load_model(run)
    assert model.definition.tensors == (TensorSpec("x", "float32", (None, 8, 8)),)
    (found,) = outputs(model, store_of(model.definition, run.dataset.paths("val")), HOST).values()
    assert found.shape[1] == len(run.classes)
    assert run.lineage["pruned"]["parameters"] < 0.7 * run.lineage["pruned"]["of"]
