"""The strategy contract: what trains, what is held still, streams, adapters, options; through LoRA and distillation."""

from __future__ import annotations

import inspect
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from lightning_fabric import Fabric
from PIL import Image
from sklearn.datasets import load_digits

from edgetl.base.errors import DataError, EdgetlError, RunError, UnknownNameError
from edgetl.core.run import Run
from edgetl.inputs import input_of
from edgetl.transfer import strategies
from edgetl.transfer.anchor import Pictures, Teacher
from edgetl.transfer.definitions import preprocess_for
from edgetl.transfer.finetune import finetune
from edgetl.transfer.loader import stream_indices
from edgetl.transfer.model import Deployable, load_model
from edgetl.transfer.strategies.base import Strategy
from edgetl.transfer.strategies.fine_tuning import fine_tune
from edgetl.transfer.strategies.lora import lora
from edgetl.transfer.streams import Streams
from edgetl.transfer.tasks import Scale
from edgetl.transfer.trainable import Trained, check_gradients, prepare
from edgetl.transfer.weights import build

from .conftest import TINY
from .test_finetune import start

#: Fast enough to learn something in three epochs.
FAST: dict[str, Any] = {**TINY, "epochs": 3, "learning_rate": 0.01, "shares": None}


def written(folder: Path, first: int, last: int) -> Path:
    """Those of scikit-learn's digits, a folder a class."""
    bunch = load_digits()
    for index in range(first, last):
        file = folder / str(bunch.target[index]) / f"{index:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(bunch.images[index] * 16, 0, 255).astype(np.uint8)).save(file)
    return folder


@pytest.fixture(scope="module")
def ten_digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """250 pictures of all ten digits: a probe of random features does not tell them all."""
    return written(tmp_path_factory.mktemp("ten") / "digits", 0, 250)


def signs(count: int, seed: int) -> tuple[Any, Any]:
    """Rows of four numbers, and whether the first two have one sign: nothing that a linear head could tell."""
    x = np.random.default_rng(seed).normal(0, 1, (count, 4)).astype(np.float32)
    return x, (x[:, 0] * x[:, 1] > 0).astype(np.int64)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("table") / "signs.npz"
    x, y = signs(300, 0)
    np.savez(file, x=x, y=y)
    return file


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 other rows, all of the table's, and a file that is no array, without labels."""
    folder = tmp_path_factory.mktemp("more")
    for number, row in enumerate([*signs(60, 1)[0], *signs(300, 0)[0]]):
        np.save(folder / f"{number}.npy", row)
    (folder / "broken.npy").write_bytes(b"no array")
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, ten_digits: Path) -> Run:
    torch.set_num_threads(1)
    return finetune(ten_digits, tmp_path_factory.mktemp("teacher") / "run", **FAST)


def deployable(name: str) -> tuple[Deployable, dict[str, Any]]:
    """A network with a head for three classes, and a batch of two."""
    random = np.random.default_rng(0)
    if name == "minilm":
        pytest.importorskip("tokenizers", reason="the extra text is not installed")
        from edgetl.transfer.backbones import find
        from edgetl.transfer.definitions import before_data

        text = before_data(find(name), None)
        assert text is not None
        return Deployable(build(name, 3), text).eval(), text.batch(["a sentence", "and a longer one"])
    definition = preprocess_for(name, 160 if "vit" in name else 64)
    random.integers(0, 255)
    shape = (2, definition.height, definition.width, 3)
    body = build(name, 3, weights="none", definition=definition)
    return Deployable(body, definition).eval(), {"image": random.integers(0, 256, shape, dtype=np.uint8)}


CONVOLUTIONS = "timm/tf_efficientnet_lite0"


