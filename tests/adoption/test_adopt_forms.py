"""Every form in which models are given: each is adopted as it is, or refused in a line."""

from __future__ import annotations

import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

import edgetl
from edgetl import check
from edgetl.base.errors import EdgetlError
from edgetl.compress.graph import kind_of, load
from edgetl.core.run import NETWORK, Run
from edgetl.workflow.adoption.definition import define
from edgetl.workflow.adoption.readers import READERS, find_reader
from edgetl.workflow.adoption.readers.hugging_face import READER as HUGGING_FACE
from edgetl.workflow.network_reference import NetworkReference, reference_of
from tests.adoption.foreign import CLASSES, Owned, exported
from tests.adoption.test_adopt_onnx import given
from tests.cli.test_bad_input import refused
from tests.reviews import write_reviews

Cli = Callable[..., subprocess.CompletedProcess[str]]


def program(model: nn.Module, file: Path, batch: int | None) -> Path:
    """As ``torch.export`` saves it, for any number of samples or for one."""
    sizes = ({0: torch.export.Dim("n", max=64)},) if batch is None else None
    torch.export.save(torch.export.export(model, (torch.zeros(batch or 2, 3, 24, 24),), dynamic_shapes=sizes), file)
    return file


@pytest.mark.parametrize("form", ["module", "program", "program for one"])
def test_torch_models_of_any_architecture_answer_as_they_did(form: str, owner: Owned, tmp_path: Path) -> None:
    model: Path | nn.Module = nn.Sequential(owner.model, nn.Softmax(1))
    if form != "module":
        model = program(owner.model, tmp_path / "model.pt2", None if form == "program" else 1)
    prep, answers = owner.folder / "prep.json", owner.answers(tmp_path / "a.npz")
    run = edgetl.adopt(model, owner.photos, tmp_path / "run", preprocess=prep, answers=answers)
    assert run.adoption is not None
    assert run.adoption.verified == "answers"
    reference = reference_of(run)
    assert isinstance(reference, NetworkReference)
    assert reference.module is None
    assert reference.features(run.dataset.paths("search")[:3], lambda *_: None).shape == (3, 288)


def test_a_program_whose_sizes_are_code_is_never_loaded(owner: Owned, here: Cli, tmp_path: Path) -> None:
    """torch gives them to sympy, which evaluates them."""
    file, mark = program(owner.model, tmp_path / "model.pt2", None), tmp_path / "executed"
    bad = tmp_path / "bad.pt2"
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(bad, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("models/model.json"):
                record = json.loads(content)
                content = json.dumps(_planted(record, f"__import__('pathlib').Path('{mark}').touch() or 2")).encode()
            target.writestr(name, content)
    words = given(owner, tmp_path / "run")
    words[1] = bad
    refused(here(*words), "a size that is no arithmetic")
    assert not mark.exists()


def _planted(record: object, code: str) -> object:
    if isinstance(record, dict):
        return {key: code if key == "expr_str" else _planted(value, code) for key, value in record.items()}
    return [_planted(item, code) for item in record] if isinstance(record, list) else record


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=len(CLASSES)).eval()