@pytest.mark.parametrize("name", ["minilm", "timm/test_vit", "timm/test_efficientnet", CONVOLUTIONS])
def test_merged_adapters_answer_as_unmerged_ones(name: str) -> None:
    pytest.importorskip("peft", reason="the extra lora is not installed")
    network, batch = deployable(name)
    plain = {key: value.clone() for key, value in network.backbone.state_dict().items()}
    with torch.no_grad():
        before = network.fed(batch, torch.device("cpu"))
    trainee = prepare(lora(rank=4), network, Streams(), 0)
    network = trainee.network
    check_gradients(network, batch)
    training = {key for key, value in network.named_parameters() if value.requires_grad}
    adapters = [value for key, value in network.named_parameters() if "lora_B" in key]
    assert len(training) == 2 * len(adapters) + 2
    torch.manual_seed(0)
    with torch.no_grad():
        assert torch.equal(network.fed(batch, torch.device("cpu")), before)
        for value in adapters:
            value.normal_(std=0.02)
        unmerged = network.fed(batch, torch.device("cpu"))
        merged = trainee.finalize()
        after = merged.fed(batch, torch.device("cpu"))
    largest = float(unmerged.abs().max())
    assert float((unmerged - before).abs().max()) > 1e-3 * largest
    assert float((unmerged - after).abs().max()) <= 1e-5 * max(largest, 1.0)
    assert list(merged.backbone.state_dict()) == list(plain)


def test_adapters_go_where_they_are_told_and_where_they_count() -> None:
    pytest.importorskip("peft", reason="the extra lora is not installed")
    network, _ = deployable("timm/test_vit")
    some = prepare(lora(layers="blocks.*.qkv, blocks.*.fc1"), network, Streams(), 0).network
    held = {key.split(".lora_")[0] for key in some.backbone.state_dict() if ".lora_" in key}
    assert held
    assert all(key.endswith(("qkv", "fc1")) for key in held)
    network, _ = deployable("timm/test_vit")
    with pytest.raises(UnknownNameError, match=r"unknown layer for an adapter 'blocks\.\*\.qvk'"):
        prepare(lora(layers="blocks.*.qvk"), network, Streams(), 0)
    network, _ = deployable(CONVOLUTIONS)
    depthwise = [key for key, module in network.backbone.named_modules() if getattr(module, "groups", 1) > 1]
    assert depthwise
    assert not set(depthwise) & set(strategies.lora._able(network.backbone))
    # torch's own attention reads its weights rather than calling its layers.
    inner = torch.nn.Sequential(torch.nn.MultiheadAttention(8, 2), torch.nn.Linear(8, 8), torch.nn.Linear(8, 3))
    assert list(strategies.lora._able(inner)) == ["1"]


def policy(trains: str) -> Strategy:
    return fine_tune(trains=trains)


@pytest.mark.parametrize(
    ("trains", "expected"),
    [
        ("head", lambda name: name.startswith("classifier.")),
        ("all", lambda name: True),
        ("head, blocks.2.*", lambda name: name.startswith(("classifier.", "blocks.2."))),
    ],
)
def test_what_trains_is_what_the_policy_says(trains: str, expected: Any) -> None:
    network, batch = deployable("timm/test_efficientnet")
    network = prepare(policy(trains), network, Streams(), 0).network
    network.fed(batch, torch.device("cpu")).sum().backward()
    graded = {name for name, value in network.backbone.named_parameters() if value.grad is not None}
    assert graded == {name for name, _ in network.backbone.named_parameters() if expected(name)}
    held = Trained(network.backbone).state_dict()
    buffers = {name for name, _ in network.backbone.named_buffers()}
    assert set(held) == graded | buffers


def test_a_pattern_that_matches_nothing_is_an_error_and_leaves_nothing(tmp_path: Path, few_digits: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"parameter of the backbone 'block\.2\.\*'"):
        finetune(few_digits, tmp_path / "run", **TINY, set={"trains": "head,block.2.*"})
    assert not (tmp_path / "run").exists()
    with pytest.raises(EdgetlError, match="nothing of the backbone trains under 'added'"):
        prepare(policy("added"), deployable("timm/test_efficientnet")[0], Streams(), 0)


def test_a_run_says_what_it_trained_and_the_rest_is_as_it_was(tmp_path: Path, ten_digits: Path, teacher: Run) -> None:
    run = finetune(
        ten_digits,
        tmp_path / "run",
        **{**FAST, "weights": None, "backbone": None, "epochs": 1},
        set={"trains": "head,blocks.2.*"},
        from_run=teacher.path,
    )
    assert (run.backbone, run.settings["options"]["trains"]) == (teacher.backbone, "head,blocks.2.*")
    assert run.settings["given"]["previous"]["digest"] == teacher.digest
    before, after = (safetensors.torch.load_file(each.weights) for each in (teacher, run))
    trained = {name for name, value in after.items() if name.startswith(("classifier.", "blocks.2."))}
    assert all(torch.equal(before[name], value) for name, value in after.items() if name not in trained)
    floats = [name for name in trained if "running" not in name and "num_batches" not in name]
    assert run.lineage["trained"]["tensors"] == len(floats)
    assert run.lineage["trained"]["parameters"] == sum(after[name].numel() for name in floats)
    assert run.lineage["trained"]["of"] == sum(p.numel() for p in load_model(run).parameters())
    with pytest.raises(EdgetlError, match="leave --backbone out"):
        finetune(ten_digits, tmp_path / "other", **{**TINY, "weights": None, "backbone": "mlp"}, from_run=teacher.path)


def test_a_strong_pull_to_the_start_holds_the_weights_there(tmp_path: Path, few_digits: Path) -> None:
    moved = {}
    for pull in (0.0, 1e4):
        options = {**TINY, "learning_rate": 1e-3, "epochs": 2, "set": {"l2_sp": pull}}
        run = finetune(few_digits, tmp_path / f"run{pull:g}", **options)
        assert ("L2-SP (10000)" in run.settings["details"]["terms"]) == (pull > 0)
        moved[pull] = run.history[-1]["val"]["loss"] - run.history[0]["val"]["loss"]
    # Adam's steps have one size, however strong the pull, so that the weights swing around their start.
    assert abs(moved[1e4]) < 0.5 * abs(moved[0.0])


@pytest.mark.parametrize("strategy", ["lora", "distillation"])
def test_resumed_after_sigkill_equals_uninterrupted(
    tmp_path: Path, table: Path, unlabelled: Path, strategy: str
) -> None:
    plain: dict[str, Any] = {"precision": "32-true", "accelerator": "cpu", "learning_rate": 0.01}
    options = {**plain, "epochs": 12, "strategy": strategy, "checkpoint_seconds": 0.0}
    if strategy == "lora":
        pytest.importorskip("peft", reason="the extra lora is not installed")
        options["set"] = {"rank": 4, "dropout": 0.1}
    else:
        teacher = finetune(table, tmp_path / "teacher", **plain, epochs=15)
        options |= {"teacher": str(teacher.path), "target_data": str(unlabelled), "set": {"weight": 0.7}}
    whole = finetune(table, tmp_path / "whole", **{**options, "checkpoint_seconds": 1000.0})
    assert whole.metrics.best_epoch > 0
    out = tmp_path / "killed"
    process = start(tmp_path, table, out, options)
    while not (out / "checkpoint" / "last.pt").is_file():
        assert process.poll() is None
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    held = torch.load(out / "checkpoint" / "last.pt", weights_only=True)
    assert held["state"]["epoch"] < 12
    if strategy == "lora":
        assert {name.split(".")[-3] for name in held["model"] if "lora_" in name} == {"lora_A", "lora_B"}
        assert not any("base_layer" in name for name in held["model"])
    resumed = finetune(table, out, **options)
    assert resumed.weights_sha256 == whole.weights_sha256
    assert resumed.metrics == whole.metrics
    assert (out / "history.jsonl").read_text() == (tmp_path / "whole" / "history.jsonl").read_text()
    assert {p.name for p in out.iterdir()} == {p.name for p in (tmp_path / "whole").iterdir()}
    if strategy == "distillation":
        # What the data hold back is in no stream, nor is what is no array.
        told, sizes = whole.lineage["streams"]["target"], whole.dataset.sizes()
        assert told == {"samples": 60 + sizes["train"], "left_out": 301 - sizes["train"]}