def test_a_checkpoint_by_its_architecture_is_a_run_with_a_torch_model(owner: Owned, tmp_path: Path) -> None:
    model = small("test_efficientnet")
    wrapped = {f"module.model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "best.pth")
    sizes = owner.declared(tmp_path / "prep.json", mean=(0.5,) * 3)
    spec = f"timm:test_efficientnet@{tmp_path / 'best.pth'}"
    run = edgetl.adopt(spec, owner.photos, tmp_path / "run", preprocess=sizes)
    assert (run.backbone, run.network) == ("timm/test_efficientnet", None)
    assert run.adoption is not None
    assert run.adoption.told_by["mean"] == "declared in prep.json"
    assert run.adoption.told_by["channels"] == "timm's configuration of test_efficientnet"
    module = reference_of(run).module
    assert module is not None
    planes = torch.rand(2, 3, 24, 24)
    with torch.inference_mode():
        assert torch.allclose(module.backbone(planes), model(planes), atol=1e-5)
    (made,) = edgetl.export(run, targets="x86-generic", out=tmp_path / "out", precision="fp32", bench=False)
    assert check(made.bundle.path) is None


def test_checkpoints_that_do_not_fit_are_refused_by_name(owner: Owned, here: Cli, tmp_path: Path) -> None:
    state = small("test_efficientnet").state_dict()
    files = {
        "headless": {name: value for name, value in state.items() if "classifier" not in name},
        "torn": {name: value for name, value in state.items() if "conv_stem" not in name},
        "other": small("test_resnet").state_dict(),
    }
    for name, tensors in files.items():
        torch.save(tensors, tmp_path / f"{name}.pth")
    torch.save(owner.model, tmp_path / "pickled.pth")

    def tried(spec: str) -> subprocess.CompletedProcess[str]:
        words = given(owner, tmp_path / "run", preprocess=None)
        words[1] = spec
        return here(*words)

    refused(tried(f"timm:test_efficientnet@{tmp_path / 'headless.pth'}"), "lacks classifier.weight")
    refused(tried(f"timm:test_efficientnet@{tmp_path / 'torn.pth'}"), "lacks conv_stem.weight")
    refused(tried(f"timm:test_efficientnet@{tmp_path / 'other.pth'}"), "lacks classifier.weight")
    refused(tried(f"timm:test_efficientnet@{tmp_path / 'pickled.pth'}"), "cannot read the weights")
    refused(tried(f"timm:test_efficientnet@{tmp_path / 'none.pth'}"), "there is no weights file")
    refused(tried("timm:test_efficientnet"), "names no weights", "NAME@FILE")
    refused(tried(f"timm:test_efficientnett@{tmp_path / 'torn.pth'}"), "unknown backbone")
    assert not (tmp_path / "run").exists()


def test_torchvisions_presets_are_told_as_what_they_are(tmp_path: Path) -> None:
    model = torchvision.models.get_model("mobilenet_v3_small", num_classes=3)
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    spec = f"torchvision:mobilenet_v3_small@{tmp_path / 'mine.pth'}"
    read = find_reader(spec).read(spec)
    assert read.fields["height"] == 224
    assert "may not be what these weights were trained with" in read.told_by["resize"]


@pytest.mark.parametrize(
    ("processor", "told"),
    [
        ({"size": {"height": 32, "width": 32}, "resample": 3}, {"mode": "squash", "interpolation": "bicubic"}),
        (
            {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True},
            {"mode": "shorter", "resize": 36},
        ),
        ({"size": 32, "rescale_factor": 1 / 127.5}, {"mean": [0.25] * 3, "std": [0.25] * 3}),
        ({"size": 32, "do_normalize": False}, {"mean": [0.0] * 3, "std": [1.0] * 3}),
    ],
    ids=["squash", "crop", "another scale", "no normalisation"],
)
def test_a_folder_of_hugging_face_tells_its_own_preparation(
    processor: dict[str, object], told: dict[str, object], tmp_path: Path
) -> None:
    folder = vit(tmp_path / "vit", {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, **processor})
    definition, told_by = define(HUGGING_FACE.read(f"hf:{folder}"), None)
    for name, value in told.items():
        assert definition.to_json()[name] == pytest.approx(value)
        assert told_by[name] == "preprocessor_config.json"


def test_a_vit_of_hugging_face(owner: Owned, tmp_path: Path) -> None:
    folder = vit(tmp_path / "vit", {"size": 32, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    run = edgetl.adopt(f"hf:{folder}", owner.photos, tmp_path / "run")
    assert run.adoption is not None
    assert run.adoption.names_told_by == "config.json, id2label"
    assert run.classes == tuple(reversed(CLASSES))
    assert kind_of(load(run.path / NETWORK)) == "transformer"


def vit(folder: Path, processor: dict[str, object]) -> Path:
    """As ``save_pretrained`` leaves it, its classes in an order of its own."""
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
    torch.manual_seed(1)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
        id2label=dict(enumerate(reversed(CLASSES))),
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def test_a_folder_of_hugging_face_that_leaves_something_open_is_refused(tmp_path: Path) -> None:
    folder = vit(tmp_path / "vit", {"size": {"shortest_edge": 36}})
    with pytest.raises(EdgetlError, match="edgetl knows no such mode: declare it with --preprocess"):
        HUGGING_FACE.read(f"hf:{folder}")
    (folder / "model.safetensors").unlink()
    with pytest.raises(EdgetlError, match="no weights in safetensors"):
        HUGGING_FACE.read(f"hf:{folder}")


def test_a_classifier_of_texts_from_a_folder(tmp_path: Path) -> None:
    run = edgetl.adopt(f"hf:{bert(tmp_path / 'bert')}", write_reviews(tmp_path / "reviews.csv"), tmp_path / "run")
    assert run.adoption is not None
    assert (run.task, run.input_record["length"]) == ("text-classification", 24)
    assert run.adoption.told_by["length"] == "config.json"
    assert run.adoption.parity["max_abs"] < 1e-4
    (made,) = edgetl.export(run, targets="x86-generic", out=tmp_path / "out", precision="fp32", bench=False)
    assert check(made.bundle.path) is None
    assert made.certificate.flips == {"lost": 0, "gained": 0}


def bert(folder: Path) -> Path:
    """A small one whose tokenizer knows words alone."""
    transformers = pytest.importorskip("transformers", reason="the extra hf is not installed")
    tokenizers = pytest.importorskip("tokenizers", reason="the extra text is not installed")
    words = ["[PAD]", "[UNK]", "soup", "bread", "rain", "wind", "was", "good", "late"]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=24, id2label={0: "weather", 1: "food"}, num_labels=2,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("task", ["classification", "multi-label", "regression"])
def test_models_of_arrays_for_every_task(task: str, tmp_path: Path) -> None:
    """Scaled inside the graph, as declared; the ending that belongs to the task is cut off."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (120, 4)).astype(np.float32)
    width = {"classification": 3, "multi-label": 2, "regression": 1}[task]
    endings = {"classification": nn.Softmax(1), "multi-label": nn.Sigmoid(), "regression": nn.Identity()}
    body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, width)).eval()
    mean, std = x.mean(0), x.std(0)
    with torch.inference_mode():
        raw = body(torch.from_numpy((x - mean) / std)).numpy()
    if task == "classification":
        labels = {"y": raw.argmax(1)}
    elif task == "multi-label":
        labels = {"labels": (raw > np.median(raw, axis=0)).astype(np.uint8)}
    else:
        labels = {"target": raw[:, 0] + rng.normal(0, 0.1, 120)}
    np.savez(tmp_path / "data.npz", x=x, **labels)
    exported(nn.Sequential(body, endings[task]), tmp_path / "model.onnx", torch.zeros(1, 4), input_names=["features"])
    array = {"name": "features", "shape": [4], "mean": mean.tolist(), "std": std.tolist()}
    (tmp_path / "prep.json").write_text(json.dumps({"kind": "tensor", "arrays": [array]}))
    run = edgetl.adopt(
        tmp_path / "model.onnx", tmp_path / "data.npz", tmp_path / "run", preprocess=tmp_path / "prep.json"
    )
    assert run.task == task
    outputs = _measured(run)
    rows = [int(Path(sample.path).stem) for sample in run.dataset.split("search")]
    assert np.abs(outputs - raw[rows]).max() < 1e-4
    (made,) = edgetl.export(run, targets="x86-generic", out=tmp_path / "out", precision="fp32", bench=False)
    assert check(made.bundle.path) is None


def adopted(folder: Path) -> Run:
    return edgetl.adopt(folder / "model.onnx", folder / "data.npz", folder / "run", preprocess=folder / "prep.json")


def _measured(run: Run) -> np.ndarray:
    outputs = run.val_outputs
    assert outputs is not None
    return next(iter(outputs.values()))


def test_one_logit_for_two_classes_is_two(owner: Owned, tmp_path: Path) -> None:
    """A Sigmoid at the end: its value is the probability of the second class."""
    x = np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32)
    body = nn.Linear(4, 1)
    with torch.inference_mode():
        raw = body(torch.from_numpy(x)).numpy()
    np.savez(tmp_path / "data.npz", x=x, y=(raw[:, 0] > 0).astype(np.int64))
    exported(nn.Sequential(body, nn.Sigmoid()), tmp_path / "model.onnx", torch.zeros(1, 4), input_names=["x"])
    (tmp_path / "prep.json").write_text(json.dumps({"kind": "tensor", "arrays": [{"name": "x", "shape": [4]}]}))
    run = edgetl.adopt(
        tmp_path / "model.onnx", tmp_path / "data.npz", tmp_path / "run", preprocess=tmp_path / "prep.json"
    )
    assert run.metrics.val["accuracy"] == 1.0
    assert run.adoption is not None
    assert "one logit made two" in run.adoption.changes


def test_every_reader_is_named_where_nothing_reads_a_model() -> None:
    with pytest.raises(EdgetlError) as error:
        find_reader("model.h5")
    assert all(reader.about in str(error.value) for reader in READERS.values())