def test_streams_show_everything_before_anything_again() -> None:
    drawn = [stream_indices(10, 4, 5, seed=0, epoch=epoch, name="target") for epoch in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
    flat = np.concatenate(drawn[0])
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert not np.array_equal(drawn[0], stream_indices(10, 4, 5, seed=0, epoch=0, name="replay"))


def test_a_teacher_answers_in_the_students_classes_and_scale(teacher: Run) -> None:
    definition, model = input_of(teacher), load_model(teacher)
    batch = definition.batch(teacher.dataset.paths("val"))
    image = torch.from_numpy(batch["image"])
    turned = tuple(reversed(teacher.classes))
    with torch.no_grad():
        expected = model(image)
        found = Teacher(teacher, definition, turned, Scale(2.0, 4.0))(image)
    assert torch.allclose(found, (expected.flip(1) - 2) / 4, atol=1e-6)
    with pytest.raises(RunError, match="has other classes"):
        Teacher(teacher, definition, ("cat", "dog"), Scale())


def test_a_teacher_sees_the_students_picture_in_its_own_size_and_channels() -> None:
    image = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    rgb, larger = preprocess_for("timm/test_efficientnet", 32), preprocess_for("timm/test_efficientnet", 48)
    bgr, grey = (
        type(rgb)(32, 32, 32, "bilinear", (0.5,) * n, (0.5,) * n, channels=name) for name, n in (("BGR", 3), ("L", 1))
    )
    assert torch.equal(Pictures(rgb, rgb)(image)[0], image)
    assert torch.equal(Pictures(rgb, bgr)(image)[0], image.flip(3))
    assert torch.equal(Pictures(bgr, rgb)(image.flip(3))[0], image)
    assert Pictures(rgb, larger)(image)[0].shape == (2, 48, 48, 3)
    luma = np.stack([np.asarray(Image.fromarray(each.numpy()).convert("L")) for each in image])
    assert np.abs(Pictures(rgb, grey)(image)[0][..., 0].numpy().astype(int) - luma).max() <= 1
    assert torch.equal(Pictures(grey, rgb)(image[..., :1])[0], image[..., :1].expand(-1, -1, -1, 3))


def test_an_adopted_graph_teaches_as_its_torch_twin_does(tmp_path: Path, ten_digits: Path, teacher: Run) -> None:
    from edgetl.compress.export import export_onnx
    from edgetl.workflow.adoption.adopt import adopt

    definition = input_of(teacher)
    file = export_onnx(
        load_model(teacher), definition, tmp_path / "net.onnx", outputs=("scores",), batch=None, opset=18
    )
    (tmp_path / "classes.txt").write_text("\n".join(teacher.classes))
    given = tmp_path / "prep.json"
    given.write_text((teacher.path / "preprocess.json").read_text())
    adopted = adopt(file, ten_digits, tmp_path / "adopted", preprocess=given, classes=tmp_path / "classes.txt")
    image = torch.from_numpy(definition.batch(teacher.dataset.paths("val")[:5])["image"])
    with torch.no_grad():
        found, expected = (Teacher(run, definition, teacher.classes, Scale())(image) for run in (adopted, teacher))
    assert torch.allclose(found, expected, atol=1e-4)
    run = finetune(ten_digits, tmp_path / "run", **{**FAST, "epochs": 1}, strategy="distillation", teacher=adopted.path)
    assert run.settings["given"]["teacher"]["digest"] == adopted.digest
    assert "imitation (temperature 2)" in run.settings["details"]["terms"]


def test_what_a_strategy_is_given_has_to_fit(tmp_path: Path, ten_digits: Path, few_digits: Path, teacher: Run) -> None:
    taught: dict[str, Any] = {**FAST, "strategy": "distillation"}
    wrong: list[tuple[dict[str, Any], type[EdgetlError], str]] = [
        (taught, EdgetlError, "needs the run whose answers are followed: give --teacher"),
        ({**FAST, "teacher": teacher.path}, EdgetlError, "'fine-tune' takes no --teacher"),
        ({**taught, "teacher": tmp_path / "gone"}, RunError, "is not a run"),
        ({**taught, "teacher": teacher.path, "target_data": tmp_path / "gone"}, DataError, "give --target-data"),
        ({**taught, "teacher": teacher.path, "target_data": teacher.path}, DataError, "holds no image"),
        ({**taught, "teacher": teacher.path, "retain": few_digits}, EdgetlError, "takes no --retain"),
        ({**taught, "teacher": teacher.path, "seed": 1}, DataError, "with the same --seed"),
        ({**FAST, "set": {"l2_sq": 1}}, UnknownNameError, "did you mean l2_sp"),
        ({**FAST, "set": {"l2_sp": "much"}}, EdgetlError, "l2_sp is 'much': give a number"),
        ({**FAST, "set": {"l2_sp": "nan"}}, EdgetlError, "give a number"),
        ({**FAST, "strategy": "linear-probe", "set": {"rank": 1}}, UnknownNameError, "choose one of folds, head"),
        ({**FAST, "strategy": "lora", "set": {"rank": 2.5}}, EdgetlError, "give a whole number"),
        ({**FAST, "strategy": "lora", "set": {"dropout": 1}}, EdgetlError, "less than 1"),
    ]
    for options, error, words in wrong:
        with pytest.raises(error, match=words):
            finetune(ten_digits, tmp_path / "run", **options)
        assert not list((tmp_path / "run").glob("*")), options


def options() -> Iterator[tuple[str, dict[str, Any]]]:
    for strategy in strategies.list_strategies():
        for option in strategy["options"]:
            yield strategy["name"], option


@pytest.mark.parametrize(("strategy", "option"), options())
def test_every_option_is_typed_and_told(strategy: str, option: dict[str, Any]) -> None:
    assert type(option["default"]).__name__ == option["type"]
    assert len(option["about"]) > 15
    words = strategies.options_for(strategy, {option["name"]: str(option["default"])})
    assert words == strategies.options_for(strategy, {})
    assert option["name"] in inspect.signature(strategies.STRATEGIES[strategy]).parameters


def test_what_is_held_still_is_where_training_is(tmp_path: Path, few_digits: Path) -> None:
    from edgetl.transfer.assembly import Job, assemble
    from edgetl.transfer.checkpoint import epoch_file, write_weights
    from edgetl.transfer.plan import Options, plan
    from edgetl.transfer.scores import Scores

    given = {"task": None, "strategy": "fine-tune", "epochs": 1, "learning_rate": 0.001, "seed": 0, "devices": 1}
    place = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = {**TINY, "accelerator": place, "set": {"l2_sp": 0.1}}
    order = plan(Options(few_digits, tmp_path, **given, **chosen, shares=None, checkpoint_seconds=60.0))
    from edgetl.inputs import load_dataset

    job = Job(tmp_path, load_dataset(few_digits), order.input, order.settings, Scores({}, 0.0, 0, "accuracy"), 0, 60.0)
    body = build("timm/test_efficientnet", 4, weights="none", definition=order.input)
    write_weights(epoch_file(job.checkpoints, 0), body.state_dict())
    setup = assemble(Fabric(accelerator=place, devices=1), job)
    assert setup.anchor is not None
    values = [*setup.anchor.parameters(), *setup.anchor.buffers()]
    assert {value.device.type for value in values} == {place}
    assert not any(value.requires_grad for value in values)
    assert not any(module.training for module in setup.anchor.modules())
    assert not {value.data_ptr() for value in values} & {v.data_ptr() for v in setup.network.parameters()}
